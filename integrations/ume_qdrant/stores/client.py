"""A store behind a `QdrantClient`: a Qdrant server over HTTP or gRPC."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Final, Self, TypeVar
from urllib.parse import urlsplit

import grpc  # type: ignore[import-untyped]  # grpcio ships no types
import httpx
from pydantic import ValidationError
from qdrant_client import QdrantClient
from qdrant_client.common.client_exceptions import QdrantException, ResourceExhaustedResponse
from qdrant_client.http.exceptions import ApiException, ResponseHandlingException, UnexpectedResponse

from ume_qdrant.stores.base import USUAL, Point, Scored, Vector, VectorName
from ume_qdrant.stores.filters import Filter
from ume_qdrant.stores.layout import Effort, Layout, Sharding
from ume_qdrant.stores.operations import Asking, Nearest, Operations, Request
from ume_qdrant.stores.schema import CollectionMeta
from ume_qdrant.stores.steps import run
from ume_retrieval.errors import CollectionNotFound, StoreError, StoreMismatch, UmeError
from ume_retrieval.util.retry import Busy, Retry

REFUSALS: Final = (ApiException, QdrantException, grpc.RpcError, ValueError)
"""What a `QdrantClient` raises when a request fails; its in-memory engine raises ValueError."""

BUSY_STATUS: Final = frozenset({408, 425, 429, 502, 503, 504})
KEY_STATUS: Final = frozenset({401, 403})

STATUS_OF_CODE: Final = {
    "UNAVAILABLE": 503,
    "DEADLINE_EXCEEDED": 504,
    "RESOURCE_EXHAUSTED": 429,
    "UNAUTHENTICATED": 401,
    "PERMISSION_DENIED": 403,
    "NOT_FOUND": 404,
}
"""gRPC codes as the HTTP status of the same meaning."""

MAX_REASON: Final = 300


class BusyError(Busy, StoreError):
    """A server did not answer, or asked to be left alone for a while."""

    given_up: ClassVar[type[UmeError]] = StoreError


def describe(error: Exception, location: str, collection: str, api_key: str | None) -> StoreError:
    """Say what `error` means.

    Args:
        error: One of `REFUSALS`.
        location: Address of the server, without secrets.
        collection: The collection that was asked for.
        api_key: The key in use, so that it can be blotted out should an answer repeat it.

    Returns:
        `BusyError` when the request may be tried again, `CollectionNotFound`, `StoreMismatch` for a vector of another
        length, or a `StoreError` with a hint.
    """
    status, reason, wait_s = _read(error)
    if api_key:
        reason = reason.replace(api_key, "***")
    reason = " ".join(reason.split())[:MAX_REASON]
    if status is None:
        return BusyError(
            f"the store at {location} does not answer: {reason}", hint="check the address and that the server runs"
        )
    if status in BUSY_STATUS:
        return BusyError(
            f"the store at {location} is busy: {status} {reason}".rstrip(), hint="try again later", wait_s=wait_s
        )
    if status in KEY_STATUS:
        return StoreError(f"the store at {location} refused the API key ({status})", hint="pass the key of this server")
    if status == 404 and "ollection" in reason:
        return CollectionNotFound(f"{location} has no collection {collection!r}", hint="index something first")
    if "dimension error" in reason:
        return StoreMismatch(
            f"the store at {location} refused a vector: {reason}",
            hint="use the model that the collection was made with",
        )
    return StoreError(f"the store at {location} refused a request: {status} {reason}".rstrip())


def _read(error: Exception) -> tuple[int | None, str, float]:
    """HTTP status (None when nothing came back), the reason given and the seconds to wait."""
    if isinstance(error, ResourceExhaustedResponse):
        return 429, error.message, float(error.retry_after_s)
    if isinstance(error, UnexpectedResponse):
        return error.status_code, _reason(error.content) or error.reason_phrase, 0.0
    if isinstance(getattr(error, "source", error), (ValidationError, json.JSONDecodeError)):
        return 200, "the answer is not Qdrant's; is this the address of a Qdrant server?", 0.0
    if isinstance(error, ResponseHandlingException):
        return None, f"{type(error.source).__name__}: {error.source}", 0.0
    if isinstance(error, grpc.RpcError):
        code = error.code().name
        return STATUS_OF_CODE.get(code, 400), error.details() or code, 0.0
    return 404 if "not found" in str(error) else 400, str(error), 0.0


def _reason(content: bytes) -> str:
    try:
        return str(json.loads(content)["status"]["error"])
    except (ValueError, KeyError, TypeError):
        return content.decode("utf-8", "replace")


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
