"""What is said to a Qdrant client, sync or async: every operation as steps of requests."""

from __future__ import annotations

from collections.abc import Generator, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple, TypeAlias, TypeVar, cast

import numpy as np
from qdrant_client import models

from ume_qdrant.stores.base import Payload, Point, Scored, Vector, VectorName, batches, chosen, is_alias, still_there
from ume_qdrant.stores.filters import Filter, any_of
from ume_qdrant.stores.layout import SHORT, Effort, Layout, Quantization, Sharding
from ume_qdrant.stores.schema import INDEXES, CollectionMeta
from ume_retrieval.errors import CollectionNotFound, StoreError, StoreMismatch, StoreUnsupported

T = TypeVar("T")

BATCH: Final = 128
"""Points that are sent at a time: with two vectors of 2,048 about 6 MB of JSON, well under a server's 32 MB."""

PAGE: Final = 500
"""Points that are read or removed at a time."""

QUANTIZATIONS: Final[Mapping[Quantization, models.QuantizationConfig]] = {
    "scalar": models.ScalarQuantization(
        scalar=models.ScalarQuantizationConfig(type=models.ScalarType.INT8, quantile=0.99, always_ram=True)
    ),
    "binary": models.BinaryQuantization(binary=models.BinaryQuantizationConfig(always_ram=True)),
    "product": models.ProductQuantization(
        product=models.ProductQuantizationConfig(compression=models.CompressionRatio.X16, always_ram=True)
    ),
}


@dataclass(frozen=True, slots=True)
class Request:
    """A method of the client, with what it is called with.

    Attributes:
        method: Name of a method that `QdrantClient` and `AsyncQdrantClient` share.
        args: Positional arguments.
        kwargs: Keyword arguments.
    """

    method: str
    args: tuple[Any, ...] = ()
    kwargs: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, eq=False)
class Nearest:
    """A search; see `Store.search` for its parts."""

    name: VectorName
    vector: Vector
    limit: int
    where: Filter | None
    effort: Effort
    fields: Sequence[str] | None


Asking: TypeAlias = Generator[Request, Any, T]


class Facts(NamedTuple):
    """What a collection says of itself."""

    meta: CollectionMeta
    layout: Layout


class Page(NamedTuple):
    """Points, and where the next page begins; None after the last."""

    points: list[Point]
    offset: models.ExtendedPointId | None


