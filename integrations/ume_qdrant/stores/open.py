"""Open a store by its location."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, Final, TypedDict, Unpack
from urllib.parse import urlsplit

from ume_qdrant.stores.async_store import AsyncStore, ThreadStore
from ume_qdrant.stores.base import Store
from ume_qdrant.stores.edge import EdgeStore
from ume_qdrant.stores.layout import Sharding
from ume_retrieval.errors import InputError
from ume_retrieval.util.retry import Retry

WITHOUT_SCHEME: Final = re.compile(r"(\[[0-9A-Fa-f:]+\]|[\w.-]+):\d{1,5}(/.*)?")
"""A server's address without http(s)://, which could be taken for a directory."""


class ServerOptions(TypedDict, total=False):
    """Options for a Qdrant server.

    Attributes:
        api_key: Key of the server.
        prefer_grpc: Use gRPC, on the server's port 6334.
        timeout_s: Longest wait for one answer in seconds, 60 by default.
        retry: When to retry a request after a lost connection or a busy answer.
        sharding: Shards and replicas of a new collection; None uses the server's defaults.
    """

    api_key: str | None
    prefer_grpc: bool
    timeout_s: int
    retry: Retry | None
    sharding: Sharding | None


def open_store(location: str | Path, collection: str, **options: Unpack[ServerOptions]) -> Store:
    """Open a store on a directory or a server; nothing is read before its first use.

    Args:
        location: A directory for Qdrant Edge, or the http(s) address of a Qdrant server.
        collection: Name of the collection.
        **options: For servers; see `ServerOptions`: `api_key`, `prefer_grpc`, `timeout_s`, `retry`, `sharding`.

    Raises:
        InputError: If the location is neither, lacks its http(s) scheme, or server options are given for a directory.

    Example:
        >>> open_store("/data/vectors", "films")
        EdgeStore('/data/vectors', 'films')
        >>> open_store("https://vectors.example.org", "films", api_key="secret")
        ClientStore('https://vectors.example.org:6333', 'films')
    """
    if not _is_server(location, options):
        return EdgeStore(location, collection)

    from qdrant_client import QdrantClient  # takes most of a second, which a directory does not need

    from ume_qdrant.stores.client import ClientStore  # as above

    def connect() -> QdrantClient:
        return QdrantClient(**_client_arguments(location, options))

    sharding, retry = options.get("sharding"), options.get("retry")
    return ClientStore(connect(), collection, retry=retry, sharding=sharding, connect=connect)


def open_async_store(location: str | Path, collection: str, **options: Unpack[ServerOptions]) -> AsyncStore:
    """Open a store for async code: a server is awaited, a directory is served by a worker thread.

    Arguments and errors are those of `open_store`.

    Example:
        >>> open_async_store("/data/vectors", "films")
        ThreadStore(EdgeStore('/data/vectors', 'films'))
        >>> open_async_store("https://vectors.example.org", "films", api_key="secret")
        AsyncClientStore('https://vectors.example.org:6333', 'films')
    """
    if not _is_server(location, options):
        return ThreadStore(EdgeStore(location, collection))

    from qdrant_client import AsyncQdrantClient  # as above

    from ume_qdrant.stores.async_client import AsyncClientStore  # as above

    def connect() -> AsyncQdrantClient:
        return AsyncQdrantClient(**_client_arguments(location, options))

    sharding, retry = options.get("sharding"), options.get("retry")
    return AsyncClientStore(connect(), collection, retry=retry, sharding=sharding, connect=connect)


def _client_arguments(location: str | Path, options: ServerOptions) -> dict[str, Any]:
    return {
        "url": str(location),
        "api_key": options.get("api_key"),
        "prefer_grpc": options.get("prefer_grpc", False),
        "timeout": options.get("timeout_s", 60),
        "check_compatibility": False,
    }


def _is_server(location: str | Path, options: ServerOptions) -> bool:
    if unknown := options.keys() - ServerOptions.__optional_keys__:
        raise InputError(
            f"a store has no option {', '.join(sorted(unknown))}",
            hint=f"use {', '.join(sorted(ServerOptions.__optional_keys__))}",
        )
    scheme = re.match(r"([A-Za-z][A-Za-z0-9+.-]+)://", str(location))
    if scheme is None:
        if options.get("api_key") or options.get("prefer_grpc") or options.get("sharding"):
            raise InputError(
                "an API key, gRPC and sharding need a server, not a directory",
                hint="leave them out, or give an address that begins with https://",
            )
        if str(location) == ":memory:":
            raise InputError("':memory:' cannot store vectors", hint="give a directory")
        if isinstance(location, str) and WITHOUT_SCHEME.fullmatch(location) and not Path(location).exists():
            raise InputError(
                f"{location} looks like a server, but names no protocol",
                hint=f"write http://{location} or https://{location}, or ./{location} for a directory",
            )
        return False
    if scheme[1].lower() not in {"http", "https"}:
        raise InputError(f"a store is a directory or an http(s) address, not {scheme[1]}://…")
    try:
        address = urlsplit(str(location))
        named = bool(address.hostname) and address.port != 0
    except ValueError:
        named = False
    if not named:
        raise InputError("the store's address names no server", hint="write it as in https://vectors.example.org:6333")
    return True
