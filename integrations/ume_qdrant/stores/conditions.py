"""Conditions on metadata of the user, and their form as filters of Qdrant."""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeAlias, get_args

from ume_qdrant.stores.metadata import MAX_DEPTH, META_FIELD, clean_name, clean_value
from ume_retrieval.errors import InputError

Scalar: TypeAlias = str | int | float | bool | dt.date
"""A value that a condition compares with; a `datetime` is an instant, a plain `date` a whole day in UTC."""

Bound: TypeAlias = int | float | dt.date
"""A limit of a range."""

MAX_NESTING: Final = 32
"""Deepest nesting of conditions."""

EXACT: Final = 2**53
"""From here on, floats of 64 bits do not represent every whole number."""

NOTHING: Final[dict[str, Any]] = {"has_id": []}
"""A filter that matches no point."""


@dataclass(frozen=True, slots=True)
class AnyOf:
    """The value, or an element of the list, equals one of these; no values match nothing.

    Types differ: the text "1" is not the number 1, and True is not 1; 1 and 1.0 are equal. A `datetime` equals the same
    instant in any zone, a `date` every time on that day (UTC).

    Attributes:
        key: Name of the value; "camera.maker" for one in a mapping.
        values: Accepted values.

    Raises:
        InputError: If the key or a value cannot occur in metadata.
    """

    key: str
    values: tuple[Scalar, ...]

    def __post_init__(self) -> None:
        check_key(self.key)
        if not isinstance(self.values, tuple):
            raise InputError(f"values of {self.key!r} are a tuple, not {self.values!r}", hint="write (value,)")
        for value in self.values:
            clean_value(value, self.key)


@dataclass(frozen=True, slots=True)
class Range:
    """The number or date, or an element of the list, lies within all given limits.

    A `date` stands for its whole day (UTC): `lte` includes that day, `gt` begins after it. A `datetime` without a zone
    is in UTC. Numbers are compared as floats of 64 bits.

    Attributes:
        key: Name of the value.
        gt: It is greater.
        gte: It is greater or equal.
        lt: It is less.
        lte: It is less or equal.

    Raises:
        InputError: If there is no limit, or limits are not all numbers or all dates.
    """

    key: str
    gt: Bound | None = None
    gte: Bound | None = None
    lt: Bound | None = None
    lte: Bound | None = None

    def __post_init__(self) -> None:
        check_key(self.key)
        limits = self.limits()
        for limit in limits.values():
            clean_value(limit, self.key)
        dated = {isinstance(limit, dt.date) for limit in limits.values()}
        if len(dated) != 1 or any(isinstance(limit, (bool, str)) for limit in limits.values()):
            raise InputError(
                f"a range of {self.key!r} needs numbers or dates, got {limits or 'no limit'}",
                hint="give gt, gte, lt or lte: numbers, or dates and datetimes",
            )

    def limits(self) -> dict[str, Bound]:
        """Return the limits that are not None, by name."""
        named = {"gt": self.gt, "gte": self.gte, "lt": self.lt, "lte": self.lte}
        return {name: limit for name, limit in named.items() if limit is not None}


@dataclass(frozen=True, slots=True)
class Exists:
    """The value exists and is not an empty list.

    Attributes:
        key: Name of the value.
    """

    key: str

    def __post_init__(self) -> None:
        check_key(self.key)


@dataclass(frozen=True, slots=True)
class ContainsWords:
    """The text, or an element of the list, contains every one of these words, in any order and case.

    Words are runs of letters and digits; a text without one matches nothing.

    Attributes:
        key: Name of the value.
        text: The words.
    """

    key: str
    text: str

    def __post_init__(self) -> None:
        _check_text(self.key, self.text)


@dataclass(frozen=True, slots=True)
class ContainsText:
    """The text, or an element of the list, contains this text as it is written; on a server, Qdrant 1.18 or newer.

    Attributes:
        key: Name of the value.
        text: A part of it.
    """

    key: str
    text: str

    def __post_init__(self) -> None:
        _check_text(self.key, self.text)


@dataclass(frozen=True, slots=True)
class And:
    """All conditions hold.

    Attributes:
        conditions: At least one.

    Raises:
        InputError: If there is none, or conditions are nested deeper than 32.
    """

    conditions: tuple[Condition, ...]

    def __post_init__(self) -> None:
        _check_joined(self, self.conditions)


@dataclass(frozen=True, slots=True)
class Or:
    """At least one condition holds.

    Attributes:
        conditions: At least one.

    Raises:
        InputError: If there is none, or conditions are nested deeper than 32.
    """

    conditions: tuple[Condition, ...]

    def __post_init__(self) -> None:
        _check_joined(self, self.conditions)


@dataclass(frozen=True, slots=True)
class Not:
    """The condition does not hold; so it matches points that lack the value, too.

    Attributes:
        condition: The condition.

    Raises:
        InputError: If conditions are nested deeper than 32.
    """

    condition: Condition

    def __post_init__(self) -> None:
        _check_joined(self, (self.condition,))


Condition: TypeAlias = AnyOf | Range | Exists | ContainsWords | ContainsText | And | Or | Not
"""A condition on metadata."""


def field_of(key: str) -> str:
    """Return the path of a value of metadata in the payload.

    Example:
        >>> field_of("camera.lens mount")
        'meta.camera."lens mount"'
    """
    return top_field(f"{META_FIELD}.{key}")


