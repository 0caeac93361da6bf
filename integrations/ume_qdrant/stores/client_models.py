"""Our values as models of `qdrant_client`, and options of its clients."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, cast
from urllib.parse import urlsplit

import httpx
from pydantic import ValidationError
from qdrant_client import models

from ume_qdrant.stores.base import Vector, VectorName, floats
from ume_qdrant.stores.conditions import field_of, key_of
from ume_qdrant.stores.filters import Filter, as_qdrant_filter
from ume_qdrant.stores.layout import TRUNCATED, Layout, Quantization, SearchEffort
from ume_qdrant.stores.schema import INDEXES, IndexKind
from ume_retrieval.errors import InputError

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


def payload_indexes(layout: Layout) -> dict[str, models.PayloadSchemaType | models.KeywordIndexParams]:
    """Return the payload indexes of a new collection, by field."""
    named: dict[str, models.PayloadSchemaType | models.KeywordIndexParams]
    named = {field: models.PayloadSchemaType(kind) for field, kind in INDEXES.items()}
    if layout.tenant is not None:
        kind = models.KeywordIndexType.KEYWORD
        named[field_of(layout.tenant)] = models.KeywordIndexParams(type=kind, is_tenant=True)
    return named


def meta_indexes(schema: Mapping[str, models.PayloadIndexInfo]) -> dict[str, IndexKind]:
    """Return the indexes on metadata, by key."""
    found = {key_of(field): cast("IndexKind", info.data_type.value) for field, info in schema.items()}
    return {key: kind for key, kind in sorted(found.items(), key=str) if key is not None}


def filter_model(where: Filter | None, layout: Layout, collection: str) -> models.Filter | None:
    """Convert a filter.

    Raises:
        TenantRequired: If the collection has tenants and the filter does not choose one.
        InputError: If the filter's raw part is not a filter of Qdrant.
    """
    filtered = as_qdrant_filter(where, layout.tenant, collection)
    if filtered is None:
        return None
    try:
        return models.Filter.model_validate(filtered)
    except ValidationError as error:
        place = ".".join(str(part) for part in error.errors()[0]["loc"])
        raise InputError(f"the raw filter is not one of Qdrant: {error.errors()[0]['msg']} at {place[:200]}") from error


def query_arguments(
    layout: Layout,
    name: VectorName,
    vector: Vector,
    *,
    limit: int,
    condition: models.Filter | None,
    effort: SearchEffort,
) -> dict[str, Any]:
    """Return keyword arguments of `query_points`: one stage, or candidates by truncated vectors first."""
    params = search_params(layout, effort)
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


def location_of(options: Mapping[str, Any]) -> str:
    """Return the server's address without user, password, key or query, from a client's options."""
    if is_in_memory(options):
        return str(options["path"] or options["location"])
    address = str(options["url"] or options["location"] or f"http://{options['host'] or 'localhost'}")
    url = httpx.URL(address)
    # httpx leaves out the scheme's default port; the client connects to it all the same.
    number = urlsplit(address).port or options["port"]
    port = f":{number}" if number else ""
    return f"{url.scheme}://{url.host}{port}{url.path.rstrip('/')}"


def is_in_memory(options: Mapping[str, Any]) -> bool:
    """Return whether the client runs its own engine, without a server."""
    return bool(options["path"]) or options["location"] == ":memory:"
