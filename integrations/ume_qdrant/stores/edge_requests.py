"""Requests to Qdrant Edge in its own values: vectors, searches, filters and payload indexes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

import numpy as np
import qdrant_edge as qe

from ume_qdrant.stores.conditions import field_of, key_of
from ume_qdrant.stores.filters import CLAUSES, Filter, as_qdrant_filter
from ume_qdrant.stores.layout import TRUNCATED, Layout, Quantization, SearchEffort
from ume_qdrant.stores.schema import INDEXES, IndexKind
from ume_retrieval.errors import InputError

QUANTIZATIONS: Final[Mapping[Quantization, Any]] = {
    "scalar": qe.ScalarQuantizationConfig(qe.ScalarType.Int8, quantile=0.99, always_ram=True),
    "binary": qe.BinaryQuantizationConfig(always_ram=True),
    "product": qe.ProductQuantizationConfig(qe.CompressionRatio.X16, always_ram=True),
}

UNINDEXED: Final = qe.HnswIndexConfig(m=0, ef_construct=100, full_scan_threshold=10_000)


def vectors_config(dimension: int, layout: Layout) -> dict[str, qe.EdgeVectorParams]:
    """Return the named vectors of a layout."""
    quantization = QUANTIZATIONS[layout.quantization] if layout.quantization else None
    cosine, on_disk = qe.Distance.Cosine, layout.on_disk or None
    if layout.matryoshka_dim is None:
        full = qe.EdgeVectorParams(dimension, cosine, on_disk=on_disk, quantization_config=quantization)
        return {"direct": full, "reasoned": full}
    # Full vectors only rescore the candidates of the truncated ones, so they need no index.
    full = qe.EdgeVectorParams(dimension, cosine, on_disk=on_disk, hnsw_config=UNINDEXED)
    short = qe.EdgeVectorParams(layout.matryoshka_dim, cosine, quantization_config=quantization)
    return {"direct": full, "reasoned": full, "direct" + TRUNCATED: short, "reasoned" + TRUNCATED: short}


def search_params(layout: Layout, effort: SearchEffort) -> qe.SearchParams:
    """Return how thoroughly the engine searches."""
    if effort.exact:
        return qe.SearchParams(exact=True, quantization=qe.QuantizationSearchParams(ignore=True))
    rescored = qe.QuantizationSearchParams(rescore=True, oversampling=effort.oversampling)
    return qe.SearchParams(hnsw_ef=effort.ef, quantization=rescored if layout.quantization else None)


INDEX_TYPES: Final[Mapping[IndexKind, Any]] = {
    "keyword": qe.PayloadSchemaType.Keyword,
    "integer": qe.PayloadSchemaType.Integer,
    "float": qe.PayloadSchemaType.Float,
    "bool": qe.PayloadSchemaType.Bool,
    "datetime": qe.PayloadSchemaType.Datetime,
    "text": qe.PayloadSchemaType.Text,
}


def create_indexes(shard: qe.EdgeShard, layout: Layout) -> None:
    """Create the payload indexes of a new collection."""
    for field, kind in INDEXES.items():
        shard.update(qe.UpdateOperation.create_field_index(field, INDEX_TYPES[kind]))
    if layout.tenant is not None:
        tenants = qe.KeywordIndexParams(is_tenant=True)
        shard.update(qe.UpdateOperation.create_field_index(field_of(layout.tenant), tenants))


def create_meta_index(shard: qe.EdgeShard, key: str, kind: IndexKind) -> None:
    """Create an index on a value of metadata."""
    shard.update(qe.UpdateOperation.create_field_index(field_of(key), INDEX_TYPES[kind]))


def meta_indexes(shard: qe.EdgeShard) -> dict[str, IndexKind]:
    """Return the indexes on metadata, by key."""
    kinds = {str(edge): kind for kind, edge in INDEX_TYPES.items()}
    found = {key_of(field): kinds.get(str(one.data_type)) for field, one in shard.info().payload_schema.items()}
    return {key: kind for key, kind in sorted(found.items(), key=str) if key is not None and kind is not None}


def edge_filter(where: Filter | None, layout: Layout, collection: str) -> qe.Filter | None:
    """Convert a filter.

    Raises:
        TenantRequired: If the collection has tenants and the filter does not choose one.
        InputError: If the filter's raw part is not a filter of Qdrant.
    """
    filtered = as_qdrant_filter(where, layout.tenant, collection)
    if filtered is None:
        return None
    try:
        return _filter(filtered)
    except (TypeError, ValueError, KeyError, AttributeError, OverflowError, IndexError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise InputError(f"the raw filter is not one of Qdrant: {reason}") from error


def _filter(spec: Mapping[str, Any]) -> qe.Filter:
    _only(spec, CLAUSES)
    clauses: dict[str, Any] = {
        name: _conditions(spec[name]) for name in ("must", "should", "must_not") if spec.get(name) is not None
    }
    least = spec.get("min_should")
    if least is not None:
        _only(least, ("conditions", "min_count"))
        return qe.Filter(**clauses, min_should=qe.MinShould(_conditions(least["conditions"]), least["min_count"]))
    return qe.Filter(**clauses)


def _conditions(spec: Any) -> list[Any]:
    return [_condition(one) for one in (spec if isinstance(spec, list) else [spec])]


def _condition(spec: Mapping[str, Any]) -> Any:
    if set(spec) <= set(CLAUSES):
        return _filter(spec)
    if len(spec) == 1:
        [(name, value)] = spec.items()
        return _CONDITIONS[name](value)
    return _field(spec)


def _field(spec: Mapping[str, Any]) -> qe.FieldCondition:
    _only(spec, ("key", "is_empty", "is_null", *_FIELD_TESTS))
    tests = {name: convert(spec[name]) for name, convert in _FIELD_TESTS.items() if spec.get(name) is not None}
    flags = {name: spec[name] for name in ("is_empty", "is_null") if spec.get(name) is not None}
    if not tests and not flags:
        raise ValueError(f"the condition on {spec['key']!r} tests nothing")
    return qe.FieldCondition(spec["key"], **tests, **flags)


def _match(spec: Mapping[str, Any]) -> Any:
    [(name, value)] = spec.items()
    # Edge takes a bool for a whole number, and only one of NumPy for what it is.
    return _MATCHES[name](np.bool_(value) if isinstance(value, bool) else value)


def _range(spec: Mapping[str, Any]) -> Any:
    _only(spec, ("gt", "gte", "lt", "lte"))
    limits = {name: limit for name, limit in spec.items() if limit is not None}
    return (qe.RangeDateTime if any(isinstance(one, str) for one in limits.values()) else qe.RangeFloat)(**limits)


def _point(spec: Mapping[str, Any]) -> qe.GeoPoint:
    return qe.GeoPoint(**_only(spec, ("lon", "lat")))


def _line(spec: Mapping[str, Any]) -> list[qe.GeoPoint]:
    return [_point(one) for one in _only(spec, ("points",))["points"]]


def _only(spec: Any, names: tuple[str, ...]) -> Mapping[str, Any]:
    """Return the object if all its fields are known."""
    if not isinstance(spec, Mapping):
        raise TypeError(f"{spec!r} where an object with {', '.join(names)} is expected")
    if unknown := sorted(spec.keys() - set(names)):
        raise ValueError(f"unknown field {unknown[0]!r}; known are {', '.join(names)}")
    return spec


_CONDITIONS: Final[Mapping[str, Callable[[Any], Any]]] = {
    "has_id": lambda ids: qe.HasIdCondition(set(ids)),
    "has_vector": qe.HasVectorCondition,
    "is_empty": lambda spec: qe.IsEmptyCondition(_only(spec, ("key",))["key"]),
    "is_null": lambda spec: qe.IsNullCondition(_only(spec, ("key",))["key"]),
    "nested": lambda spec: qe.NestedCondition(_only(spec, ("key", "filter"))["key"], _filter(spec["filter"])),
}

_MATCHES: Final[Mapping[str, Callable[[Any], Any]]] = {
    "value": qe.MatchValue,
    "any": qe.MatchAny,
    "except": qe.MatchExcept,
    "text": qe.MatchText,
    "text_any": qe.MatchTextAny,
    "phrase": qe.MatchPhrase,
    "prefix": qe.MatchPrefix,
    "substring": qe.MatchSubstring,
}

_FIELD_TESTS: Final[Mapping[str, Callable[[Any], Any]]] = {
    "match": _match,
    "range": _range,
    "values_count": lambda spec: qe.ValuesCount(**_only(spec, ("gt", "gte", "lt", "lte"))),
    "geo_radius": lambda spec: qe.GeoRadius(_point(spec["center"]), spec["radius"]),
    "geo_bounding_box": lambda spec: qe.GeoBoundingBox(_point(spec["top_left"]), _point(spec["bottom_right"])),
    "geo_polygon": lambda spec: qe.GeoPolygon(
        _line(spec["exterior"]), [_line(one) for one in spec.get("interiors") or []]
    ),
}
