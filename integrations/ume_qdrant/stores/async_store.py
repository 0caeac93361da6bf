"""What every async store does, and any store as an async one by a worker thread."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import islice
from typing import Final, ParamSpec, Protocol, Self, TypeVar, runtime_checkable

from ume_qdrant.stores.base import USUAL, Point, Scored, Store, Vector, VectorName
from ume_qdrant.stores.filters import Filter
from ume_qdrant.stores.layout import Effort, Layout
from ume_qdrant.stores.schema import CollectionMeta

P = ParamSpec("P")
T = TypeVar("T")

PAGE: Final = 500
"""Points that are handed from the worker thread at a time."""


@runtime_checkable
class AsyncStore(Protocol):
    """One collection of points, as `Store`, with every call awaited. Errors are those of `Store`."""

    @property
    def location(self) -> str:
        """Where the collection is, for messages; never holds a secret."""
        ...

    @property
    def collection(self) -> str:
        """Name of the collection."""
        ...

    async def exists(self) -> bool:
        """Whether the collection is there."""
        ...

    async def create(self, meta: CollectionMeta, layout: Layout | None = None) -> None:
        """Make the collection; keep it when it is already there."""
        ...

    async def meta(self) -> CollectionMeta:
        """What the collection was made with."""
        ...

    async def layout(self) -> Layout:
        """How the collection keeps its vectors."""
        ...

    async def pin(self, meta: CollectionMeta) -> None:
        """Replace what the collection says of its models."""
        ...

    async def upsert(self, points: Sequence[Point]) -> None:
        """Write points whole."""
        ...

    async def update(self, points: Sequence[Point]) -> None:
        """Set vectors, then payload fields, of points that exist."""
        ...

    async def delete(self, ids: Sequence[str]) -> None:
        """Remove points."""
        ...

    async def retrieve(
        self, ids: Sequence[str], *, vectors: Sequence[VectorName] = (), fields: Sequence[str] | None = None
    ) -> list[Point]:
        """Read points by id."""
        ...

    def scroll(
        self, where: Filter | None = None, *, vectors: Sequence[VectorName] = (), fields: Sequence[str] | None = None
    ) -> AsyncIterator[Point]:
        """Read every point that matches, ordered by id."""
        ...

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
        ...

    async def count(self, where: Filter | None = None) -> int:
        """How many points match."""
        ...

    async def aliases(self) -> dict[str, str]:
        """Every alias at this location, with the collection that it names."""
        ...

    async def point_alias(self, alias: str) -> str | None:
        """Let `alias` name this collection, at once, and return what it named before."""
        ...

    async def drop_alias(self, alias: str) -> None:
        """Forget an alias."""
        ...

    async def drop(self) -> None:
        """Remove the collection with its points and aliases."""
        ...

    async def optimize(self) -> None:
        """Build what makes search fast."""
        ...

    async def close(self) -> None:
        """Let go of files and connections."""
        ...

    async def __aenter__(self) -> Self: ...

    async def __aexit__(self, *exc: object) -> None: ...


class ThreadStore:
    """Any store, its calls made one after the other in a worker thread, so that the event loop goes on.

    Made for `EdgeStore`, whose engine is in this process and knows no event loop.

    Args:
        store: The store; it belongs to this one from now on, and is closed with it.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self._worker = _worker()

    def __repr__(self) -> str:
        return f"ThreadStore({self._store!r})"

    @property
    def location(self) -> str:
        """Where the collection is."""
        return self._store.location

    @property
    def collection(self) -> str:
        """Name of the collection."""
        return self._store.collection

    async def exists(self) -> bool:
        """Whether the collection is there."""
        return await self._call(self._store.exists)

    async def create(self, meta: CollectionMeta, layout: Layout | None = None) -> None:
        """Make the collection; keep it when it is already there."""
        await self._call(self._store.create, meta, layout)

    async def meta(self) -> CollectionMeta:
        """What the collection was made with."""
        return await self._call(self._store.meta)

    async def layout(self) -> Layout:
        """How the collection keeps its vectors."""
        return await self._call(self._store.layout)

    async def pin(self, meta: CollectionMeta) -> None:
        """Replace what the collection says of its models."""
        await self._call(self._store.pin, meta)

    async def upsert(self, points: Sequence[Point]) -> None:
        """Write points whole."""
        await self._call(self._store.upsert, points)

    async def update(self, points: Sequence[Point]) -> None:
        """Set vectors, then payload fields, of points that exist."""
        await self._call(self._store.update, points)

    async def delete(self, ids: Sequence[str]) -> None:
        """Remove points."""
        await self._call(self._store.delete, ids)

    async def retrieve(
        self, ids: Sequence[str], *, vectors: Sequence[VectorName] = (), fields: Sequence[str] | None = None
    ) -> list[Point]:
        """Read points by id."""
        return await self._call(self._store.retrieve, ids, vectors=vectors, fields=fields)

    async def scroll(
        self, where: Filter | None = None, *, vectors: Sequence[VectorName] = (), fields: Sequence[str] | None = None
    ) -> AsyncIterator[Point]:
        """Read every point that matches, ordered by id."""
        points: Iterator[Point] = await self._call(self._store.scroll, where, vectors=vectors, fields=fields)
        while some := await self._call(lambda: list(islice(points, PAGE))):
            for point in some:
                yield point

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
        return await self._call(
            self._store.search, name, vector, limit=limit, where=where, effort=effort, fields=fields
        )

    async def count(self, where: Filter | None = None) -> int:
        """How many points match."""
        return await self._call(self._store.count, where)

    async def aliases(self) -> dict[str, str]:
        """Every alias at this location, with the collection that it names."""
        return await self._call(self._store.aliases)

    async def point_alias(self, alias: str) -> str | None:
        """Let `alias` name this collection, at once, and return what it named before."""
        return await self._call(self._store.point_alias, alias)

    async def drop_alias(self, alias: str) -> None:
        """Forget an alias."""
        await self._call(self._store.drop_alias, alias)

    async def drop(self) -> None:
        """Remove the collection with its points and aliases."""
        await self._call(self._store.drop)

    async def optimize(self) -> None:
        """Build what makes search fast; other calls wait."""
        await self._call(self._store.optimize)

    async def close(self) -> None:
        """Close the store; it opens again at its next use."""
        await self._call(self._store.close)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.close()
        self._worker.shutdown(wait=False)
        self._worker = _worker()  # it has no thread before its first use

    async def _call(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._worker, partial(function, *args, **kwargs))


def _worker() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(1, thread_name_prefix="ume-store")
