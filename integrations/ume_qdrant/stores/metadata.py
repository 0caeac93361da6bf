"""Metadata of the user: JSON values in the payload of each point, under a key of their own."""

from __future__ import annotations

import datetime as dt
import math
import re
from collections.abc import Mapping
from typing import Any, Final, TypeAlias

import numpy as np

from ume_retrieval.errors import InputError

Metadata: TypeAlias = Mapping[str, Any]
"""Values of the user by name: texts, numbers, booleans, dates, lists of those, and mappings of those."""

META_FIELD: Final = "meta"
"""Field of the payload that holds the metadata, so that their names never collide with the library's fields."""

MAX_DEPTH: Final = 8
"""Deepest nesting of mappings."""

_RESERVED: Final = re.compile(r'[.\[\]"\x00-\x1f\x7f-\x9f]')


def clean_metadata(metadata: Metadata) -> dict[str, Any]:
    """Return metadata as JSON values that every engine stores and compares alike.

    Dates and times become RFC 3339 texts in UTC; a time without a zone is taken as UTC. None is left out, in lists too.

    Args:
        metadata: Values by name; a name inside a nested mapping is addressed as "outer.inner".

    Returns:
        A new dict of texts, finite numbers, booleans, lists of those and dicts of those.

    Raises:
        InputError: If a name is empty or contains a control character or one of . [ ] ", a value has another type, is
            not finite, exceeds 64 bits or is not Unicode, or mappings are nested deeper than 8; the message names it.

    Example:
        >>> clean_metadata({"owner": "ann", "taken": dt.date(2024, 5, 1), "tags": ("a", "b"), "rating": None})
        {'owner': 'ann', 'taken': '2024-05-01', 'tags': ['a', 'b']}
        >>> clean_metadata({"camera": {"at": dt.datetime(2024, 5, 1, 12, 30)}})
        {'camera': {'at': '2024-05-01T12:30:00Z'}}
    """
    if not isinstance(metadata, Mapping):
        raise InputError(f"metadata is a mapping of names to values, not a {type(metadata).__name__}")
    return _mapping(metadata, "", 1)


def clean_name(name: object, parent: str = "") -> str:
    """Return a name of metadata.

    Args:
        name: One name, not a path.
        parent: Path of the mapping that holds it, for the message.

    Raises:
        InputError: If it cannot be a name; see `clean_metadata`.
    """
    where = f" in {parent!r}" if parent else ""
    if not isinstance(name, str):
        raise InputError(f"names of metadata are texts, not {name!r}{where}")
    if not name or _RESERVED.search(name):
        raise InputError(
            f"{name!r}{where} cannot be a name of metadata",
            hint='a name is not empty and has no . [ ] " or control character; use nested mappings for a.b',
        )
    return _text(name, f"{parent}.{name}" if parent else name)


def clean_value(value: Any, path: str) -> Any:
    """Return one value of metadata as a JSON value: a text, a finite number or a boolean.

    Args:
        value: A text, number, boolean, date or time, or a NumPy scalar.
        path: Name of the value, for the message.

    Raises:
        InputError: If it has another type, is not finite, exceeds 64 bits or is not Unicode.
    """
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, bool):
        return value
    if isinstance(value, str):
        return _text(value, path)
    if isinstance(value, int):
        if not -(2**63) <= value < 2**63:
            raise InputError(f"metadata {path!r}: {value} exceeds 64 bits", hint="store it as a text")
        return int(value)
    if isinstance(value, float):
        if not math.isfinite(value):
            raise InputError(f"metadata {path!r}: {value} is not a finite number", hint="leave it out, or use None")
        return float(value)
    if isinstance(value, dt.datetime):
        return _time(value, path)
    if isinstance(value, dt.date):
        return value.isoformat()
    raise InputError(
        f"metadata {path!r}: values of type {type(value).__name__} cannot be stored",
        hint="use texts, numbers, booleans, dates, lists of those, or mappings of those",
    )


def _mapping(values: Metadata, parent: str, depth: int) -> dict[str, Any]:
    if depth > MAX_DEPTH:
        raise InputError(f"metadata {parent[:80]!r} is nested deeper than {MAX_DEPTH} mappings", hint="flatten it")
    cleaned: dict[str, Any] = {}
    for key, value in values.items():
        name = clean_name(key, parent)
        path = f"{parent}.{name}" if parent else name
        if isinstance(value, Mapping):
            cleaned[name] = _mapping(value, path, depth + 1)
        elif isinstance(value, (list, tuple)):
            cleaned[name] = [clean_value(entry, path) for entry in value if entry is not None]
        elif value is not None:
            cleaned[name] = clean_value(value, path)
    return cleaned


def _text(value: str, path: str) -> str:
    try:
        value.encode("utf-8")
    except UnicodeEncodeError as error:
        raise InputError(
            f"metadata {path.encode('utf-8', 'replace').decode()!r} has a text that is not valid Unicode",
            hint="decode it with the right encoding, or with errors='replace'",
        ) from error
    return str.__str__(value)  # of an Enum that is a text: the text


def _time(value: dt.datetime, path: str) -> str:
    try:
        zoned = value.replace(tzinfo=dt.UTC) if value.utcoffset() is None else value.astimezone(dt.UTC)
        return zoned.isoformat().replace("+00:00", "Z")
    except (ValueError, OverflowError) as error:
        raise InputError(f"metadata {path!r}: {value!r} is not a time in UTC") from error
