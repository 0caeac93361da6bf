"""Sizes of the worker pools, and whether they fit the cluster."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from ume_retrieval.errors import InputError

REASONERS_FOR_AN_EMBEDDER: Final = 7
"""A Reasoner writes hundreds of tokens per item, the Embedder reads once: most GPUs go to Reasoners."""


@dataclass(frozen=True, slots=True)
class WorkerPools:
    """Sizes of the worker pools. Comparing and decoding use the remaining CPUs.

    Attributes:
        embedders: Number of Embedders, one model each, >= 1.
        reasoners: Number of Reasoners, one model each, >= 1; not started without reasoning.
        writers: Concurrent writers to a server, >= 1; a directory always has one.
        embedder_gpus: GPUs per Embedder; a fraction shares one.
        reasoner_gpus: GPUs per Reasoner.
        cpus: CPUs that Ray reserves for a worker with a model.
        files_a_task: Files per reading and decoding task, >= 1; a task that dies is repeated.
        items_a_call: Items per call of a model, >= 1.

    Raises:
        InputError: When a number is out of range.

    Example:
        >>> WorkerPools.for_cluster({"CPU": 64.0, "GPU": 8.0}, reasoning=True)
        WorkerPools(embedders=1, reasoners=7, writers=2, embedder_gpus=1.0, reasoner_gpus=1.0, cpus=0.0, ...)
        >>> WorkerPools.for_cluster({"CPU": 2.0}, reasoning=True).cpus
        0.5
    """

    embedders: int = 1
    reasoners: int = 1
    writers: int = 2
    embedder_gpus: float = 0.0
    reasoner_gpus: float = 0.0
    cpus: float = 0.5
    files_a_task: int = 64
    items_a_call: int = 64

    def __post_init__(self) -> None:
        counts = (self.embedders, self.reasoners, self.writers, self.files_a_task, self.items_a_call)
        if min(counts) < 1 or min(self.embedder_gpus, self.reasoner_gpus, self.cpus) < 0:
            raise InputError(f"invalid pools: {self}", hint="pools and batches are at least 1, shares at least 0")

    @classmethod
    def for_cluster(cls, resources: Mapping[str, float], *, reasoning: bool) -> WorkerPools:
        """Fit pools to a cluster's GPUs; without GPUs, one model of each kind.

        Args:
            resources: Total "CPU" and "GPU", from `ray.cluster_resources()`.
            reasoning: Whether Reasoners are needed.
        """
        gpus = int(resources.get("GPU", 0))
        if gpus == 0:
            pools = 2 if reasoning else 1
            # Less than the CPU of a decoding task: otherwise Ray would fuse decoding into the actors.
            return cls(cpus=min(0.5, max(0.0, resources.get("CPU", 1) - 1) / pools))
        if not reasoning:
            return cls(embedders=gpus, embedder_gpus=1.0, cpus=0.0)
        if gpus == 1:
            return cls(embedder_gpus=0.5, reasoner_gpus=0.5, cpus=0.0)
        embedders = max(1, gpus // (REASONERS_FOR_AN_EMBEDDER + 1))
        return cls(embedders=embedders, reasoners=gpus - embedders, embedder_gpus=1.0, reasoner_gpus=1.0, cpus=0.0)

    def check(self, resources: Mapping[str, float], *, reasoning: bool) -> None:
        """Check that pools fit a cluster; otherwise they would wait for ever.

        Raises:
            InputError: When they do not fit.
        """
        reasoners = self.reasoners if reasoning else 0
        cpus = self.cpus * (self.embedders + reasoners) + 1
        gpus = self.embedder_gpus * self.embedders + self.reasoner_gpus * reasoners
        has_cpus, has_gpus = resources.get("CPU", 0.0), resources.get("GPU", 0.0)
        if cpus > has_cpus or gpus > has_gpus:
            raise InputError(
                f"the pools need {cpus:g} CPUs (one of them to decode) and {gpus:g} GPUs, the cluster has {has_cpus:g} "
                f"and {has_gpus:g}",
                hint="make the pools smaller, or start the machines first",
            )

    def embedder_options(self) -> dict[str, Any]:
        """Return the options of the Embedders' operator."""
        return self._actor(self.embedders, self.embedder_gpus)

    def reasoner_options(self) -> dict[str, Any]:
        """Return the options of the Reasoners' operator."""
        return self._actor(self.reasoners, self.reasoner_gpus)

    def _actor(self, size: int, gpus: float) -> dict[str, Any]:
        from ray.data import ActorPoolStrategy

        return {
            "compute": ActorPoolStrategy(size=size),
            "batch_size": 1,  # a group of `items_a_call` decoded items
            "num_cpus": self.cpus,
            "num_gpus": gpus,
        }
