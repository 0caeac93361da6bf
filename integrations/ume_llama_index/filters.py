"""Convert LlamaIndex's metadata filters to filters of `ume_qdrant`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Final

from llama_index.core.vector_stores import FilterCondition, FilterOperator, MetadataFilter, MetadataFilters

from ume_qdrant import And, AnyOf, Condition, ContainsText, ContainsWords, Exists, Filter, Not, Or, Range
from ume_qdrant.stores.conditions import MAX_NESTING, as_qdrant, field_of, top_field
from ume_qdrant.stores.where import date_of
from ume_retrieval.errors import InputError

LIMITS: Final = {
    FilterOperator.GT: "gt",
    FilterOperator.GTE: "gte",
    FilterOperator.LT: "lt",
    FilterOperator.LTE: "lte",
}


def filter_of(
    filters: MetadataFilters | None, where: Filter | None = None, *, tenant_key: str | None = None
) -> Filter | None:
    """Combine both filters.

    A key names a value of the node's own metadata, or of its place and state: `source`, `kind`, `within` (folders),
    `page`, `start_s`, `end_s`, `reasoning`, `file_digest`. Operators mean what they mean in LlamaIndex's own store,
    with these additions: a condition on a list holds if it holds for an element; >, >=, < and <= take dates as texts,
    too; `text_match_insensitive` compares whole words.

    Args:
        filters: LlamaIndex's filters, nested up to 32 deep.
        where: A filter that must hold too.
        tenant_key: The collection's tenant key; an equality on it, joined by `and`, chooses the tenant.

    Raises:
        InputError: If a value does not fit its operator, or two tenants are chosen.

    Example:
        >>> wanted = MetadataFilters(filters=[MetadataFilter(key="kind", value="video")])
        >>> filter_of(wanted).kinds
        ('video',)
    """
    if filters is None or not filters.filters:
        return where
    found = where or Filter()
    rest: list[Condition | None] = []
    if filters.condition in (FilterCondition.AND, None):
        for one in filters.filters:
            named = _named(one, found, tenant_key) if isinstance(one, MetadataFilter) else None
            if named is None:
                rest.append(_condition(one, 1))
            else:
                found = replace(found, **named)
    else:
        rest = [_condition(filters, 0)]
    conditions = [as_qdrant(one, _fields) for one in rest if one is not None]
    if not conditions:
        return found
    return replace(found, raw={"must": [*([dict(found.raw)] if found.raw else []), *conditions]})


def _named(one: MetadataFilter, found: Filter, tenant_key: str | None) -> dict[str, Any] | None:
    """Return a condition that `Filter` has by name and not yet; None for any other."""
    if one.key == tenant_key and one.operator is FilterOperator.EQ and isinstance(one.value, str):
        if found.tenant not in {None, one.value}:
            raise InputError(f"two tenants are chosen: {found.tenant!r} and {one.value!r}", hint="choose one")
        return {"tenant": one.value}
    name = {"kind": "kinds", "within": "under"}.get(one.key)
    if name and one.operator in (FilterOperator.EQ, FilterOperator.IN) and getattr(found, name) is None:
        return {name: _values(one)}
    # Both limits of an interval, so that it is one condition.
    start, end = found.time or (0.0, float("inf"))
    if (one.key, one.operator) == ("start_s", FilterOperator.LT) and end == float("inf"):
        return {"time": (start, _seconds(one))}
    if (one.key, one.operator) == ("end_s", FilterOperator.GT) and start == 0:
        return {"time": (_seconds(one), end)}
    return None


def _condition(one: MetadataFilter | MetadataFilters, depth: int) -> Condition | None:
    """Convert a filter; None if it has no conditions."""
    if isinstance(one, MetadataFilter):
        return _TESTS[one.operator](one)
    if depth >= MAX_NESTING:
        raise InputError(f"filters are nested deeper than {MAX_NESTING}")
    found = tuple(inner for each in one.filters if (inner := _condition(each, depth + 1)) is not None)
    if not found:
        return None
    if one.condition is FilterCondition.NOT:
        return Not(Or(found))
    if len(found) == 1:
        return found[0]
    return Or(found) if one.condition is FilterCondition.OR else And(found)


def _fields(key: str) -> Sequence[str]:
    """Return where a value can be: in the metadata, or where the library and former versions keep it."""
    return field_of(key), top_field(key)


def _values(one: MetadataFilter) -> tuple[Any, ...]:
    if one.value is None:
        raise InputError(f"a filter {one.key} {one.operator.value} needs a value", hint="use is_empty for missing ones")
    return tuple(one.value) if isinstance(one.value, list) else (one.value,)


def _seconds(one: MetadataFilter) -> float:
    if not isinstance(one.value, (int, float)):
        raise InputError(f"a filter on {one.key} takes seconds, not {one.value!r}")
    return float(one.value)


def _any(one: MetadataFilter) -> Condition:
    return AnyOf(one.key, _values(one))


def _none(one: MetadataFilter) -> Condition:
    return Not(_any(one))


def _all(one: MetadataFilter) -> Condition:
    each = tuple(AnyOf(one.key, (value,)) for value in _values(one))
    return And(each) if each else Exists(one.key)


def _text(one: MetadataFilter) -> str:
    if not isinstance(one.value, str):
        raise InputError(f"a filter {one.key} {one.operator.value} takes a text, not {one.value!r}")
    return one.value


def _range(one: MetadataFilter) -> Condition:
    bound = date_of(one.value) if isinstance(one.value, str) else one.value
    if bound is None or isinstance(bound, list):
        raise InputError(
            f"a filter {one.key} {one.operator.value} takes a number or a date, not {one.value!r}",
            hint="write a date as 2024-05-01 or 2024-05-01T10:30:00Z",
        )
    return Range(one.key, **{LIMITS[one.operator]: bound})


def _empty(one: MetadataFilter) -> Condition:
    return Or((Not(Exists(one.key)), AnyOf(one.key, ("",))))


_TESTS: Final[Mapping[FilterOperator, Callable[[MetadataFilter], Condition]]] = {
    **dict.fromkeys((FilterOperator.EQ, FilterOperator.IN, FilterOperator.ANY, FilterOperator.CONTAINS), _any),
    **dict.fromkeys((FilterOperator.NE, FilterOperator.NIN), _none),
    **dict.fromkeys(LIMITS, _range),
    FilterOperator.ALL: _all,
    FilterOperator.TEXT_MATCH: lambda one: ContainsText(one.key, _text(one)),
    FilterOperator.TEXT_MATCH_INSENSITIVE: lambda one: ContainsWords(one.key, _text(one)),
    FilterOperator.IS_EMPTY: _empty,
}
