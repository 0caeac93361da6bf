"""Convert filters as LangChain's vector stores take them to filters of `ume_qdrant`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, Final

from ume_qdrant import And, AnyOf, Condition, Exists, Filter, Not, Or, Range
from ume_qdrant.stores.conditions import MAX_NESTING
from ume_qdrant.stores.filters import CLAUSES
from ume_qdrant.stores.where import date_of
from ume_retrieval.errors import InputError

JOINS: Final = ("$and", "$or", "$not")

HINT: Final = "write {'owner': 'ann'} or {'year': {'$gte': 2020}}, or give a Filter of ume_qdrant or qdrant_client"


def filter_of(given: object, *, tenant_key: str | None = None) -> Filter | None:
    """Convert a filter on metadata.

    Accepted are None; a `Filter` of `ume_qdrant`; a `Filter` of `qdrant_client`, or its JSON with `must`, `should`,
    `must_not`; and a dict of conditions that must all hold: a value by key, or operators `$eq`, `$ne`, `$gt`, `$gte`,
    `$lt`, `$lte`, `$in`, `$nin`, `$exists` and `$not` by key, joined by `$and`, `$or` and `$not`. As in MongoDB, `$ne`
    and `$nin` match documents without the key, None means that it is missing, and a condition on a list holds if it
    holds for an element. Limits may be numbers, dates, or dates as texts. Keys in mappings are written "camera.maker".

    Args:
        given: The filter.
        tenant_key: The collection's tenant key; an equality on it at the top, or in a `$and` there, chooses the tenant.

    Raises:
        InputError: If it is anything else, an operator is unknown, or two tenants are chosen.

    Example:
        >>> filter_of({"owner": "ann", "year": {"$gte": 2020}}).meta.conditions[0]
        AnyOf(key='owner', values=('ann',))
        >>> filter_of({"customer": "acme"}, tenant_key="customer")
        ... # doctest: +ELLIPSIS
        Filter(..., meta=None, tenant='acme', raw=None)
    """
    if given is None or isinstance(given, Filter):
        return given
    if hasattr(given, "model_dump"):  # a model of qdrant_client, which takes most of a second to import
        return Filter(raw=given.model_dump(mode="json", exclude_none=True, by_alias=True))
    if not isinstance(given, Mapping):
        raise InputError(f"a filter cannot be a {type(given).__name__}", hint=HINT)
    if given and all(key in CLAUSES and isinstance(value, (list, Mapping)) for key, value in given.items()):
        return Filter(raw=given)
    condition = _all(given, 0)
    if condition is None:
        return None
    return _with_tenant(condition, tenant_key)


def _with_tenant(condition: Condition, tenant_key: str | None) -> Filter:
    """Take the choice of a tenant out of the conditions."""
    parts = _parts(condition)
    chosen = [one for one in parts if isinstance(one, AnyOf) and one.key == tenant_key and len(one.values) == 1]
    if not chosen:
        return Filter(meta=condition)
    tenants = {str(one.values[0]) for one in chosen}
    if len(tenants) > 1:
        raise InputError(f"two tenants are chosen: {', '.join(sorted(tenants))}", hint="choose one")
    rest = tuple(one for one in parts if one not in chosen)
    found = Filter(tenant=tenants.pop())
    return replace(found, meta=And(rest)) if rest else found


def _parts(condition: Condition) -> tuple[Condition, ...]:
    if not isinstance(condition, And):
        return (condition,)
    return tuple(part for one in condition.conditions for part in _parts(one))


def _all(given: Mapping[Any, Any], depth: int) -> Condition | None:
    """Join the conditions of a mapping; None if it is empty."""
    if depth > MAX_NESTING:
        raise InputError(f"filters are nested deeper than {MAX_NESTING}")
    found: list[Condition] = []
    for key, value in given.items():
        if key in JOINS:
            found.append(_joined(key, value, depth + 1))
        elif isinstance(key, str) and not key.startswith("$"):
            found.append(_on_key(key, value, depth + 1))
        else:
            raise InputError(f"{key!r} is not possible in a filter here", hint=f"join conditions by {', '.join(JOINS)}")
    if not found:
        return None
    return found[0] if len(found) == 1 else And(tuple(found))


def _joined(name: str, value: object, depth: int) -> Condition:
    if name == "$not":
        return Not(_inner(name, value, depth))
    if not isinstance(value, (list, tuple)) or not value:
        raise InputError(f"{name} takes a list of filters, not {value!r}", hint=HINT)
    inner = tuple(_inner(name, one, depth) for one in value)
    return And(inner) if name == "$and" else Or(inner)


def _inner(name: str, value: object, depth: int) -> Condition:
    condition = _all(value, depth) if isinstance(value, Mapping) else None
    if condition is None:
        raise InputError(f"{name} takes filters that are not empty, not {value!r}", hint=HINT)
    return condition


def _on_key(key: str, value: object, depth: int) -> Condition:
    if value is None:
        return Not(Exists(key))
    if not isinstance(value, Mapping):
        return AnyOf(key, (_scalar(key, value),))
    if depth > MAX_NESTING:
        raise InputError(f"filters are nested deeper than {MAX_NESTING}")
    if not value:
        raise InputError(f"the filter on {key!r} is empty", hint=HINT)
    found: list[Condition] = []
    for name, operand in value.items():
        if name == "$not":
            found.append(Not(_on_key(key, operand, depth + 1)))
        elif name in _OPERATORS:
            found.append(_OPERATORS[name](key, operand))
        else:
            known = ", ".join((*_OPERATORS, "$not"))
            raise InputError(f"unknown operator {name!r} on {key!r}", hint=f"use {known}; for mappings write 'a.b'")
    return found[0] if len(found) == 1 else And(tuple(found))


def _scalar(key: str, value: object) -> Any:
    if isinstance(value, (list, tuple, set)):
        raise InputError(f"{key!r} is compared with several values", hint=f"write {{{key!r}: {{'$in': […]}}}}")
    return value


def _equal(key: str, value: object) -> Condition:
    return Not(Exists(key)) if value is None else AnyOf(key, (_scalar(key, value),))


def _among(key: str, values: object) -> Condition:
    if not isinstance(values, (list, tuple, set)):
        raise InputError(f"$in and $nin on {key!r} take a list, not {values!r}")
    return AnyOf(key, tuple(values))


def _range(limit: str) -> Callable[[str, Any], Condition]:
    def condition(key: str, value: Any) -> Condition:
        bound = date_of(value) if isinstance(value, str) else value
        if bound is None:
            raise InputError(
                f"{key!r} is compared with {value!r}, not with a number or a date", hint="write a date as 2024-05-01"
            )
        return Range(key, **{limit: bound})

    return condition


def _exists(key: str, value: object) -> Condition:
    if not isinstance(value, bool):
        raise InputError(f"$exists on {key!r} takes True or False, not {value!r}")
    return Exists(key) if value else Not(Exists(key))


_OPERATORS: Final[Mapping[str, Callable[[str, Any], Condition]]] = {
    "$eq": _equal,
    "$ne": lambda key, value: Not(_equal(key, value)),
    **{f"${limit}": _range(limit) for limit in ("gt", "gte", "lt", "lte")},
    "$in": _among,
    "$nin": lambda key, values: Not(_among(key, values)),
    "$exists": _exists,
}
