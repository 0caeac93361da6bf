"""Our values as models of `qdrant_client`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from qdrant_client import models

from ume_qdrant.stores.base import Vector, VectorName, floats
from ume_qdrant.stores.filters import Filter, any_of, ranges
from ume_qdrant.stores.layout import TRUNCATED, Layout, Quantization, SearchEffort

QUANTIZATIONS: Final[Mapping[Quantization, models.QuantizationConfig]] = {
    "scalar": models.ScalarQuantization(
        scalar=models.ScalarQuantizationConfig(type=models.ScalarType.INT8, quantile=0.99, always_ram=True)
    ),
    "binary": models.BinaryQuantization(binary=models.BinaryQuantizationConfig(always_ram=True)),
    "product": models.ProductQuantization(
        product=models.ProductQuantizationConfig(compression=models.CompressionRatio.X16, always_ram=True)
    ),
}


def vectors_config(dimension: int, layout: Layout) -> dict[str, models.VectorParams]:
    """Return the named vectors of a new collection."""
    quantization = QUANTIZATIONS[layout.quantization] if layout.quantization else None
    cosine, on_disk = models.Distance.COSINE, layout.on_disk or None
    if layout.matryoshka_dim is None:
        full = models.VectorParams(size=dimension, distance=cosine, on_disk=on_disk, quantization_config=quantization)
        return {"direct": full, "reasoned": full}
    # Full vectors only rescore the candidates of the truncated ones, so they need no index.
    unindexed = models.HnswConfigDiff(m=0)
    full = models.VectorParams(size=dimension, distance=cosine, on_disk=on_disk, hnsw_config=unindexed)
    short = models.VectorParams(size=layout.matryoshka_dim, distance=cosine, quantization_config=quantization)
    return {"direct": full, "reasoned": full, "direct" + TRUNCATED: short, "reasoned" + TRUNCATED: short}


def filter_model(where: Filter | None) -> models.Filter | None:
    """Convert a filter."""
    if where is None:
        return None
    must: list[models.Condition] = [
        models.FieldCondition(key=name, match=models.MatchAny(any=values)) for name, values in any_of(where)
    ]
    must += [models.FieldCondition(key=name, range=models.Range(**limits)) for name, limits in ranges(where)]
    if where.ids is not None:
        must.append(models.HasIdCondition(has_id=list(where.ids)))
    return models.Filter(must=must)


def query_arguments(
    layout: Layout, name: VectorName, vector: Vector, *, limit: int, where: Filter | None, effort: SearchEffort
) -> dict[str, Any]:
    """Return keyword arguments of `query_points`: one stage, or candidates by truncated vectors first."""
    condition, params = filter_model(where), search_params(layout, effort)
    query: dict[str, Any] = {"query": floats(vector), "using": name, "limit": limit}
    if layout.matryoshka_dim is None or effort.exact:
        return {**query, "query_filter": condition, "search_params": params}
    first = models.Prefetch(
        query=floats(vector[: layout.matryoshka_dim]),
        using=name + TRUNCATED,
        filter=condition,
        limit=effort.candidates(limit),
        params=params,
    )
    return {**query, "prefetch": first, "search_params": search_params(layout, SearchEffort(exact=True))}


def search_params(layout: Layout, effort: SearchEffort) -> models.SearchParams | None:
    """Convert the effort, as far as it has an effect on the layout."""
    quantization = None
    if layout.quantization:
        quantization = (
            models.QuantizationSearchParams(ignore=True)
            if effort.exact
            else models.QuantizationSearchParams(rescore=True, oversampling=effort.oversampling)
        )
    if effort.exact:
        return models.SearchParams(exact=True, quantization=quantization)
    return models.SearchParams(hnsw_ef=effort.ef, quantization=quantization) if quantization or effort.ef else None
