"""YAML with line numbers: every value keeps its line, and duplicate keys are errors."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import yaml

from ume_retrieval.errors import InputError

Place = Sequence[str | int]
"""Keys and positions that lead to a value, outermost first."""


@dataclass(frozen=True, slots=True)
class Document:
    """A parsed YAML file.

    Attributes:
        source: What messages call it.
        data: The plain values.
        root: The tree with marks.
    """

    source: str
    data: Any
    root: yaml.Node

    def line(self, place: Place) -> int:
        r"""Line of a value, counted from 1; of the nearest one around it when it is not there itself.

        Steps that lead nowhere are passed over, so that places which name more than the file does still find it.

        Example:
            >>> read_yaml("a: 1\nb:\n- c: 2\n", "x").line(["b", 0, "c"])
            3
        """
        node, line = self.root, self.root.start_mark.line
        for step in place:
            found = _inside(node, step)
            if found is not None:
                line, node = found
        return int(line) + 1


def read_yaml(text: str, source: str) -> Document:
    """Parse YAML that holds plain values only (numbers, texts, lists, mappings).

    Args:
        text: The file's content.
        source: What messages call it.

    Raises:
        InputError: When it is not YAML, or a key is given twice; with the line.
    """
    try:
        root = yaml.compose(text, yaml.SafeLoader)
        if root is None:
            raise InputError(f"{source} is empty", hint="a recipe has at least `name` and `stages`")
        _refuse_twins(root, source)
        return Document(source, yaml.safe_load(text), root)
    except yaml.YAMLError as error:
        raise InputError(f"{source}{_where(error)}: {_problem(error)}", hint="correct the YAML") from error
    except (ValueError, RecursionError) as error:
        raise InputError(f"{source} cannot be read as YAML: {error}", hint="correct the YAML") from error


def _inside(node: yaml.Node, step: str | int) -> tuple[int, yaml.Node] | None:
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            if getattr(key, "value", None) == str(step):
                return key.start_mark.line, value
    if isinstance(node, yaml.SequenceNode) and isinstance(step, int) and step < len(node.value):
        return node.value[step].start_mark.line, node.value[step]
    return None


def _refuse_twins(root: yaml.Node, source: str) -> None:
    waiting, seen = [root], set()
    while waiting:
        node = waiting.pop()
        if id(node) in seen:
            continue
        seen.add(id(node))
        if isinstance(node, yaml.SequenceNode):
            waiting.extend(node.value)
        if isinstance(node, yaml.MappingNode):
            keys: set[str] = set()
            for key, value in node.value:
                name = str(key.value)
                if name in keys:
                    line = key.start_mark.line + 1
                    raise InputError(f"{source}, line {line}: the key {name!r} is given twice", hint="keep one of them")
                keys.add(name)
                waiting.append(value)


def _where(error: yaml.YAMLError) -> str:
    mark = getattr(error, "problem_mark", None)
    return f", line {mark.line + 1}" if mark else ""


def _problem(error: yaml.YAMLError) -> str:
    return str(getattr(error, "problem", None) or next(iter(str(error).splitlines()), "no YAML"))
