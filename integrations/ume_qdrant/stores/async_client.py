"""A store behind an `AsyncQdrantClient`: the same requests as `ClientStore`, awaited."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any, Self, TypeVar

from qdrant_client import AsyncQdrantClient

from ume_qdrant.stores.base import USUAL, Point, Scored, Vector, VectorName
from ume_qdrant.stores.client import REFUSALS, describe, is_simulated, location_of
from ume_qdrant.stores.filters import Filter
from ume_qdrant.stores.layout import Effort, Layout
from ume_qdrant.stores.operations import Asking, Nearest, Operations, Request
from ume_qdrant.stores.schema import CollectionMeta
from ume_qdrant.stores.steps import arun
from ume_retrieval.util.retry import Retry

T = TypeVar("T")


class AsyncClientStore:
    """One collection on an `AsyncQdrantClient`; see `ClientStore`, which it equals in all but being awaited.

    Args:
        client: A client that is ready to use.
        collection: Name of the collection, or of an alias.
        retry: How patiently to try again; its `asleep` waits.
        connect: As in `ClientStore`.
    """

    def __init__(
        self,
        client: AsyncQdrantClient,
        collection: str,
        *,
        retry: Retry | None = None,
        connect: Callable[[], AsyncQdrantClient] | None = None,
    ) -> None:
        self._client = client
        self._collection = collection
        self._retry = retry or Retry()
        self._connect = connect
        self._closed = False
        options = client.init_options
        self._operations = Operations(collection, location_of(options), simulated=is_simulated(options))

    def __repr__(self) -> str:
        return f"AsyncClientStore({self.location!r}, {self._collection!r})"

    @property
    def location(self) -> str:
        """Address of the server without user, password, key or query."""
        return location_of(self._client.init_options)

    @property
    def collection(self) -> str:
        """Name of the collection."""
        return self._collection

    async def exists(self) -> bool:
        """Whether the collection is there."""
        return await self._run(self._operations.exists())

    async def create(self, meta: CollectionMeta, layout: Layout | None = None) -> None:
        """Make the collection; keep it when it is already there."""
        await self._run(self._operations.create(meta, layout))

    async def meta(self) -> CollectionMeta:
        """What the collection was made with."""
        return (await self._run(self._operations.facts())).meta

    async def layout(self) -> Layout:
        """How the collection keeps its vectors."""
        return (await self._run(self._operations.facts())).layout

    async def pin(self, meta: CollectionMeta) -> None:
        """Replace what the collection says of its models."""
        await self._run(self._operations.pin(meta))

    async def upsert(self, points: Sequence[Point]) -> None:
        """Write points whole."""
        await self._run(self._operations.upsert(points))

    async def update(self, points: Sequence[Point]) -> None:
        """Set vectors, then payload fields, of points that exist."""
        await self._run(self._operations.update(points))

    async def delete(self, ids: Sequence[str]) -> None:
        """Remove points."""
        await self._run(self._operations.delete(ids))

    async def retrieve(
        self, ids: Sequence[str], *, vectors: Sequence[VectorName] = (), fields: Sequence[str] | None = None
    ) -> list[Point]:
        """Read points by id."""
        return await self._run(self._operations.retrieve(ids, vectors, fields))

    async def scroll(
        self, where: Filter | None = None, *, vectors: Sequence[VectorName] = (), fields: Sequence[str] | None = None
    ) -> AsyncIterator[Point]:
        """Read every point that matches, ordered by id."""
        offset = None
        while True:
            page = await self._run(self._operations.page(where, vectors, fields, offset))
            for point in page.points:
                yield point
            offset = page.offset
            if offset is None:
                return

    async def search(
        self,
        name: VectorName,
        vector: Vector,
        *,
        limit: int,
        where: Filter | None = None,
        effort: Effort = USUAL,
        fields: Sequence[str] | None = None,
    ) -> list[Scored]:
        """The points nearest to `vector`, best first."""
        return await self._run(self._operations.search(Nearest(name, vector, limit, where, effort, fields)))

    async def count(self, where: Filter | None = None) -> int:
        """How many points match."""
        return await self._run(self._operations.count(where))

    async def aliases(self) -> dict[str, str]:
        """Every alias of the server, with the collection it names."""
        return await self._run(self._operations.aliases())

    async def point_alias(self, alias: str) -> str | None:
        """Let `alias` name this collection, at once, and return what it named before."""
        return await self._run(self._operations.point_alias(alias))

    async def drop_alias(self, alias: str) -> None:
        """Forget an alias."""
        await self._run(self._operations.drop_alias(alias))

    async def drop(self) -> None:
        """Remove the collection with its points and aliases."""
        await self._run(self._operations.drop())

    async def optimize(self) -> None:
        """Nothing to do: a server optimises its collections by itself, in the background."""

    async def close(self) -> None:
        """Close the client when it is this store's own; the next use makes another one."""
        if self._connect is not None and not self._closed:
            self._closed = True
            await self._client.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.close()

    async def _run(self, steps: Asking[T]) -> T:
        return await arun(steps, self._answer)

    async def _answer(self, request: Request) -> Any:
        async def once() -> Any:
            if self._closed and self._connect is not None:
                self._client, self._closed = self._connect(), False
            try:
                return await getattr(self._client, request.method)(*request.args, **request.kwargs)
            except REFUSALS as error:
                # `from None`: an answer may repeat what was sent, and the cause would show it.
                raise describe(error, self.location, self._collection, self._client.init_options["api_key"]) from None

        return await self._retry.acall(once)
