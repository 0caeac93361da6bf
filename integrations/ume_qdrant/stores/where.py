"""The text form of conditions on metadata, as in `owner=ann and year>=2020`."""

from __future__ import annotations

import datetime as dt
import re
from typing import Final, NamedTuple, NoReturn

from ume_qdrant.stores.conditions import (
    MAX_NESTING,
    And,
    AnyOf,
    Bound,
    Condition,
    ContainsText,
    ContainsWords,
    Exists,
    Not,
    Or,
    Range,
    Scalar,
)
from ume_retrieval.errors import InputError

MAX_LENGTH: Final = 20_000
"""Most characters of a text that is parsed."""

EXAMPLE: Final = "write as in: owner=ann and (year>=2020 or tag in (a, b))"

LIMITS: Final = {">": "gt", ">=": "gte", "<": "lt", "<=": "lte"}

OPERATORS: Final = ("=", "==", "!=", *LIMITS, "~=", "*=")

_TOKEN: Final = re.compile(
    r"""\s*(?:
        (?P<operator>[=!<>~*]=|[=<>])
      | (?P<mark>[(),])
      | (?P<quoted>"(?:[^"\\]|\\.)*"|'(?:[^'\\]|\\.)*')
      | (?P<word>[^\s()=<>!~*,'"]+)
    )""",
    re.VERBOSE | re.DOTALL,
)
_NUMBER: Final = re.compile(r"-?(?:0|[1-9]\d{0,18})(\.\d+)?([eE][+-]?\d+)?", re.ASCII)
_DATE: Final = re.compile(r"\d{4}-\d\d-\d\d([Tt ].+)?", re.ASCII)


class _Token(NamedTuple):
    """A part of the text. `kind` is operator, mark, quoted, word or end."""

    kind: str
    text: str
    start: int


def parse_where(text: str) -> Condition:
    r"""Parse conditions on metadata.

    Tests: `key = value`, `!=`, `>`, `>=`, `<`, `<=`, `key in (a, b)`, `key not in (a, b)`, `key exists`, `key missing`,
    `key ~= "words in any order"`, `key *= "exact part"`. They are joined by `and`, `or`, `not` and parentheses; `and`
    binds closer than `or`. A key in a mapping is written `camera.maker`.

    A value without quotes is a number, `true`, `false`, a date (`2024-05-01`, which is the whole day in UTC), a time
    (`2024-05-01T10:30:00+02:00`, in UTC without a zone), or otherwise a text. A quoted value is a text; `\` before a
    character in quotes takes it literally. `!=` and `not in` also match points that lack the value.

    Args:
        text: The conditions, at most 20,000 characters.

    Raises:
        InputError: If they cannot be read; the message has the place.

    Example:
        >>> parse_where("owner=ann and year>=2020")
        And(conditions=(AnyOf(key='owner', values=('ann',)), Range(key='year', gt=None, gte=2020, lt=None, lte=None)))
        >>> parse_where("owner=")
        Traceback (most recent call last):
        ume_retrieval.errors.InputError: conditions end where a value is expected: 'owner=' <- here
    """
    if not isinstance(text, str):
        raise InputError(f"conditions are a text, not {text!r}", hint="write 'owner=ann'")
    if len(text) > MAX_LENGTH:
        raise InputError(f"conditions of {len(text)} characters; at most {MAX_LENGTH} are read")
    return _Parser(text).parse()


