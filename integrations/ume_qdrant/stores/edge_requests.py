"""Requests to Qdrant Edge: configuration of vectors and settings of searches as its own values."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import qdrant_edge as qe

from ume_qdrant.stores.layout import TRUNCATED, Layout, Quantization, SearchEffort

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