def top_field(key: str) -> str:
    """Return the path in the payload of a value that is not in the metadata.

    Example:
        >>> top_field("start_s"), top_field("shelf mark")
        ('start_s', '"shelf mark"')
    """
    return ".".join(map(_quoted, key.split(".")))


def key_of(field: str) -> str | None:
    """Return the key of metadata whose path this is, the inverse of `field_of`; None for another field.

    Example:
        >>> key_of('meta.camera."lens mount"'), key_of("source")
        ('camera.lens mount', None)
    """
    start = f"{META_FIELD}."
    return field.removeprefix(start).replace('"', "") if field.startswith(start) else None


def only_metadata(key: str) -> Sequence[str]:
    """Return where a value of metadata is: under its key in the metadata."""
    return (field_of(key),)


def as_qdrant(condition: Condition, fields: Callable[[str], Sequence[str]] = only_metadata) -> dict[str, Any]:
    """Return a condition as JSON of Qdrant's REST interface.

    Args:
        condition: The condition.
        fields: Returns the paths in the payload at which the value of a key can be; one that matches is enough.

    Example:
        >>> as_qdrant(And((AnyOf("owner", ("ann",)), Not(Exists("draft")))))["must"][0]
        {'key': 'meta.owner', 'match': {'value': 'ann'}}
    """
    match condition:
        case And(conditions):
            return {"must": [as_qdrant(one, fields) for one in conditions]}
        case Or(conditions):
            return {"should": [as_qdrant(one, fields) for one in conditions]}
        case Not(inner):
            return {"must_not": [as_qdrant(inner, fields)]}
        case _:
            return _either([test for field in fields(condition.key) for test in _tests(condition, field)])


def _tests(condition: AnyOf | Range | Exists | ContainsWords | ContainsText, field: str) -> list[dict[str, Any]]:
    """Return the tests of one field, of which one must hold."""
    match condition:
        case AnyOf(_, values):
            return _equalities(field, values)
        case Range():
            limits = condition.limits()
            return [{"key": field, "range": {name: _limit(name, limit) for name, limit in limits.items()}}]
        case Exists():
            return [{"must_not": [{"is_empty": {"key": field}}]}]
        case ContainsWords(_, text):
            return [{"key": field, "match": {"text": text}}]
        case ContainsText(_, text):
            return [{"key": field, "match": {"substring": text}}]


def _equalities(field: str, values: Sequence[Scalar]) -> list[dict[str, Any]]:
    tests: list[dict[str, Any]] = []
    texts: list[str] = []
    for value in values:
        known = value if isinstance(value, dt.date) else clean_value(value, field)
        if isinstance(known, str):
            texts.append(known)
        elif isinstance(known, bool) or (isinstance(known, int) and not -EXACT < known < EXACT):
            tests.append({"key": field, "match": {"value": known}})
        else:  # engines match equality exactly by type, and floats not at all
            tests.append({"key": field, "range": {name: _limit(name, known) for name in ("gte", "lte")}})
    if texts:
        tests.append({"key": field, "match": {"value": texts[0]} if len(texts) == 1 else {"any": texts}})
    return tests


def _either(tests: list[dict[str, Any]]) -> dict[str, Any]:
    if not tests:
        return NOTHING
    return tests[0] if len(tests) == 1 else {"should": tests}


def _limit(name: str, limit: Bound) -> float | str:
    if not isinstance(limit, dt.date):
        return float(limit)
    if not isinstance(limit, dt.datetime):
        part = dt.time.max if name in {"gt", "lte"} else dt.time.min
        limit = dt.datetime.combine(limit, part, tzinfo=dt.UTC)
    return str(clean_value(limit, name))


def _quoted(name: str) -> str:
    return name if re.fullmatch(r"[A-Za-z0-9_-]+", name) else f'"{name}"'


def check_key(key: object) -> None:
    """Raise unless a value of metadata can have this key.

    Raises:
        InputError: If a name in it is none that `clean_metadata` accepts.
    """
    if not isinstance(key, str):
        raise InputError(f"keys of metadata are texts, not {key!r}")
    names = key.split(".")
    if len(names) > MAX_DEPTH:
        raise InputError(f"metadata are not nested deeper than {MAX_DEPTH} mappings, as in {key[:80]!r}")
    for name in names:
        clean_name(name, "" if name == key else key)


def _check_text(key: str, text: object) -> None:
    check_key(key)
    if not isinstance(text, str):
        raise InputError(f"{key!r} can contain a text, not {text!r}")
    clean_value(text, key)


def _check_joined(joined: Condition, conditions: object) -> None:
    name = type(joined).__name__
    if not isinstance(conditions, tuple) or not conditions:
        raise InputError(f"{name} takes a tuple of one or more conditions, not {conditions!r}")
    for one in conditions:
        if not isinstance(one, get_args(Condition)):
            raise InputError(f"{name} takes conditions, not {one!r}", hint="write parse_where('owner=ann')")
    if _depth(joined) > MAX_NESTING:
        raise InputError(f"conditions are nested deeper than {MAX_NESTING}", hint="join more of them by one And or Or")


def _depth(condition: Condition) -> int:
    match condition:
        case And(inner) | Or(inner):
            return 1 + max(map(_depth, inner))
        case Not(inner):
            return 1 + _depth(inner)
        case _:
            return 0
