"""Where points go: a server that every worker talks to itself, or a directory that one actor holds for all."""

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
from ume_ray.failures import own_error
from ume_retrieval.errors import UmeError

PROPERTIES: Final = frozenset({"location", "collection", "folders"})
"""What a store says of itself without being called."""

DEFAULT_KEY_VARIABLE: Final = "QDRANT_API_KEY"


@dataclass(frozen=True, slots=True)
class StoreAddress:
    """A collection, named so that any worker can open it. It never holds the server's key.

    Attributes:
        location: A directory for Qdrant Edge, or the http(s) address of a Qdrant server.
        collection: Name of the collection.
        key_variable: Environment variable, on every machine, that holds the server's key.
        prefer_grpc: Talk gRPC to the server.
        sharding: How a server spreads a new collection over its nodes; None leaves it to the server.
    """

    location: str
    collection: str
    key_variable: str = DEFAULT_KEY_VARIABLE
    prefer_grpc: bool = False
    sharding: Sharding | None = None

    @property
    def on_server(self) -> bool:
        """Whether many processes may write at once."""
        return "://" in self.location

    def open(self) -> Store:
        """The store, in this process.

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


class Keeper:
    """Holds a directory's collection in a process of its own and does what others ask; runs as an actor.

    Every write may be repeated, so Ray may start it anew and ask again when it dies.
    """

    def __init__(self, address: StoreAddress) -> None:
        self._store = address.open()

    def ask(self, name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Read a property or call a method; what comes one by one is handed over as a list."""
        found = getattr(self._store, name)
        reply = found if name in PROPERTIES else found(*args, **kwargs)
        return list(reply) if isinstance(reply, Iterator) else reply


class KeptStore:
    """A store that a `Keeper` holds; has the methods of `ume_qdrant.Store`.

    Args:
        keeper: Handle of the actor.
    """

    def __init__(self, keeper: Any) -> None:
        self._keeper = keeper

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        if name in PROPERTIES:
            return self._ask(name)
        return lambda *args, **kwargs: self._ask(name, *args, **kwargs)

    def __reduce__(self) -> tuple[type[KeptStore], tuple[Any]]:
        return KeptStore, (self._keeper,)

    def _ask(self, name: str, *args: Any, **kwargs: Any) -> Any:
        import ray

        try:
            return ray.get(self._keeper.ask.remote(name, args, kwargs))
        except ray.exceptions.RayError as error:
            raise own_error(error) from None


@dataclass(frozen=True, slots=True)
class Shared:
    """A collection as workers get it.

    Attributes:
        address: Where it is.
        keeper: Handle of the actor that holds it; None for a server.
    """

    address: StoreAddress
    keeper: Any = None

    def store(self) -> Store:
        """The store for this process; a server's connections are kept between calls."""
        return _connected(self.address) if self.keeper is None else cast("Store", KeptStore(self.keeper))

    def let_go(self) -> None:
        """End the actor, so that other processes can open the directory at once."""
        if self.keeper is None:
            return
        import ray

        # It may be gone with the cluster, and with it its hold on the directory.
        with suppress(UmeError):
            self.store().close()
        ray.kill(self.keeper)


def share(address: StoreAddress) -> Shared:
    """Make a collection reachable for all workers.

    A directory is held by an actor on this machine, where the directory is. It takes no CPU of the cluster's: it waits
    most of the time.
    """
    if address.on_server:
        return Shared(address)
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    options = {"num_cpus": 0, "max_restarts": -1, "max_task_retries": -1, "scheduling_strategy": here}
    return Shared(address, ray.remote(Keeper).options(**options).remote(address))


@lru_cache(maxsize=4)
def _connected(address: StoreAddress) -> Store:
    return address.open()
