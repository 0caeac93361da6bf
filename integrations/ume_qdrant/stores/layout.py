"""How a collection stores its points (quantization, truncation, tenants, shards), and how thoroughly it is searched."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import InitVar, dataclass
from typing import Any, Final, Literal, TypeAlias, get_args

from ume_qdrant.stores.metadata import clean_name
from ume_retrieval.errors import InputError, StoreMismatch

Quantization: TypeAlias = Literal["scalar", "binary", "product"]
"""`scalar` stores 8 bits per value (4 times smaller), `binary` 1 bit (32), `product` codes groups of values (16)."""

TRUNCATED: Final = "_short"
"""Suffix of the names of truncated vectors: `direct_short`, `reasoned_short`."""


@dataclass(frozen=True, slots=True)
class Layout:
    """How a collection stores its points; chosen when the collection is created.

    If the layout has a compact form (truncated vectors, quantized vectors, or both: then the truncated ones are
    quantized), a search has two stages. The first compares compact vectors and returns more candidates than needed;
    the second rescores them with the full vectors. Scores are therefore cosines of full vectors in every layout.

    Attributes:
        matryoshka_dim: Length of the truncated vectors, 1 to dimension - 1; None stores none. Use it with Embedders
            trained with Matryoshka representation learning (arXiv 2205.13147), whose first values are a good vector by
            themselves; with other Embedders the first stage misses more.
        quantization: Quantization of the vectors of the first stage; None keeps float32.
        on_disk: Keep full vectors on disk only instead of also in memory. Saves memory if there is a compact form.
        short: Deprecated name of `matryoshka_dim`.
        full: Deprecated: "disk" for `on_disk=True`, "memory" for False.
        tenant: Key of metadata that names the tenant of a point, such as "customer"; None if there are no tenants.
            With tenants, every point needs that key with a text, and every search, scroll and count chooses a tenant
            (`Filter.tenant`). Points are found by id in any tenant.

    Raises:
        InputError: If a value is unknown.

    Example:
        >>> Layout(matryoshka_dim=256, quantization="scalar", on_disk=True).compact
        True
    """

    matryoshka_dim: int | None = None
    quantization: Quantization | None = None
    on_disk: bool = False
    short: InitVar[int | None] = None
    full: InitVar[str | None] = None
    tenant: str | None = None

    def __post_init__(self, short: int | None, full: str | None) -> None:
        if short is not None or full is not None:
            warnings.warn(
                "Layout(short=…, full=…) is deprecated: use matryoshka_dim and on_disk",
                DeprecationWarning,
                stacklevel=3,
            )
            if full not in {None, "memory", "disk"}:
                raise InputError(f"unknown place {full!r} for full vectors", hint="use on_disk=True or False")
            object.__setattr__(self, "matryoshka_dim", short if short is not None else self.matryoshka_dim)
            object.__setattr__(self, "on_disk", full == "disk" or self.on_disk)
        if self.quantization is not None and self.quantization not in get_args(Quantization):
            raise InputError(f"unknown quantization {self.quantization!r}", hint="use scalar, binary or product")
        if not isinstance(self.on_disk, bool):
            raise InputError(f"unknown place {self.on_disk!r} for full vectors", hint="use on_disk=True or False")
        if self.tenant is not None:
            clean_name(self.tenant)

    @property
    def compact(self) -> bool:
        """Whether a search compares compact vectors first."""
        return self.matryoshka_dim is not None or self.quantization is not None

    def check(self, dimension: int) -> None:
        """Raise unless truncated vectors are shorter than full ones.

        Raises:
            InputError: With both lengths.
        """
        if self.matryoshka_dim is not None and not 1 <= self.matryoshka_dim < dimension:
            raise InputError(
                f"truncated vectors of {self.matryoshka_dim} values for full ones of {dimension}",
                hint=f"use 1 to {dimension - 1} values",
            )

    def match(self, wanted: Layout | None, collection: str) -> None:
        """Raise unless the collection has the wanted layout; None matches every layout.

        Raises:
            StoreMismatch: With both layouts.
        """
        if wanted is not None and wanted != self:
            raise StoreMismatch(
                f"collection {collection!r} has {self}, not {wanted}",
                hint="index into a collection of another name, then point an alias at it",
            )

    def to_dict(self) -> dict[str, Any]:
        """Return JSON values under one key, to be stored with the collection's other metadata."""
        place = "disk" if self.on_disk else "memory"
        stored = {"short": self.matryoshka_dim, "quantization": self.quantization, "full": place}
        if self.tenant is not None:  # unknown to former versions, which then do not open the collection
            stored["tenant"] = self.tenant
        return {"ume_layout": stored}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any] | None, collection: str) -> Layout:
        """Read what `to_dict` wrote; without it the collection has the plain layout.

        Raises:
            StoreMismatch: If a newer version wrote values that this one does not know.
        """
        stored = dict((data or {}).get("ume_layout", {}))
        try:
            place = {"memory": False, "disk": True}[stored.pop("full", "memory")]
            return cls(matryoshka_dim=stored.pop("short", None), on_disk=place, **stored)
        except (KeyError, TypeError, ValueError, InputError) as error:
            raise StoreMismatch(
                f"collection {collection!r} has a layout that this version does not know",
                hint="use the version that created it, or a newer one",
            ) from error

    def __str__(self) -> str:
        parts = [
            f"truncated vectors of {self.matryoshka_dim}" if self.matryoshka_dim else "",
            f"{self.quantization} quantization" if self.quantization else "",
        ]
        form = " and ".join(filter(None, parts))
        tenants = f", tenants by {self.tenant!r}" if self.tenant else ""
        return f"{form or 'full vectors'}{' on disk' if self.on_disk else ''}{tenants}"


