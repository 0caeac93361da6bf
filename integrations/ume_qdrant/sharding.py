"""How a server spreads a collection over its nodes."""

from __future__ import annotations

from dataclasses import dataclass

from ume_retrieval.errors import InputError


@dataclass(frozen=True, slots=True)
class Sharding:
    """Shards and copies of a new collection on a Qdrant cluster. An existing collection keeps its own.

    Attributes:
        shards: Parts of the collection, >= 1, spread over the nodes; a multiple of the nodes loads them alike. None
            leaves it to the server (one a node).
        replicas: Copies of each shard, >= 1; with 2, a node may be lost. None leaves it to the server (one).
        write_consistency: Copies that must have a write before it counts, >= 1. None leaves it to the server (one).

    Raises:
        InputError: When a number is not positive.

    Example:
        >>> Sharding(shards=12, replicas=2).options()
        {'shard_number': 12, 'replication_factor': 2}
    """

    shards: int | None = None
    replicas: int | None = None
    write_consistency: int | None = None

    def __post_init__(self) -> None:
        if any(number is not None and number < 1 for number in (self.shards, self.replicas, self.write_consistency)):
            raise InputError(f"{self}: every number is at least 1")

    def options(self) -> dict[str, int]:
        """As `QdrantClient.create_collection` takes them."""
        named = {
            "shard_number": self.shards,
            "replication_factor": self.replicas,
            "write_consistency_factor": self.write_consistency,
        }
        return {name: number for name, number in named.items() if number is not None}
