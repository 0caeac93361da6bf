"""`AsyncClientStore`: a collection on a Qdrant server, over HTTP or gRPC."""

from __future__ import annotations

import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Any, Final, NamedTuple, TypeVar, cast

from qdrant_client import AsyncQdrantClient, models

from ume_qdrant.stores.async_store import AsyncStore
from ume_qdrant.stores.base import (
    Point,
    Scored,
    Vector,
    VectorName,
    alias_error,
    batches,
    check_same_tenants,
    check_tenants,
    named_vectors,
    payload_selector,
    point_of,
    still_stored,
    with_metadata,
)
from ume_qdrant.stores.client_errors import CLIENT_ERRORS, typed_error
from ume_qdrant.stores.client_models import (
    filter_model,
    is_in_memory,
    location_of,
    meta_indexes,
    payload_indexes,
    query_arguments,
    vectors_config,
)
from ume_qdrant.stores.conditions import field_of
from ume_qdrant.stores.filters import Filter
from ume_qdrant.stores.layout import DEFAULT_EFFORT, Layout, SearchEffort, Sharding
from ume_qdrant.stores.schema import CollectionMeta, IndexKind, check_index
from ume_retrieval.errors import CollectionNotFound, StoreError, StoreMismatch, StoreUnsupported
from ume_retrieval.util.retry import Retry

T = TypeVar("T")

BATCH: Final = 128
"""Points per write request: with two vectors of 2,048 values about 6 MB of JSON, below a server's limit of 32 MB."""

PAGE: Final = 500
"""Points per read or delete request."""


class _Facts(NamedTuple):
    """Metadata of a collection."""

    meta: CollectionMeta
    layout: Layout


