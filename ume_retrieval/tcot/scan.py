"""Find JSON cues in prose: one tolerant pass over any string, in linear time and without recursion."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Final, TypeAlias

CUE_KEYS: Final = ("text_keywords", "bbox_2d", "key_frames")

MAX_DEPTH: Final = 8
"""Deepest nesting that is read; a cue needs 5 (`{"x": [{"bbox_2d": [[[1, …`)."""


@dataclass(frozen=True, slots=True)
class ObjectValue:
    """Placeholder of a JSON object inside a value; its cue members are reported separately.

    Attributes:
        has_cue: True when cue members were found inside.
    """

    has_cue: bool

    def __repr__(self) -> str:
        return "{…}"


Value: TypeAlias = "list[Value] | ObjectValue | str | int | float | bool | None"


@dataclass(frozen=True, slots=True)
class Island:
    """A span of text that is JSON and holds cues.

    Attributes:
        start: First character.
        end: One past the last character.
        cues: Key and value of every cue member, in order of completion.
        loose: True when it is not strict JSON (single quotes, trailing comma, bare keys, Python literals).
        broken: True when it ends before its brackets close.
    """

    start: int
    end: int
    cues: tuple[tuple[str, Value], ...]
    loose: bool
    broken: bool


_KEYS = "|".join(CUE_KEYS)
# An object with a member, a list of such objects, or a member whose braces were forgotten.
_START = re.compile(
    rf"""(?P<open>\{{(?=\s*(?:["']|\w{{1,40}}\s*:))|\[(?=\s*\{{\s*["'\w]))|["']?(?<!\w)(?P<key>{_KEYS})["']?\s*:(?=\s*\[)"""
)
_TOKEN = re.compile(
    r"""\s*+(?:(?P<mark>[\[\]{},:])
    |(?P<number>[-+]?(?:[0-9]++(?:\.[0-9]*+)?|\.[0-9]++)(?:[eE][-+]?[0-9]++)?(?!\w))
    |"(?P<double>(?:[^"\\\n]++|\\.)*+)"
    |'(?P<single>(?:[^'\\\n]++|\\.)*+)'
    |(?P<word>-?[A-Za-z_]\w*))""",
    re.VERBOSE,
)
# Rest of truncated JSON: its closing brackets, or a string that the end of the text cut.
_REMNANT = re.compile(r"""\s*(?:[\]}][\s\]}]*|["'][^"'\n]*\Z)""")
_ESCAPE = re.compile(r"\\(?:u([0-9a-fA-F]{4})|(.))")
_ESCAPED = {"n": "\n", "t": "\t", "r": "\r", "b": "\b", "f": "\f"}
_STRICT_WORDS: dict[str, Value] = {"true": True, "false": False, "null": None}
_LOOSE_WORDS: dict[str, Value] = {
    "True": True,
    "False": False,
    "None": None,
    "NaN": float("nan"),
    "nan": float("nan"),
    "Infinity": float("inf"),
    "-Infinity": float("-inf"),
    "inf": float("inf"),
}


@dataclass(slots=True)
class _Container:
    """A bracket that is still open."""

    is_object: bool
    expects: str
    items: list[Value] = field(default_factory=list)
    key: str = ""
    has_cue: bool = False

    @property
    def takes_value(self) -> bool:
        return self.expects == "value" or (self.expects == "first" and not self.is_object)

    @property
    def may_close(self) -> bool:
        return self.expects in {"first", "comma"} or self.expects == ("key" if self.is_object else "value")


class _UnreadableError(Exception):
    """The text at this position is not JSON, even when read tolerantly."""


def find_cues(text: str) -> list[Island]:
    """Find every span of JSON in `text` that holds a cue key, whatever braces precede it.

    Reads strict JSON and what models write instead: single quotes, trailing commas, bare keys, Python literals, objects
    cut off by the end of the text, and members without the braces around them (`bbox_2d: [[…]]`).

    Args:
        text: Any string.

    Returns:
        Spans in order, not overlapping.

    Example:
        >>> [island.cues for island in find_cues('a set {x} then {"key_frames": [5, 6]} end')]
        [(('key_frames', [5, 6]),)]
    """
    islands: list[Island] = []
    if not any(key in text for key in CUE_KEYS):
        return islands
    position = 0
    while (match := _START.search(text, position)) is not None:
        island, position = _Reader(text, match).read()
        if island is not None:
            islands.append(island)
    return islands


class _Reader:
    """Reads one value from its opening bracket, and closes brackets that the text leaves open."""

    def __init__(self, text: str, start: re.Match[str]) -> None:
        self._text = text
        self._start = start.start()
        self._stack: list[_Container] = []
        self._cues: list[tuple[str, Value]] = []
        self._loose = False
        if key := start["key"]:
            self._loose = True
            self._stack.append(_Container(is_object=True, expects="value", key=key))
        else:
            self._open(start["open"])
        self._position = start.end()

    def read(self) -> tuple[Island | None, int]:
        """Read on until the first bracket closes or the text makes no sense.

        Returns:
            The island when it carries cues, and where to look on from (always further than the start).
        """
        broken = False
        try:
            while self._stack:
                self._step()
        except _UnreadableError:
            broken = True
            while self._stack:
                self._close(self._stack[-1])
            if self._cues and (remnant := _REMNANT.match(self._text, self._position)):
                self._position = remnant.end()
        if not self._cues:
            return None, self._position
        return Island(self._start, self._position, tuple(self._cues), self._loose, broken), self._position

    def _step(self) -> None:
        token = _TOKEN.match(self._text, self._position)
        if token is None:
            raise _UnreadableError
        kind = token.lastgroup or ""
        if kind == "mark":
            self._mark(token["mark"])
        elif kind == "number" and token.end() == len(self._text):
            self._position = token.end()  # the end of the text may have cut its digits
            raise _UnreadableError
        else:
            self._scalar(kind, token[kind])
        self._position = token.end()

    def _mark(self, mark: str) -> None:
        top = self._stack[-1]
        if mark in "[{":
            if not top.takes_value or len(self._stack) >= MAX_DEPTH:
                raise _UnreadableError
            self._open(mark)
        elif mark in "]}":
            if top.is_object is not (mark == "}") or not top.may_close:
                raise _UnreadableError
            self._loose |= top.expects in {"key", "value"}
            self._close(top)
        elif mark == ":" and top.expects == "colon":
            top.expects = "value"
        elif mark == "," and top.expects == "comma":
            top.expects = "key" if top.is_object else "value"
        else:
            raise _UnreadableError

    def _scalar(self, kind: str, token: str) -> None:
        top = self._stack[-1]
        self._loose |= kind == "single"
        if top.is_object and top.expects in {"first", "key"}:
            if kind == "number":
                raise _UnreadableError
            self._loose |= kind == "word"
            top.key, top.expects = token, "colon"
            return
        if not top.takes_value:
            raise _UnreadableError
        if kind == "word":
            if token not in _STRICT_WORDS and token not in _LOOSE_WORDS:
                raise _UnreadableError
            self._loose |= token in _LOOSE_WORDS
            self._add(_STRICT_WORDS.get(token, _LOOSE_WORDS.get(token)))
        else:
            self._add(_number(token) if kind == "number" else _unescape(token))

    def _open(self, mark: str) -> None:
        self._stack.append(_Container(is_object=mark == "{", expects="first"))

    def _close(self, top: _Container) -> None:
        self._stack.pop()
        if not self._stack:
            return
        if top.has_cue:
            self._stack[-1].has_cue = True
        self._add(ObjectValue(top.has_cue) if top.is_object else top.items)

    def _add(self, value: Value) -> None:
        top = self._stack[-1]
        if not top.is_object:
            top.items.append(value)
        elif top.key in CUE_KEYS:
            self._cues.append((top.key, value))
            top.has_cue = True
        top.expects = "comma"


def _number(token: str) -> int | float:
    if len(token) <= 15 and token.lstrip("+-").isdigit():
        return int(token)
    return float(token[:400])  # 400 characters settle the value: beyond the largest float it is infinite anyway


def _unescape(token: str) -> str:
    if "\\" not in token:
        return token
    text = _ESCAPE.sub(lambda m: chr(int(m[1], 16)) if m[1] else _ESCAPED.get(m[2], m[2]), token)
    # \ud83d\ude00 is one character written as two halves; a half alone is not a character.
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
