"""A store behind a `QdrantClient`: a Qdrant server over HTTP or gRPC."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Self, TypeVar
from urllib.parse import urlsplit

import httpx
from qdrant_client import QdrantClient

from ume_qdrant.filters import Filter
from ume_qdrant.layout import Effort, Layout
from ume_qdrant.operations import Asking, Nearest, Operations, Request
from ume_qdrant.refusals import REFUSALS, describe
from ume_qdrant.schema import CollectionMeta
from ume_qdrant.sharding import Sharding
from ume_qdrant.steps import run
from ume_qdrant.store import USUAL, Point, Scored, Vector, VectorName
from ume_retrieval.retry import Retry

T = TypeVar("T")


class ClientStore:
    """One collection on any `QdrantClient`.

    Every write waits until the server has applied it. A lost connection, a time-out or a busy server is tried again;
    since all writes may be repeated, a request whose answer was lost does no harm. Collection metadata are Qdrant's own
    (server 1.16 and newer).

    Args:
        client: A client that is ready to use.
        collection: Name of the collection, or of an alias.
        retry: How patiently to try again.
        sharding: How a server spreads the collection when it is made; None leaves it to the server.
        connect: Makes such a client again, at the first use after `close`. Only a store that has it closes its client;
            by default the client stays the caller's.

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
        self._client = client
        self._collection = collection
        self._retry = retry or Retry()
        self._connect = connect
        self._closed = False
        self._closing = threading.Lock()
        options = client.init_options
        self._operations = Operations(
            collection, location_of(options), simulated=is_simulated(options), sharding=sharding
        )

    def __repr__(self) -> str:
        return f"ClientStore({self.location!r}, {self._collection!r})"

    @property
    def location(self) -> str:
        """Address of the server without user, password, key or query."""
        return location_of(self._client.init_options)

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
        return self._run(self._operations.exists())

    def create(self, meta: CollectionMeta, layout: Layout | None = None) -> None:
        """Make the collection; keep it when it is already there.

        Raises:
            StoreMismatch: When there is a collection of that name that was not made by this library, or has another
                layout.
            StoreError: Also when the server does not keep collection metadata (older than 1.16).
        """
        self._run(self._operations.create(meta, layout))

    def meta(self) -> CollectionMeta:
        """What the collection was made with."""
        return self._run(self._operations.facts()).meta

    def layout(self) -> Layout:
        """How the collection keeps its vectors."""
        return self._run(self._operations.facts()).layout

    def pin(self, meta: CollectionMeta) -> None:
        """Replace what the collection says of its models."""
        self._run(self._operations.pin(meta))

    def upsert(self, points: Sequence[Point]) -> None:
        """Write points whole."""
        self._run(self._operations.upsert(points))

    def update(self, points: Sequence[Point]) -> None:
        """Set vectors, then payload fields, of points that exist."""
        self._run(self._operations.update(points))

    def delete(self, ids: Sequence[str]) -> None:
        """Remove points."""
        self._run(self._operations.delete(ids))

    def retrieve(
        self, ids: Sequence[str], *, vectors: Sequence[VectorName] = (), fields: Sequence[str] | None = None
    ) -> list[Point]:
        """Read points by id."""
        return self._run(self._operations.retrieve(ids, vectors, fields))

    def scroll(
        self, where: Filter | None = None, *, vectors: Sequence[VectorName] = (), fields: Sequence[str] | None = None
    ) -> Iterator[Point]:
        """Read every point that matches, ordered by id."""
        offset = None
        while True:
            page = self._run(self._operations.page(where, vectors, fields, offset))
            yield from page.points
            offset = page.offset
            if offset is None:
                return

    def search(
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
        return self._run(self._operations.search(Nearest(name, vector, limit, where, effort, fields)))

    def count(self, where: Filter | None = None) -> int:
        """How many points match."""
        return self._run(self._operations.count(where))

    def aliases(self) -> dict[str, str]:
        """Every alias of the server, with the collection it names."""
        return self._run(self._operations.aliases())

    def point_alias(self, alias: str) -> str | None:
        """Let `alias` name this collection, at once, and return what it named before."""
        return self._run(self._operations.point_alias(alias))

    def drop_alias(self, alias: str) -> None:
        """Forget an alias."""
        self._run(self._operations.drop_alias(alias))

    def drop(self) -> None:
        """Remove the collection with its points and aliases."""
        self._run(self._operations.drop())

    def optimize(self) -> None:
        """Nothing to do: a server optimises its collections by itself, in the background."""

    def close(self) -> None:
        """Close the client when it is this store's own; the next use makes another one."""
        with self._closing:
            if self._connect is not None and not self._closed:
                self._closed = True
                self._client.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def _run(self, steps: Asking[T]) -> T:
        return run(steps, self._answer)

    def _answer(self, request: Request) -> Any:
        def once() -> Any:
            with self._closing:
                if self._closed and self._connect is not None:
                    self._client, self._closed = self._connect(), False
            try:
                return getattr(self._client, request.method)(*request.args, **request.kwargs)
            except REFUSALS as error:
                # `from None`: an answer may repeat what was sent, and the cause would show it.
                raise describe(error, self.location, self._collection, self._client.init_options["api_key"]) from None

        return self._retry.call(once)


def location_of(options: Mapping[str, Any]) -> str:
    """Where a client's server is, without user, password, key or query, from the options the client was made with."""
    if is_simulated(options):
        return str(options["path"] or options["location"])
    address = str(options["url"] or options["location"] or f"http://{options['host'] or 'localhost'}")
    url = httpx.URL(address)
    # httpx leaves out a port that is the scheme's own, and the client talks to it all the same.
    number = urlsplit(address).port or options["port"]
    port = f":{number}" if number else ""
    return f"{url.scheme}://{url.host}{port}{url.path.rstrip('/')}"


def is_simulated(options: Mapping[str, Any]) -> bool:
    """Whether the client answers by itself, without a server."""
    return bool(options["path"]) or options["location"] == ":memory:"
