"""How a collection keeps its vectors, and how hard a search looks: quantization, truncated vectors, rescoring."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Final, Literal, TypeAlias, get_args

from ume_retrieval.errors import InputError, StoreMismatch

Quantization: TypeAlias = Literal["scalar", "binary", "product"]
"""`scalar` keeps 8 bits a value (4 times smaller), `binary` one (32 times), `product` codes groups of values (16)."""

Place: TypeAlias = Literal["memory", "disk"]
"""Where the full vectors are held; they are on disk in any case, `memory` also keeps them in the page cache or RAM."""

SHORT: Final = "_short"
"""Ending of the names of truncated vectors: `direct_short`, `reasoned_short`."""


@dataclass(frozen=True, slots=True)
class Layout:
    """How a collection keeps its vectors. It is chosen when the collection is made.

    A search has two stages where the layout has a compact form. The first looks through the compact vectors (truncated,
    quantized, or both: then the truncated ones are quantized) for more candidates than it needs. The second scores
    those by the full vectors. So scores are cosines of full vectors in every layout.

    Attributes:
        short: Values of the truncated vectors, 1 to the dimension; None keeps none. Made for Embedders that were
            trained so that the beginning of a vector stands for the whole (Matryoshka representation learning,
            arXiv 2205.13147); with others the first stage misses more.
        quantization: Of the vectors that are looked through first; None keeps them as float32.
        full: Where full vectors are held. "disk" saves memory where a compact form does most of the work.

    Raises:
        InputError: When a value is unknown.

    Example:
        >>> Layout(short=256, quantization="scalar", full="disk").compact
        True
    """

    short: int | None = None
    quantization: Quantization | None = None
    full: Place = "memory"

    def __post_init__(self) -> None:
        if self.quantization is not None and self.quantization not in get_args(Quantization):
            raise InputError(f"unknown quantization {self.quantization!r}", hint="use scalar, binary or product")
        if self.full not in get_args(Place):
            raise InputError(f"unknown place {self.full!r} for full vectors", hint="use memory or disk")

    @property
    def compact(self) -> bool:
        """Whether there is a compact form that a search looks through first."""
        return self.short is not None or self.quantization is not None

    def check(self, dimension: int) -> None:
        """Refuse truncated vectors that are not shorter than the full ones.

        Raises:
            InputError: Naming both lengths.
        """
        if self.short is not None and not 1 <= self.short < dimension:
            raise InputError(
                f"truncated vectors of {self.short} values for full ones of {dimension}",
                hint=f"use 1 to {dimension - 1} values",
            )

    def match(self, wanted: Layout | None, collection: str) -> None:
        """Refuse a layout that an existing collection has not.

        Raises:
            StoreMismatch: Naming both; a wish of None matches every layout.
        """
        if wanted is not None and wanted != self:
            raise StoreMismatch(
                f"collection {collection!r} has {self}, not {wanted}",
                hint="index into a collection of another name, then let an alias name it",
            )

    def to_dict(self) -> dict[str, Any]:
        """As JSON values, under one key beside the collection's other metadata."""
        return {"ume_layout": asdict(self)}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any] | None, collection: str) -> Layout:
        """Read what `to_dict` wrote; a collection that says nothing has the plain layout.

        Raises:
            StoreMismatch: When a newer version wrote something else.
        """
        try:
            return cls(**dict((data or {}).get("ume_layout", {})))
        except (TypeError, ValueError, InputError) as error:
            raise StoreMismatch(
                f"collection {collection!r} has a layout that this version does not know",
                hint="use the version that made it, or newer",
            ) from error

    def __str__(self) -> str:
        parts = [f"truncated vectors of {self.short}" if self.short else "", self.quantization or ""]
        form = " and ".join(filter(None, (parts[0], f"{parts[1]} quantization" if parts[1] else "")))
        return f"{form or 'full vectors'}{' on disk' if self.full == 'disk' else ''}"


@dataclass(frozen=True, slots=True)
class Effort:
    """How hard a search looks.

    Attributes:
        exact: Compare with every full vector; no index, no compact form. Slow on large collections, misses nothing.
        oversampling: Candidates of the first stage for each one that is wanted, >= 1; of no effect on plain layouts.
        ef: Size of the candidate list in the HNSW index; None leaves it to the engine.

    Raises:
        InputError: When a number is out of range.
    """

    exact: bool = False
    oversampling: float = 4.0
    ef: int | None = None

    def __post_init__(self) -> None:
        if self.oversampling < 1 or (self.ef is not None and self.ef < 1):
            raise InputError(f"oversampling {self.oversampling} and ef {self.ef} are at least 1")

    def candidates(self, limit: int) -> int:
        """Points that the first stage hands on when `limit` are wanted.

        Example:
            >>> Effort(oversampling=2.5).candidates(3)
            8
        """
        return -int(-limit * self.oversampling // 1)


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
