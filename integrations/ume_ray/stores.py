"""Open the store in workers: each connects to a server, but a directory is held by one actor for all."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final, cast

from ume_qdrant.stores.base import Store
from ume_qdrant.stores.layout import Sharding
from ume_qdrant.stores.open import open_store
from ume_ray.cluster import own_error
from ume_retrieval.errors import UmeError

PROPERTIES: Final = frozenset({"location", "collection", "folders"})
"""Properties, not methods, of a store."""

DEFAULT_KEY_VARIABLE: Final = "QDRANT_API_KEY"


@dataclass(frozen=True, slots=True)
class StoreAddress:
    """Address of a collection that any worker can open; never holds the server's key.

    Attributes:
        location: A directory for Qdrant Edge, or the http(s) address of a Qdrant server.
        collection: Name of the collection.
        key_variable: Environment variable, on every machine, that holds the server's key.
        prefer_grpc: Use gRPC.
        sharding: Shards and replicas of a new collection; None leaves them to the server.
    """

    location: str
    collection: str
    key_variable: str = DEFAULT_KEY_VARIABLE
    prefer_grpc: bool = False
    sharding: Sharding | None = None

    @property
    def on_server(self) -> bool:
        """Whether the location is a server, which many processes may write to."""
        return "://" in self.location

    def open(self) -> Store:
        """Open the store in this process.

        Raises:
            InputError: When the location is neither directory nor server.
        """
        return open_store(
            self.location,
            self.collection,
            api_key=os.environ.get(self.key_variable) if self.on_server else None,
            prefer_grpc=self.prefer_grpc,
            sharding=self.sharding,
        )


class StoreActor:
    """Actor that opens a directory's collection and executes calls for other processes.

    Writes are idempotent, so Ray may restart it and repeat a call.
    """

    def __init__(self, address: StoreAddress) -> None:
        self._store = address.open()

    def call(self, name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Read a property or call a method; an iterator is returned as a list."""
        found = getattr(self._store, name)
        reply = found if name in PROPERTIES else found(*args, **kwargs)
        return list(reply) if isinstance(reply, Iterator) else reply


class StoreProxy:
    """Proxy of the store in a `StoreActor`, with the methods of `ume_qdrant.Store`."""

    def __init__(self, actor: Any) -> None:
        self._actor = actor

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        if name in PROPERTIES:
            return self._call(name)
        return lambda *args, **kwargs: self._call(name, *args, **kwargs)

    def __reduce__(self) -> tuple[type[StoreProxy], tuple[Any]]:
        return StoreProxy, (self._actor,)

    def _call(self, name: str, *args: Any, **kwargs: Any) -> Any:
        import ray

        try:
            return ray.get(self._actor.call.remote(name, args, kwargs))
        except ray.exceptions.RayError as error:
            raise own_error(error) from None


@dataclass(frozen=True, slots=True)
class Shared:
    """A collection that all workers use; `actor` holds a directory, and is None for a server."""

    address: StoreAddress
    actor: Any = None

    def store(self) -> Store:
        """Return the store for this process; connections to a server are reused between calls."""
        return _connected(self.address) if self.actor is None else cast("Store", StoreProxy(self.actor))

    def close(self) -> None:
        """End the actor, so that other processes can open the directory."""
        if self.actor is None:
            return
        import ray

        # It may have ended with the cluster, which releases the directory too.
        with suppress(UmeError):
            self.store().close()
        ray.kill(self.actor)


def share(address: StoreAddress) -> Shared:
    """Make a collection available to all workers; a directory gets an actor on this machine, which reserves no CPU."""
    if address.on_server:
        return Shared(address)
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    options = {"num_cpus": 0, "max_restarts": -1, "max_task_retries": -1, "scheduling_strategy": here}
    return Shared(address, ray.remote(StoreActor).options(**options).remote(address))


@lru_cache(maxsize=4)
def _connected(address: StoreAddress) -> Store:
    return address.open()