class _Parser:
    """Recursive descent over the tokens of one text."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._tokens = self._split()
        self._next = 0

    def parse(self) -> Condition:
        condition = self._or(0)
        if self._seen.kind != "end":
            self._fail("'and', 'or' or the end")
        return condition

    def _split(self) -> list[_Token]:
        tokens: list[_Token] = []
        place, end = 0, len(self._text.rstrip())
        while place < end:
            found = _TOKEN.match(self._text, place)
            if found is None or found.lastgroup is None:
                start = place + len(self._text[place:]) - len(self._text[place:].lstrip())
                raise self._error(
                    f"{self._text[start]!r} is not possible", start, "quote values with special characters"
                )
            tokens.append(_Token(found.lastgroup, found[found.lastgroup], found.start(found.lastgroup)))
            place = found.end()
        return [*tokens, _Token("end", "", len(self._text))]

    @property
    def _seen(self) -> _Token:
        return self._tokens[self._next]

    def _take(self) -> _Token:
        token = self._seen
        self._next += token.kind != "end"
        return token

    def _takes(self, *words: str) -> bool:
        """Take the next token if it is one of these marks or keywords."""
        token = self._seen
        taken = token.kind in {"word", "mark"} and token.text.lower() in words
        self._next += taken
        return taken

    def _or(self, depth: int) -> Condition:
        parts = [self._and(depth)]
        while self._takes("or"):
            parts.append(self._and(depth))
        return parts[0] if len(parts) == 1 else Or(tuple(parts))

    def _and(self, depth: int) -> Condition:
        parts = [self._not(depth)]
        while self._takes("and"):
            parts.append(self._not(depth))
        return parts[0] if len(parts) == 1 else And(tuple(parts))

    def _not(self, depth: int) -> Condition:
        if depth >= MAX_NESTING // 2:  # each level can add an Or and an And
            raise self._error(f"conditions are nested deeper than {MAX_NESTING // 2}", self._seen.start)
        if self._takes("not"):
            return Not(self._not(depth + 1))
        if self._takes("("):
            inner = self._or(depth + 1)
            if not self._takes(")"):
                self._fail("')'")
            return inner
        return self._test()

    def _test(self) -> Condition:
        token = self._seen
        if token.kind not in {"word", "quoted"} or (token.kind == "word" and token.text.lower() in {"and", "or", "in"}):
            self._fail("a key of metadata")
        key = _unquoted(self._take())
        try:
            return self._compare(key)
        except InputError as error:
            if "<- here" in error.message:
                raise
            raise self._error(error.message, token.start, error.hint) from error

    def _compare(self, key: str) -> Condition:
        if self._takes("exists"):
            return Exists(key)
        if self._takes("missing"):
            return Not(Exists(key))
        if self._takes("in"):
            return AnyOf(key, self._values())
        if self._takes("not"):
            if not self._takes("in"):
                self._fail("'in'")
            return Not(AnyOf(key, self._values()))
        if self._seen.kind != "operator" or self._seen.text not in OPERATORS:
            self._fail(f"one of {' '.join(OPERATORS)} in, exists or missing")
        return self._operation(key, self._take().text)

    def _operation(self, key: str, operator: str) -> Condition:
        if operator in LIMITS:
            return Range(key, **{LIMITS[operator]: self._bound()})
        if operator in {"~=", "*="}:
            text = _unquoted(self._value_token("a text"))
            return ContainsWords(key, text) if operator == "~=" else ContainsText(key, text)
        equal = AnyOf(key, (_value(self._value_token("a value")),))
        return Not(equal) if operator == "!=" else equal

    def _values(self) -> tuple[Scalar, ...]:
        if not self._takes("("):
            self._fail("'('")
        values = [_value(self._value_token("a value"))]
        while self._takes(","):
            values.append(_value(self._value_token("a value")))
        if not self._takes(")"):
            self._fail("',' or ')'")
        return tuple(values)

    def _bound(self) -> Bound:
        token = self._seen
        value = _value(self._value_token("a number or a date"))
        if token.kind == "quoted":
            value = date_of(_unquoted(token)) or ""
        if isinstance(value, (str, bool)):
            raise self._error(f"{token.text} is not a number or a date", token.start, "write 2020 or 2024-05-01")
        return value

    def _value_token(self, wanted: str) -> _Token:
        if self._seen.kind not in {"word", "quoted"}:
            self._fail(wanted)
        return self._take()

    def _fail(self, wanted: str) -> NoReturn:
        if self._seen.kind == "end":
            raise self._error(f"conditions end where {wanted} is expected", len(self._text))
        raise self._error(f"{self._seen.text!r} where {wanted} is expected", self._seen.start)

    def _error(self, message: str, place: int, hint: str = "") -> InputError:
        start = max(0, place - 60)
        before = ("…" if start else "") + self._text[start:place]
        after = self._text[place : place + 20] + ("…" if len(self._text) > place + 20 else "")
        shown = f"{before!r} <- here" + (f" -> {after!r}" if after else "")
        return InputError(
            f"{message}: {shown}", hint=hint or "write as in: owner=ann and (year>=2020 or tag in (a, b))"
        )


def _unquoted(token: _Token) -> str:
    return re.sub(r"\\(.)", r"\1", token.text[1:-1], flags=re.DOTALL) if token.kind == "quoted" else token.text


def _value(token: _Token) -> Scalar:
    text = _unquoted(token)
    if token.kind == "quoted":
        return text
    if text in {"true", "false"}:
        return text == "true"
    if number := _NUMBER.fullmatch(text):
        return float(text) if number[1] or number[2] else int(text)
    return date_of(text) or text


def date_of(text: str) -> dt.date | None:
    """Return the date or time that a text has the form of, or None.

    Example:
        >>> date_of("2024-05-01"), date_of("2024-02-30"), date_of("May")
        (datetime.date(2024, 5, 1), None, None)
    """
    found = _DATE.fullmatch(text)
    if found is None:
        return None
    try:
        return dt.datetime.fromisoformat(text) if found[1] else dt.date.fromisoformat(text)
    except ValueError:
        return None
