"""Convert LlamaIndex's metadata filters to filters of `ume_qdrant`."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Final

from llama_index.core.vector_stores import FilterCondition, FilterOperator, MetadataFilter, MetadataFilters

from ume_qdrant.stores.filters import Filter
from ume_retrieval.errors import InputError

FIELDS: Final = {
    "kind": "kinds",
    "source": "sources",
    "within": "under",
    "page": "pages",
    "reasoning": "reasoning",
    "file_digest": "digests",
}
"""Filterable metadata, with the corresponding condition of `Filter`."""

HINT: Final = (
    f"filter on {', '.join(FIELDS)} with == or in (all of which must hold), on start_s with < and end_s with >, "
    "or pass where=ume_qdrant.Filter(…)"
)


def filter_of(filters: MetadataFilters | None, where: Filter | None = None) -> Filter | None:
    """Combine both filters.

    Args:
        filters: LlamaIndex's filters; an interval of time is `start_s < end` and `end_s > start`.
        where: A filter that must hold too.

    Raises:
        InputError: If a condition is not supported, or both filters restrict the same field.

    Example:
        >>> wanted = MetadataFilters(filters=[MetadataFilter(key="kind", value="video")])
        >>> filter_of(wanted).kinds
        ('video',)
    """
    if filters is None or not filters.filters:
        return where
    if filters.condition not in (FilterCondition.AND, None) and len(filters.filters) > 1:
        raise InputError(f"filters joined by {filters.condition.value!r} are not possible here", hint=HINT)
    found: dict[str, Any] = {}
    low, high = 0.0, float("inf")
    for one in filters.filters:
        if isinstance(one, MetadataFilters) or filters.condition is FilterCondition.NOT:
            raise InputError("filters within filters, or turned round, are not possible here", hint=HINT)
        if one.key == "start_s" and one.operator is FilterOperator.LT:
            high = _number(one)
        elif one.key == "end_s" and one.operator is FilterOperator.GT:
            low = _number(one)
        else:
            name, values = _values(one)
            if name in found:
                raise InputError(f"two filters on {one.key!r} are not possible here", hint=HINT)
            found[name] = values
    if (low, high) != (0.0, float("inf")):
        found["time"] = (low, min(high, 1e9))
    base = where or Filter()
    twice = [name for name in found if getattr(base, name) is not None]
    if twice:
        raise InputError(f"{', '.join(twice)} is filtered twice", hint="use either filters or where for it")
    return replace(base, **found)


def _values(one: MetadataFilter) -> tuple[str, tuple[Any, ...]]:
    if one.key not in FIELDS or one.operator not in (FilterOperator.EQ, FilterOperator.IN) or one.value is None:
        raise InputError(f"a filter {one.key} {one.operator.value} is not possible here", hint=HINT)
    values = one.value if isinstance(one.value, list) else [one.value]
    return FIELDS[one.key], tuple(values)


def _number(one: MetadataFilter) -> float:
    if not isinstance(one.value, (int, float)):
        raise InputError(f"a filter on {one.key} takes seconds, not {one.value!r}", hint=HINT)
    return float(one.value)
