"""`ClientStore`: `AsyncClientStore` for blocking callers, on a `QdrantClient`."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Iterator, Sequence
from dataclasses import replace
from functools import update_wrapper
from pathlib import Path
from typing import Any, Concatenate, ParamSpec, Self, TypeVar, cast

from qdrant_client import AsyncQdrantClient, QdrantClient

from ume_qdrant.stores.async_client import AsyncClientStore
from ume_qdrant.stores.async_store import run_inline
from ume_qdrant.stores.base import Point, RenamedMethods, VectorName
from ume_qdrant.stores.filters import Filter
from ume_qdrant.stores.layout import Sharding
from ume_retrieval.util.retry import Retry

P = ParamSpec("P")
T = TypeVar("T")


class _InlineClient:
    """A `QdrantClient` in the form of an `AsyncQdrantClient`, whose calls return at once.

    The library generates one class from the other, so their methods have the same parameters.
    """

    def __init__(self, client: QdrantClient) -> None:
        self._client = client

    def __getattr__(self, name: str) -> Any:
        value = getattr(self._client, name)
        if not callable(value):
            return value

        async def call(*args: Any, **kwargs: Any) -> Any:
            return value(*args, **kwargs)

        return call


def _blocking(
    method: Callable[Concatenate[AsyncClientStore, P], Coroutine[Any, Any, T]],
) -> Callable[Concatenate[ClientStore, P], T]:
    """Derive the blocking form of a method of `AsyncClientStore`, with the same parameters."""

    def call(self: ClientStore, /, *args: P.args, **kwargs: P.kwargs) -> T:
        return run_inline(method(self._inline, *args, **kwargs))

    update_wrapper(call, method)
    return call


class ClientStore(RenamedMethods):
    """One collection on any `QdrantClient`; see `AsyncClientStore`, from which it is derived, and `Store`.

    Args:
        client: A client that is ready to use.
        collection: Name of the collection, or of an alias.
        retry: When to retry a request.
        sharding: Shards and replicas of a new collection; None uses the server's defaults.
        connect: Creates a client again at the first use after `close`. A store closes its client only if it has
            `connect`; otherwise the caller closes it.

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
        sharding: Sharding | None = None,
        connect: Callable[[], QdrantClient] | None = None,
    ) -> None:
        retry = retry or Retry()

        async def sleep(seconds: float) -> None:
            retry.sleep(seconds)

        self._inline = AsyncClientStore(
            _as_async(client),
            collection,
            retry=replace(retry, asleep=sleep),
            sharding=sharding,
            connect=None if connect is None else lambda: _as_async(connect()),
        )

    def __repr__(self) -> str:
        return f"ClientStore({self.location!r}, {self.collection!r})"

    @property
    def location(self) -> str:
        """Address of the server without user, password, key or query."""
        return self._inline.location

    @property
    def collection(self) -> str:
        """Name of the collection."""
        return self._inline.collection

    @property
    def folders(self) -> tuple[Path, ...]:
        """Empty: a server keeps its own files."""
        return ()

    exists = _blocking(AsyncClientStore.exists)
    create = _blocking(AsyncClientStore.create)
    meta = _blocking(AsyncClientStore.meta)
    layout = _blocking(AsyncClientStore.layout)
    set_metadata = _blocking(AsyncClientStore.set_metadata)
    upsert = _blocking(AsyncClientStore.upsert)
    update = _blocking(AsyncClientStore.update)
    delete = _blocking(AsyncClientStore.delete)
    retrieve = _blocking(AsyncClientStore.retrieve)
    search = _blocking(AsyncClientStore.search)
    count = _blocking(AsyncClientStore.count)
    create_index = _blocking(AsyncClientStore.create_index)
    indexes = _blocking(AsyncClientStore.indexes)
    aliases = _blocking(AsyncClientStore.aliases)
    set_alias = _blocking(AsyncClientStore.set_alias)
    drop_alias = _blocking(AsyncClientStore.drop_alias)
    drop = _blocking(AsyncClientStore.drop)
    optimize = _blocking(AsyncClientStore.optimize)
    close = _blocking(AsyncClientStore.close)

    def scroll(
        self, where: Filter | None = None, *, vectors: Sequence[VectorName] = (), fields: Sequence[str] | None = None
    ) -> Iterator[Point]:
        """Read every point that matches, ordered by id."""
        offset = None
        while True:
            points, offset = run_inline(self._inline.page(where, vectors, fields, offset))
            yield from points
            if offset is None:
                return

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


def _as_async(client: QdrantClient) -> AsyncQdrantClient:
    return cast("AsyncQdrantClient", _InlineClient(client))