@dataclass(frozen=True, slots=True)
class SearchEffort:
    """How thoroughly a collection is searched.

    Attributes:
        exact: Compare with every full vector, without index or compact form. Misses nothing; slow on large collections.
        oversampling: Candidates of the first stage per wanted hit, >= 1; ignored by plain layouts.
        ef: Size of the candidate list in the HNSW index; None uses the engine's default.

    Raises:
        InputError: If a number is out of range.
    """

    exact: bool = False
    oversampling: float = 4.0
    ef: int | None = None

    def __post_init__(self) -> None:
        if self.oversampling < 1 or (self.ef is not None and self.ef < 1):
            raise InputError(f"oversampling {self.oversampling} and ef {self.ef} must be at least 1")

    def candidates(self, limit: int) -> int:
        """Return how many candidates the first stage passes on for `limit` hits.

        Example:
            >>> SearchEffort(oversampling=2.5).candidates(3)
            8
        """
        return -int(-limit * self.oversampling // 1)


DEFAULT_EFFORT: Final = SearchEffort()


@dataclass(frozen=True, slots=True)
class Sharding:
    """Shards and replicas of a new collection on a Qdrant cluster. An existing collection keeps its own.

    Attributes:
        shards: Parts of the collection, >= 1, spread over the nodes; a multiple of the number of nodes balances their
            load. None uses the server's default (one per node).
        replicas: Copies of each shard, >= 1; with 2 a node may fail. None uses the server's default (one).
        write_consistency: Copies that must confirm a write, >= 1. None uses the server's default (one).

    Raises:
        InputError: If a number is not positive.

    Example:
        >>> Sharding(shards=12, replicas=2).options()
        {'shard_number': 12, 'replication_factor': 2}
    """

    shards: int | None = None
    replicas: int | None = None
    write_consistency: int | None = None

    def __post_init__(self) -> None:
        if any(number is not None and number < 1 for number in (self.shards, self.replicas, self.write_consistency)):
            raise InputError(f"{self}: every number must be at least 1")

    def options(self) -> dict[str, int]:
        """Return keyword arguments of `QdrantClient.create_collection`."""
        named = {
            "shard_number": self.shards,
            "replication_factor": self.replicas,
            "write_consistency_factor": self.write_consistency,
        }
        return {name: number for name, number in named.items() if number is not None}
