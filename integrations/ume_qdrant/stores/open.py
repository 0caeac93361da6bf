"""From what a person types to a store."""

from __future__ import annotations

import re
from pathlib import Path
from urllib.parse import urlsplit

from ume_qdrant.stores.async_store import AsyncStore, ThreadStore
from ume_qdrant.stores.base import Store
from ume_qdrant.stores.edge import EdgeStore
from ume_qdrant.stores.layout import Sharding
from ume_retrieval.errors import InputError
from ume_retrieval.util.retry import Retry


def open_store(
    location: str | Path,
    collection: str,
    *,
    api_key: str | None = None,
    prefer_grpc: bool = False,
    timeout_s: int = 60,
    retry: Retry | None = None,
    sharding: Sharding | None = None,
) -> Store:
    """A store on a directory or on a server; nothing is touched before its first use.

    Args:
        location: A directory for Qdrant Edge, or the http(s) address of a Qdrant server.
        collection: Name of the collection.
        api_key: Key of the server.
        prefer_grpc: Talk gRPC to the server, on its port 6334.
        timeout_s: Longest wait for one answer of the server, in seconds.
        retry: How patiently to try a busy or lost server again.
        sharding: How a server spreads a new collection over its nodes; None leaves it to the server.

    Raises:
        InputError: When the location is neither, leaves out http(s), or server settings come with a directory.

    Example:
        >>> open_store("/data/vectors", "films")
        EdgeStore('/data/vectors', 'films')
        >>> open_store("https://vectors.example.org", "films", api_key="secret")
        ClientStore('https://vectors.example.org:6333', 'films')
    """
    if not _is_server(location, has_settings=bool(api_key or prefer_grpc or sharding)):
        return EdgeStore(location, collection)

    from qdrant_client import QdrantClient  # costs most of a second that a directory does not need

    from ume_qdrant.stores.client import ClientStore  # as above

    def connect() -> QdrantClient:
        return QdrantClient(
            url=str(location), api_key=api_key, prefer_grpc=prefer_grpc, timeout=timeout_s, check_compatibility=False
        )

    return ClientStore(connect(), collection, retry=retry, connect=connect, sharding=sharding)


def open_async_store(
    location: str | Path,
    collection: str,
    *,
    api_key: str | None = None,
    prefer_grpc: bool = False,
    timeout_s: int = 60,
    retry: Retry | None = None,
) -> AsyncStore:
    """`open_store` for async code: a server is awaited, a directory is served by a worker thread.

    Arguments and errors are those of `open_store`.

    Example:
        >>> open_async_store("/data/vectors", "films")
        ThreadStore(EdgeStore('/data/vectors', 'films'))
        >>> open_async_store("https://vectors.example.org", "films", api_key="secret")
        AsyncClientStore('https://vectors.example.org:6333', 'films')
    """
    if not _is_server(location, has_settings=bool(api_key or prefer_grpc)):
        return ThreadStore(EdgeStore(location, collection))

    from qdrant_client import AsyncQdrantClient  # costs most of a second that a directory does not need

    from ume_qdrant.stores.async_client import AsyncClientStore  # as above

    def connect() -> AsyncQdrantClient:
        return AsyncQdrantClient(
            url=str(location), api_key=api_key, prefer_grpc=prefer_grpc, timeout=timeout_s, check_compatibility=False
        )

    return AsyncClientStore(connect(), collection, retry=retry, connect=connect)


PORT_ALONE = re.compile(r"(\[[0-9A-Fa-f:]+\]|[\w.-]+):\d{1,5}(/.*)?")


def _is_server(location: str | Path, *, has_settings: bool) -> bool:
    scheme = re.match(r"([A-Za-z][A-Za-z0-9+.-]+)://", str(location))
    if scheme is None:
        if has_settings:
            raise InputError(
                "an API key, gRPC and sharding go with a server, not with a directory",
                hint="leave them out, or give an address that begins with https://",
            )
        if str(location) == ":memory:":
            raise InputError("':memory:' is no place to keep vectors", hint="give a directory")
        if isinstance(location, str) and PORT_ALONE.fullmatch(location) and not Path(location).exists():
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
