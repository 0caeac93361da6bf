# ruff: noqa: INP001  # a script
"""Write the table of every recipe key into `docs/training.md`, from the schema.

`python docs/tools/recipe_reference.py` does it; a test compares the page with the schema.
"""

from __future__ import annotations

import ast
import inspect
import re
import textwrap
import types
import typing
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from ume_retrieval.checkpoint import EmbedderSpec
from ume_training.recipes.schema import Recipe, RecipeData
from ume_training.recipes.stages import AnyStage, ScheduleSettings, Stage

PAGE = Path(__file__).parents[1] / "training.md"

SHARED: tuple[type[BaseModel], ...] = (ScheduleSettings,)
"""Settings that several stages take, described once."""

BEGIN, END = "<!-- keys: begin, made by `make docs` -->", "<!-- keys: end -->"


def stage_kinds() -> tuple[type[Stage], ...]:
    """Every kind of stage, in the order of the schema."""
    union, *_ = get_args(AnyStage)
    return get_args(union)


def field_docs(model: type[BaseModel]) -> dict[str, str]:
    """The docstring under each field of a class and of what it inherits from, on one line.

    Example:
        >>> from ume_training.recipes.stages import ScheduleSettings
        >>> field_docs(ScheduleSettings)["warmup"]
        'Steps of linear warm-up.'
    """
    docs: dict[str, str] = {}
    for part in reversed(model.__mro__):
        if part in (BaseModel, object) or not issubclass(part, BaseModel):
            continue
        body = typing.cast("ast.ClassDef", ast.parse(textwrap.dedent(inspect.getsource(part))).body[0]).body
        for field, below in pairwise(body):
            if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name):
                said = isinstance(below, ast.Expr) and isinstance(below.value, ast.Constant)
                text = str(below.value.value) if said else ""  # type: ignore[attr-defined]  # said knows
                docs[field.target.id] = re.sub(r"\s+", " ", text).strip()
    return docs


def rows(model: type[BaseModel], prefix: str = "") -> Iterator[tuple[str, str, str, str]]:
    """Key, type, default and meaning of every field, those of nested settings after their own.

    Settings of `SHARED` are described once, in a table of their own; those of `ume.json` are described elsewhere.
    """
    docs = field_docs(model)
    for name, field in model.model_fields.items():
        inner = _nested(field.annotation)
        yield f"{prefix}{name}", _type(field), _default(field, inner), docs.get(name, "")
        if inner is not None and inner not in (*SHARED, EmbedderSpec):
            yield from rows(inner, f"{prefix}{name}.")


def render() -> str:
    """The reference as Markdown."""
    parts = ["### The recipe", _table(row for row in rows(Recipe) if not row[0].startswith(("data.", "stages.")))]
    parts += ["### `data`", _table(rows(RecipeData))]
    parts += ["### Every stage", "`stage` says of which kind it is.", _table(rows(Stage))]
    for shared in SHARED:
        parts += ["### `schedule` and `warm_start`", inspect.getdoc(shared) or "", _table(rows(shared))]
    for kind in stage_kinds():
        name = get_args(kind.model_fields["stage"].annotation)[0]
        own = (row for row in rows(kind) if row[0] not in {"stage", "name"})
        parts += [f"### `stage: {name}`", inspect.getdoc(kind) or "", _table(own)]
    return "\n\n".join(parts)


def rewritten(text: str) -> str:
    """A document with the reference between its two marks made anew."""
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{BEGIN}\n\n{render()}\n\n{END}{after}"


def _table(lines: Iterator[tuple[str, str, str, str]]) -> str:
    head = "| Key | Type | Default | Meaning |\n|---|---|---|---|\n"
    return head + "\n".join(f"| `{key}` | {kind} | {default} | {_cell(doc)} |" for key, kind, default, doc in lines)


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


def _nested(annotation: Any) -> type[BaseModel] | None:
    for part in (annotation, *get_args(annotation)):
        if isinstance(part, type) and issubclass(part, BaseModel):
            return part
    return None


def _type(field: FieldInfo) -> str:
    bounds = [str(bound) for bound in (_bound(one) for one in field.metadata) if bound]
    return ", ".join([_words(field.annotation), *bounds])


def _words(annotation: Any) -> str:
    origin, inner = get_origin(annotation), get_args(annotation)
    if origin is Literal:
        return " or ".join(f"`{one}`" for one in inner)
    if origin in {Union, types.UnionType}:
        return " or ".join(dict.fromkeys(_words(one) for one in inner))
    if origin is Annotated:
        return ", ".join([_words(inner[0]), *(bound for bound in map(_bound, inner[1:]) if bound)])
    if origin in {tuple, dict}:
        kind = "list of" if origin is tuple else "map of names to"
        return f"{kind} {_words(inner[0] if origin is tuple else inner[1])}"
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return "map"
    return _PLAIN[annotation]


_PLAIN: dict[Any, str] = {
    str: "text",
    int: "whole number",
    float: "number",
    bool: "true or false",
    type(None): "null",
}


def _bound(constraint: Any) -> str:
    signs = {"gt": ">", "ge": ">=", "lt": "<", "le": "<=", "multiple_of": "a multiple of"}
    if isinstance(constraint, FieldInfo):
        return ", ".join(bound for bound in map(_bound, constraint.metadata) if bound)
    return ", ".join(
        f"{sign} {getattr(constraint, name):g}"
        for name, sign in signs.items()
        if isinstance(getattr(constraint, name, None), (int, float))
    )


def _default(field: FieldInfo, inner: type[BaseModel] | None) -> str:
    if field.is_required():
        return "required"
    value = field.get_default(call_default_factory=True)
    if value is PydanticUndefined or isinstance(value, BaseModel):
        return "as below" if inner else ""
    if value is None or value == "":
        return "null" if value is None else ""
    if isinstance(value, (tuple, list)):
        return f"`[{', '.join(map(str, value))}]`"
    return f"`{str(value).lower() if isinstance(value, bool) else value}`"


if __name__ == "__main__":
    PAGE.write_text(rewritten(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