class Operations:
    """The operations on one collection.

    What the collection says of itself is read before the first search and before every write. When a search fails, it
    is read again: the name may be an alias that has been pointed elsewhere meanwhile.

    Args:
        collection: Name of the collection or of an alias.
        location: Where it is, for messages.
        simulated: Whether the client's own in-memory engine answers, which has neither payload indexes nor
            quantization.
        sharding: How a server spreads the collection when it is made; None leaves it to the server.
    """

    def __init__(self, collection: str, location: str, *, simulated: bool, sharding: Sharding | None = None) -> None:
        self._collection = collection
        self._location = location
        self._simulated = simulated
        self._spread = sharding.options() if sharding else {}
        self._facts: Facts | None = None

    def exists(self) -> Asking[bool]:
        """Whether the collection is there."""
        there: bool = yield self._ask("collection_exists")
        return there

    def create(self, meta: CollectionMeta, layout: Layout | None) -> Asking[None]:
        """Make the collection, or see that the one that is there is ours and has the layout."""
        wanted = layout or Layout()
        wanted.check(meta.dimension)
        if not (yield from self.exists()):
            if wanted.quantization is not None and self._simulated:
                raise StoreUnsupported(
                    "the in-memory engine of qdrant-client has no quantization",
                    hint="use a directory or a Qdrant server",
                )
            metadata = {**meta.to_dict(), **wanted.to_dict()}
            try:
                vectors = _vectors_config(meta.dimension, wanted)
                yield self._ask("create_collection", vectors, metadata=metadata, **self._spread)
            except StoreError:
                # Made by another process, or by a request whose answer was lost.
                if not (yield from self.exists()):
                    raise
            if not (yield from self._metadata()):
                raise StoreError(
                    f"the server at {self._location} does not keep collection metadata", hint="use Qdrant 1.16 or newer"
                )
        facts = yield from self.facts()  # nothing is added to a collection that is not ours
        facts.layout.match(layout, self._collection)
        if not self._simulated:
            for name, kind in INDEXES.items():
                yield self._ask("create_payload_index", name, models.PayloadSchemaType(kind), wait=True)

    def _metadata(self) -> Asking[dict[str, Any] | None]:
        info: models.CollectionInfo = yield self._ask("get_collection")
        return info.config.metadata

    def facts(self) -> Asking[Facts]:
        """Read what the collection says of itself."""
        data = yield from self._metadata()
        self._facts = Facts(CollectionMeta.from_dict(data, self._collection), Layout.from_dict(data, self._collection))
        return self._facts

    def pin(self, meta: CollectionMeta) -> Asking[None]:
        """Replace what the collection says of its models; the server merges it with the rest."""
        yield self._ask("update_collection", metadata=meta.to_dict())

    def upsert(self, points: Sequence[Point]) -> Asking[None]:
        """Write points whole."""
        facts = yield from self.facts()
        for some in batches(points, BATCH):
            rows = [models.PointStruct(id=p.id, vector=self._rows(p, facts), payload=dict(p.payload)) for p in some]
            yield self._ask("upsert", rows, wait=True)

    def update(self, points: Sequence[Point]) -> Asking[None]:
        """Set vectors, then payload fields, of points that exist."""
        facts = yield from self.facts()
        for some in batches(points, BATCH):
            yield from self._update(some, facts)

    def _update(self, points: Sequence[Point], facts: Facts) -> Asking[None]:
        try:
            yield from self._update_all(points, facts)
        except (StoreError, KeyError) as error:  # the in-memory engine raises KeyError
            if isinstance(error, StoreMismatch) or (isinstance(error, StoreError) and error.retryable):
                raise
            # One that another process has removed meanwhile makes the engine refuse all.
            left = still_there(points, (yield from self.retrieve([point.id for point in points], (), ())))
            if len(left) == len(points):
                raise
            yield from self._update(left, facts)

    def _update_all(self, points: Sequence[Point], facts: Facts) -> Asking[None]:
        rows = [models.PointVectors(id=p.id, vector=self._rows(p, facts)) for p in points if p.vectors]
        vectors = [models.UpdateVectorsOperation(update_vectors=models.UpdateVectors(points=rows))] if rows else []
        payloads = [
            models.SetPayloadOperation(set_payload=models.SetPayload(payload=dict(p.payload), points=[p.id]))
            for p in points
            if p.payload
        ]
        if vectors or payloads:
            yield self._ask("batch_update_points", [*vectors, *payloads], wait=True)

    def delete(self, ids: Sequence[str]) -> Asking[None]:
        """Remove points."""
        for some in batches(ids, PAGE):
            yield self._ask("delete", models.PointIdsList(points=list(some)), wait=True)

    def retrieve(
        self, ids: Sequence[str], vectors: Sequence[VectorName], fields: Sequence[str] | None
    ) -> Asking[list[Point]]:
        """Read points by id."""
        found: dict[str, Point] = {}
        for some in batches(ids, PAGE):
            records = yield self._ask(
                "retrieve", list(some), with_payload=chosen(fields), with_vectors=list(vectors) or False
            )
            found |= {point.id: point for point in _points(records)}
        return [found[key] for key in ids if key in found]

    def page(
        self, where: Filter | None, vectors: Sequence[VectorName], fields: Sequence[str] | None, offset: Any
    ) -> Asking[Page]:
        """Read one page of a scroll."""
        records, following = yield self._ask(
            "scroll",
            scroll_filter=_filter(where),
            limit=PAGE,
            offset=offset,
            with_payload=chosen(fields),
            with_vectors=list(vectors) or False,
        )
        return Page(list(_points(records)), following)

    def search(self, wanted: Nearest) -> Asking[list[Scored]]:
        """The points nearest to a vector, best first."""
        facts = self._facts or (yield from self.facts())
        try:
            return (yield from self._search(facts, wanted))
        except CollectionNotFound:
            raise
        except StoreError as error:
            if error.retryable:
                raise
            fresh = yield from self.facts()
            if fresh == facts:
                raise
        return (yield from self._search(fresh, wanted))

    def _search(self, facts: Facts, wanted: Nearest) -> Asking[list[Scored]]:
        facts.meta.check_length(wanted.vector, self._collection)
        where, params = _filter(wanted.where), self._params(facts.layout, wanted.effort)
        stages: dict[str, Any] = {"query_filter": where, "search_params": params}
        if facts.layout.short is not None and not wanted.effort.exact:
            first = models.Prefetch(
                query=_floats(wanted.vector[: facts.layout.short]),
                using=wanted.name + SHORT,
                filter=where,
                limit=wanted.effort.candidates(wanted.limit),
                params=params,
            )
            stages = {"prefetch": first, "search_params": self._params(facts.layout, Effort(exact=True))}
        answer = yield self._ask(
            "query_points",
            query=_floats(wanted.vector),
            using=wanted.name,
            limit=wanted.limit,
            with_payload=chosen(wanted.fields),
            **stages,
        )
        return [Scored(str(hit.id), hit.score, hit.payload or {}) for hit in answer.points]

    def _params(self, layout: Layout, effort: Effort) -> models.SearchParams | None:
        if self._simulated:  # it compares with every vector in any case, and says so when asked for more
            return None
        if effort.exact:
            ignored = models.QuantizationSearchParams(ignore=True) if layout.quantization else None
            return models.SearchParams(exact=True, quantization=ignored)
        rescored = (
            models.QuantizationSearchParams(rescore=True, oversampling=effort.oversampling)
            if layout.quantization
            else None
        )
        return models.SearchParams(hnsw_ef=effort.ef, quantization=rescored) if rescored or effort.ef else None

    def count(self, where: Filter | None) -> Asking[int]:
        """How many points match."""
        answer = yield self._ask("count", count_filter=_filter(where), exact=True)
        total: int = answer.count
        return total

    def aliases(self) -> Asking[dict[str, str]]:
        """Every alias of the server, with the collection it names."""
        answer: models.CollectionsAliasesResponse = yield Request("get_aliases")
        return {one.alias_name: one.collection_name for one in sorted(answer.aliases, key=lambda one: one.alias_name)}

    def collections(self) -> Asking[list[str]]:
        """Names of all collections of the server."""
        answer: models.CollectionsResponse = yield Request("get_collections")
        return sorted(one.name for one in answer.collections)

    def point_alias(self, alias: str) -> Asking[str | None]:
        """Let an alias name this collection; the server exchanges it at once."""
        held = yield from self.aliases()
        target = held.get(self._collection, self._collection)
        if alias in (yield from self.collections()):
            raise StoreError(
                f"{alias!r} is the name of a collection, so it cannot be an alias",
                hint="choose another alias, or remove that collection first",
            )
        yield from self.facts()  # it must be there, and ours
        named = models.CreateAlias(collection_name=target, alias_name=alias)
        yield Request("update_collection_aliases", ([models.CreateAliasOperation(create_alias=named)],))
        return held.get(alias)

    def drop_alias(self, alias: str) -> Asking[None]:
        """Forget an alias."""
        named = models.DeleteAlias(alias_name=alias)
        yield Request("update_collection_aliases", ([models.DeleteAliasOperation(delete_alias=named)],))

    def drop(self) -> Asking[None]:
        """Remove the collection with its points and the aliases that name it."""
        if self._collection in (yield from self.aliases()):
            raise is_alias(self._collection)
        yield self._ask("delete_collection")
        self._facts = None

    def _rows(self, point: Point, facts: Facts) -> dict[str, Any]:
        rows: dict[str, Any] = {}
        for name, vector in point.vectors.items():
            facts.meta.check_length(vector, self._collection)
            rows[name] = _floats(vector)
            if facts.layout.short is not None:
                rows[name + SHORT] = _floats(vector[: facts.layout.short])
        return rows

    def _ask(self, method: str, *args: Any, **kwargs: Any) -> Request:
        return Request(method, (self._collection, *args), kwargs)