class AsyncClientStore(AsyncStore):
    """One collection on an `AsyncQdrantClient`.

    Every write waits until the server has applied it. After a lost connection, a timeout or a busy server the request
    is retried; since writes are idempotent, a lost answer does no harm. Metadata are Qdrant's collection metadata
    (server 1.16 and newer). They are read before every write and before the first search, and again if a search
    fails, because the name may be an alias that has moved.

    Args:
        client: A client that is ready to use.
        collection: Name of the collection, or of an alias.
        retry: When to retry a request; waits with its `asleep`.
        sharding: Shards and replicas of a new collection; None uses the server's defaults.
        connect: Creates a client again at the first use after `close`. A store closes its client only if it has
            `connect`; otherwise the caller closes it.
    """

    def __init__(
        self,
        client: AsyncQdrantClient,
        collection: str,
        *,
        retry: Retry | None = None,
        sharding: Sharding | None = None,
        connect: Callable[[], AsyncQdrantClient] | None = None,
    ) -> None:
        self._client = client
        self._collection = collection
        self._retry = retry or Retry()
        self._sharding = sharding or Sharding()
        self._connect = connect
        self._closed = False
        self._reconnecting = threading.Lock()  # threads may share a ClientStore
        self._known: _Facts | None = None
        self._stored_layout: Layout | None = None

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.location!r}, {self._collection!r})"

    @property
    def location(self) -> str:
        """Address of the server without user, password, key or query."""
        return location_of(self._client.init_options)

    @property
    def collection(self) -> str:
        """Name of the collection."""
        return self._collection

    @property
    def _in_memory(self) -> bool:
        """Whether the client's in-memory engine answers, which has neither payload indexes nor quantization."""
        return is_in_memory(self._client.init_options)

    async def exists(self) -> bool:
        """Return whether the collection exists."""
        return await self._ask(lambda client: client.collection_exists(self._collection))

    async def create(self, meta: CollectionMeta, layout: Layout | None = None) -> None:
        """Create the collection unless it exists.

        Raises:
            StoreMismatch: If a collection of that name was not made by this library, or has another layout.
            StoreError: Also if the server does not keep collection metadata (older than 1.16).
        """
        wanted = layout or Layout()
        wanted.check(meta.dimension)
        if not await self.exists():
            if wanted.quantization is not None and self._in_memory:
                raise StoreUnsupported(
                    "the in-memory engine of qdrant-client does not support quantization",
                    hint="use a directory or a Qdrant server",
                )
            try:
                await self._ask(
                    lambda client: client.create_collection(
                        self._collection,
                        vectors_config(meta.dimension, wanted),
                        metadata={**meta.to_dict(), **wanted.to_dict()},
                        **cast("dict[str, Any]", self._sharding.options()),
                    )
                )
            except StoreError:
                # Created by another process, or by a request whose answer was lost.
                if not await self.exists():
                    raise
            if not await self._metadata():
                what = f"the server at {self.location} does not keep collection metadata"
                raise StoreError(what, hint="use Qdrant 1.16 or newer")
        facts = await self._facts()  # raises before anything is added to a foreign collection
        facts.layout.match(layout, self._collection)
        if not self._in_memory:
            for name, schema in payload_indexes(facts.layout).items():
                await self._ask(lambda client: client.create_payload_index(self._collection, name, schema, wait=True))  # noqa: B023  # awaited before the loop goes on

    async def meta(self) -> CollectionMeta:
        """Return which models made the collection."""
        return (await self._facts()).meta

    async def layout(self) -> Layout:
        """Return how the collection stores its vectors."""
        return (await self._facts()).layout

    async def set_metadata(self, meta: CollectionMeta) -> None:
        """Replace the metadata about models; the server keeps the rest."""
        await self._ask(lambda client: client.update_collection(self._collection, metadata=meta.to_dict()))

    async def upsert(self, points: Sequence[Point]) -> None:
        """Write whole points."""
        meta, layout = await self._facts()
        check_tenants(points, layout, self._collection)
        for batch in batches(points, BATCH):
            rows = [
                models.PointStruct(
                    id=point.id,
                    vector=named_vectors(point, meta, layout, self._collection),
                    payload=dict(point.payload),
                )
                for point in batch
            ]
            await self._ask(lambda client: client.upsert(self._collection, rows, wait=True))  # noqa: B023  # as above

    async def update(self, points: Sequence[Point]) -> None:
        """Set vectors, then payload fields, of existing points."""
        facts = await self._facts()
        check_tenants(with_metadata(points), facts.layout, self._collection)
        for batch in batches(points, BATCH):
            await self._update(batch, facts)

    async def _update(self, points: Sequence[Point], facts: _Facts) -> None:
        try:
            await self._update_all(points, facts)
        except (StoreError, KeyError) as error:  # the in-memory engine raises KeyError
            if isinstance(error, StoreMismatch) or (isinstance(error, StoreError) and error.retryable):
                raise
            # The engine refuses the whole batch if another process has removed one of its points.
            left = still_stored(points, await self.retrieve([point.id for point in points], fields=()))
            if len(left) == len(points):
                raise
            await self._update(left, facts)

    async def _update_all(self, points: Sequence[Point], facts: _Facts) -> None:
        rows = [
            models.PointVectors(id=point.id, vector=named_vectors(point, *facts, self._collection))
            for point in points
            if point.vectors
        ]
        operations: list[models.UpdateOperation] = []
        if rows:
            operations.append(models.UpdateVectorsOperation(update_vectors=models.UpdateVectors(points=rows)))
        operations += [
            models.SetPayloadOperation(set_payload=models.SetPayload(payload=dict(p.payload), points=[p.id]))
            for p in points
            if p.payload
        ]
        if operations:
            await self._ask(lambda client: client.batch_update_points(self._collection, operations, wait=True))

    async def delete(self, ids: Sequence[str]) -> None:
        """Remove points."""
        for batch in batches(ids, PAGE):
            chosen = models.PointIdsList(points=list(batch))
            await self._ask(lambda client: client.delete(self._collection, chosen, wait=True))  # noqa: B023  # as above

    async def retrieve(
        self, ids: Sequence[str], *, vectors: Sequence[VectorName] = (), fields: Sequence[str] | None = None
    ) -> list[Point]:
        """Read points by id."""
        found: dict[str, Point] = {}
        for batch in batches(ids, PAGE):
            records = await self._ask(
                lambda client: client.retrieve(
                    self._collection,
                    list(batch),  # noqa: B023  # as above
                    with_payload=payload_selector(fields),
                    with_vectors=list(vectors) or False,
                )
            )
            found |= {point.id: point for point in map(point_of, records)}
        return [found[key] for key in ids if key in found]

    async def scroll(
        self, where: Filter | None = None, *, vectors: Sequence[VectorName] = (), fields: Sequence[str] | None = None
    ) -> AsyncIterator[Point]:
        """Read every point that matches, ordered by id."""
        offset = None
        while True:
            points, offset = await self.page(where, vectors, fields, offset)
            for point in points:
                yield point
            if offset is None:
                return

    async def page(
        self, where: Filter | None, vectors: Sequence[VectorName], fields: Sequence[str] | None, offset: Any
    ) -> tuple[list[Point], Any]:
        """Read one page of a scroll; returns its points and the offset of the next page, None after the last."""
        condition = filter_model(where, await self._layout(), self._collection)
        records, following = await self._ask(
            lambda client: client.scroll(
                self._collection,
                scroll_filter=condition,
                limit=PAGE,
                offset=offset,
                with_payload=payload_selector(fields),
                with_vectors=list(vectors) or False,
            )
        )
        return list(map(point_of, records)), following

    async def search(
        self,
        name: VectorName,
        vector: Vector,
        *,
        limit: int,
        where: Filter | None = None,
        effort: SearchEffort = DEFAULT_EFFORT,
        fields: Sequence[str] | None = None,
    ) -> list[Scored]:
        """Return the points nearest to `vector`, best first."""

        async def with_facts(facts: _Facts) -> list[Scored]:
            facts.meta.check_length(vector, self._collection)
            matching = filter_model(where, facts.layout, self._collection)
            query = query_arguments(facts.layout, name, vector, limit=limit, condition=matching, effort=effort)
            if self._in_memory:  # always compares with every vector, and warns of parameters
                query["search_params"] = None
            answer = await self._ask(
                lambda client: client.query_points(self._collection, with_payload=payload_selector(fields), **query)
            )
            return [Scored(str(hit.id), hit.score, hit.payload or {}) for hit in answer.points]

        facts = self._known or await self._facts()
        try:
            return await with_facts(facts)
        except CollectionNotFound:
            raise
        except StoreError as error:
            fresh = facts if error.retryable else await self._facts()
            if fresh == facts:
                raise
        return await with_facts(fresh)

    async def count(self, where: Filter | None = None) -> int:
        """Return how many points match."""
        condition = filter_model(where, await self._layout(), self._collection)
        answer = await self._ask(lambda client: client.count(self._collection, count_filter=condition, exact=True))
        return answer.count

    async def create_index(self, key: str, kind: IndexKind) -> None:
        """Create an index on a value of metadata."""
        check_index(key, kind)
        await self._layout()  # raises unless the collection exists
        if not self._in_memory:
            field, schema = field_of(key), models.PayloadSchemaType(kind)
            await self._ask(lambda client: client.create_payload_index(self._collection, field, schema, wait=True))

    async def indexes(self) -> dict[str, IndexKind]:
        """Return the kinds of indexes on metadata, by key."""
        info = await self._ask(lambda client: client.get_collection(self._collection))
        return meta_indexes(info.payload_schema)

    async def aliases(self) -> dict[str, str]:
        """Return every alias of the server with the collection it points to."""
        answer = await self._ask(lambda client: client.get_aliases())
        return {one.alias_name: one.collection_name for one in sorted(answer.aliases, key=lambda one: one.alias_name)}

    async def set_alias(self, alias: str) -> str | None:
        """Point `alias` at this collection, atomically, and return the collection it pointed to before."""
        known = await self.aliases()
        target = known.get(self._collection, self._collection)
        if alias in {one.name for one in (await self._ask(lambda client: client.get_collections())).collections}:
            raise StoreError(
                f"{alias!r} is the name of a collection, so it cannot be an alias",
                hint="choose another alias, or remove that collection first",
            )
        layout = (await self._facts()).layout  # raises unless the collection exists and is ours
        if (former := known.get(alias)) is not None:
            check_same_tenants(alias, Layout.from_dict(await self._metadata(former), former), layout)
        create = models.CreateAlias(collection_name=target, alias_name=alias)
        await self._change_alias(models.CreateAliasOperation(create_alias=create))
        return known.get(alias)

    async def drop_alias(self, alias: str) -> None:
        """Remove an alias."""
        await self._change_alias(models.DeleteAliasOperation(delete_alias=models.DeleteAlias(alias_name=alias)))

    async def _change_alias(self, operation: models.CreateAliasOperation | models.DeleteAliasOperation) -> None:
        await self._ask(lambda client: client.update_collection_aliases([operation]))

    async def drop(self) -> None:
        """Delete the collection, its points and its aliases."""
        if self._collection in await self.aliases():
            raise alias_error(self._collection)
        await self._ask(lambda client: client.delete_collection(self._collection))
        self._known = self._stored_layout = None

    async def optimize(self) -> None:
        """Do nothing: a server optimises its collections in the background."""

    async def close(self) -> None:
        """Close the client if the store can connect again; the next use does so."""
        with self._reconnecting:
            if self._connect is None or self._closed:
                return
            self._closed = True
        await self._client.close()

    async def _metadata(self, collection: str | None = None) -> dict[str, Any] | None:
        info = await self._ask(lambda client: client.get_collection(collection or self._collection))
        return info.config.metadata

    async def _layout(self) -> Layout:
        """Return the layout, read from the server once; collections that others made have the plain one."""
        if self._stored_layout is None:
            self._stored_layout = Layout.from_dict(await self._metadata(), self._collection)
        return self._stored_layout

    async def _facts(self) -> _Facts:
        """Read the metadata from the server."""
        data = await self._metadata()
        self._known = _Facts(CollectionMeta.from_dict(data, self._collection), Layout.from_dict(data, self._collection))
        self._stored_layout = self._known.layout
        return self._known

    async def _ask(self, request: Callable[[AsyncQdrantClient], Awaitable[T]]) -> T:
        """Send a request; retries, and converts errors."""

        async def once() -> T:
            with self._reconnecting:
                if self._closed and self._connect is not None:
                    self._client, self._closed = self._connect(), False
            try:
                return await request(self._client)
            except CLIENT_ERRORS as error:
                # `from None`: an answer may repeat the key that was sent, and the cause would show it.
                key = self._client.init_options["api_key"]
                raise typed_error(error, self.location, self._collection, key) from None

        return await self._retry.acall(once)
