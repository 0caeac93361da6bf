"""A store behind a `QdrantClient`: a Qdrant server over HTTP or gRPC."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Final, ParamSpec, Self, TypeVar, cast

import httpx
import numpy as np
from qdrant_client import QdrantClient, models

from ume_qdrant.filters import Filter, any_of
from ume_qdrant.refusals import REFUSALS, describe
from ume_qdrant.retry import Retry
from ume_qdrant.schema import INDEXES, CollectionMeta
from ume_qdrant.store import Point, Scored, Vector, VectorName, batches
from ume_retrieval.errors import StoreError

P = ParamSpec("P")
T = TypeVar("T")

BATCH: Final = 128
"""Points that are sent at a time: with two vectors of 2,048 about 6 MB of JSON, well under a server's 32 MB."""

PAGE: Final = 500
"""Points that are read or removed at a time."""


class ClientStore:
    """One collection on any `QdrantClient`.

    Every write waits until the server has applied it. A lost connection, a time-out or a busy server is tried again;
    since all writes may be repeated, a request whose answer was lost does no harm. Collection metadata are Qdrant's own
    (server 1.16 and newer).

    Args:
        client: A client that is ready to use.
        collection: Name of the collection.
        retry: How patiently to try again.
        on_close: What `close` calls; by default nothing, since the client stays the caller's.

    Example:
        >>> store = ClientStore(QdrantClient(":memory:"), "films")
        >>> store, store.exists()
        (ClientStore(':memory:', 'films'), False)
    """

    def __init__(
        self,
        client: QdrantClient,
        collection: str,
        *,
        retry: Retry | None = None,
        on_close: Callable[[], None] | None = None,
    ) -> None:
        self._client = client
        self._collection = collection
        self._retry = retry or Retry()
        self._on_close = on_close

    def __repr__(self) -> str:
        return f"ClientStore({self.location!r}, {self._collection!r})"

    @property
    def location(self) -> str:
        """Address of the server without user, password, key or query."""
        options = self._client.init_options
        if self._is_local:
            return str(options["path"] or options["location"])
        url = httpx.URL(str(options["url"] or options["location"] or f"http://{options['host'] or 'localhost'}"))
        port = f":{url.port or options['port']}" if url.port or options["port"] else ""
        return f"{url.scheme}://{url.host}{port}{url.path.rstrip('/')}"

    @property
    def _is_local(self) -> bool:
        options = self._client.init_options
        return bool(options["path"]) or options["location"] == ":memory:"

    @property
    def collection(self) -> str:
        """Name of the collection."""
        return self._collection

    @property
    def folders(self) -> tuple[Path, ...]:
        """None: a server's files are its own matter."""
        return ()

    def exists(self) -> bool:
        """Whether the collection is there."""
        return self._ask(self._client.collection_exists, self._collection)

    def create(self, meta: CollectionMeta) -> None:
        """Make the collection; keep it when it is already there.

        Raises:
            StoreMismatch: When there is a collection of that name that was not made by this library.
            StoreError: Also when the server does not keep collection metadata (older than 1.16).
        """
        if not self.exists():
            params = models.VectorParams(size=meta.dimension, distance=models.Distance.COSINE)
            vectors = {"direct": params, "reasoned": params}
            try:
                self._ask(self._client.create_collection, self._collection, vectors, metadata=meta.to_dict())
            except StoreError:
                # Made by another process, or by a request whose answer was lost.
                if not self.exists():
                    raise
            if not self._metadata():
                raise StoreError(
                    f"the server at {self.location} does not keep collection metadata", hint="use Qdrant 1.16 or newer"
                )
        self.meta()  # nothing is added to a collection that is not ours
        if not self._is_local:  # the client's own in-memory engine has no payload indexes
            for field, kind in INDEXES.items():
                schema = models.PayloadSchemaType(kind)
                self._ask(self._client.create_payload_index, self._collection, field, schema, wait=True)

    def _metadata(self) -> dict[str, Any] | None:
        return self._ask(self._client.get_collection, self._collection).config.metadata

    def meta(self) -> CollectionMeta:
        """What the collection was made with."""
        return CollectionMeta.from_dict(self._metadata(), self._collection)

    def pin(self, meta: CollectionMeta) -> None:
        """Replace what the collection says of itself."""
        self._ask(self._client.update_collection, self._collection, metadata=meta.to_dict())

    def upsert(self, points: Sequence[Point]) -> None:
        """Write points whole."""
        for some in batches(points, BATCH):
            rows = [models.PointStruct(id=p.id, vector=_lists(p), payload=dict(p.payload)) for p in some]
            self._ask(self._client.upsert, self._collection, rows, wait=True)

    def update(self, points: Sequence[Point]) -> None:
        """Set vectors, then payload fields, of points that exist."""
        for some in batches(points, BATCH):
            rows = [models.PointVectors(id=p.id, vector=_lists(p)) for p in some if p.vectors]
            vectors = [models.UpdateVectorsOperation(update_vectors=models.UpdateVectors(points=rows))] if rows else []
            payloads = [
                models.SetPayloadOperation(set_payload=models.SetPayload(payload=dict(p.payload), points=[p.id]))
                for p in some
                if p.payload
            ]
            self._ask(self._client.batch_update_points, self._collection, [*vectors, *payloads], wait=True)

    def delete(self, ids: Sequence[str]) -> None:
        """Remove points."""
        for some in batches(ids, PAGE):
            selector = models.PointIdsList(points=list(some))
            self._ask(self._client.delete, self._collection, selector, wait=True)

    def retrieve(self, ids: Sequence[str], *, vectors: Sequence[VectorName] = ()) -> list[Point]:
        """Read points by id."""
        found: dict[str, Point] = {}
        for some in batches(ids, PAGE):
            records = self._ask(
                self._client.retrieve, self._collection, list(some), with_vectors=list(vectors) or False
            )
            found |= {str(record.id): _point(record) for record in records}
        return [found[key] for key in ids if key in found]

    def scroll(
        self, where: Filter | None = None, *, vectors: Sequence[VectorName] = (), fields: Sequence[str] | None = None
    ) -> Iterator[Point]:
        """Read every point that matches, ordered by id."""
        offset: models.ExtendedPointId | None = None
        while True:
            records, offset = self._ask(
                self._client.scroll,
                self._collection,
                scroll_filter=_filter(where),
                limit=PAGE,
                offset=offset,
                with_payload=True if fields is None else list(fields),
                with_vectors=list(vectors) or False,
            )
            yield from map(_point, records)
            if offset is None:
                return

    def search(self, name: VectorName, vector: Vector, *, limit: int, where: Filter | None = None) -> list[Scored]:
        """The points nearest to `vector`, best first."""
        answer = self._ask(
            self._client.query_points,
            self._collection,
            query=_floats(vector),
            using=name,
            query_filter=_filter(where),
            limit=limit,
            with_payload=True,
        )
        return [Scored(str(hit.id), hit.score, hit.payload or {}) for hit in answer.points]

    def count(self, where: Filter | None = None) -> int:
        """How many points match."""
        return self._ask(self._client.count, self._collection, count_filter=_filter(where), exact=True).count

    def optimize(self) -> None:
        """Nothing to do: a server optimises its collections by itself, in the background."""

    def close(self) -> None:
        """Close the client when this store was made with it."""
        if self._on_close is not None:
            self._on_close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def _ask(self, request: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        def once() -> T:
            try:
                return request(*args, **kwargs)
            except REFUSALS as error:
                # `from None`: an answer may repeat what was sent, and the cause would show it.
                raise describe(error, self.location, self._collection, self._client.init_options["api_key"]) from None

        return self._retry.call(once)


def _filter(where: Filter | None) -> models.Filter | None:
    if where is None:
        return None
    must: list[models.Condition] = [
        models.FieldCondition(key=field, match=models.MatchAny(any=values)) for field, values in any_of(where)
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


def _lists(point: Point) -> dict[str, Any]:
    return {name: _floats(vector) for name, vector in point.vectors.items()}


def _point(record: models.Record) -> Point:
    vectors = cast("dict[VectorName, list[float]]", record.vector or {})
    return Point(str(record.id), {n: np.asarray(v, dtype=np.float32) for n, v in vectors.items()}, record.payload or {})