def _vectors_config(dimension: int, layout: Layout) -> dict[str, models.VectorParams]:
    quantization = QUANTIZATIONS[layout.quantization] if layout.quantization else None
    cosine, on_disk = models.Distance.COSINE, True if layout.full == "disk" else None
    if layout.short is None:
        full = models.VectorParams(size=dimension, distance=cosine, on_disk=on_disk, quantization_config=quantization)
        return {"direct": full, "reasoned": full}
    # Full vectors only score what the truncated ones have found: they need no index.
    unindexed = models.HnswConfigDiff(m=0)
    full = models.VectorParams(size=dimension, distance=cosine, on_disk=on_disk, hnsw_config=unindexed)
    short = models.VectorParams(size=layout.short, distance=cosine, quantization_config=quantization)
    return {"direct": full, "reasoned": full, "direct" + SHORT: short, "reasoned" + SHORT: short}


def _filter(where: Filter | None) -> models.Filter | None:
    if where is None:
        return None
    must: list[models.Condition] = [
        models.FieldCondition(key=name, match=models.MatchAny(any=values)) for name, values in any_of(where)
    ]
    if where.time is not None:
        start, end = where.time
        must.append(models.FieldCondition(key="start_s", range=models.Range(lt=end)))
        must.append(models.FieldCondition(key="end_s", range=models.Range(gt=start)))
    if where.ids is not None:
        must.append(models.HasIdCondition(has_id=list(where.ids)))
    return models.Filter(must=must)


def _floats(vector: Vector) -> list[float]:
    return cast("list[float]", np.asarray(vector, dtype=np.float32).tolist())


def _points(records: Iterable[models.Record]) -> Iterable[Point]:
    for record in records:
        vectors = cast("dict[VectorName, list[float]]", record.vector or {})
        payload: Payload = record.payload or {}
        yield Point(str(record.id), {n: np.asarray(v, dtype=np.float32) for n, v in vectors.items()}, payload)
