"""How many workers do what, and whether the cluster has room for them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from ume_retrieval.errors import InputError

REASONERS_FOR_AN_EMBEDDER: Final = 7
"""A Reasoner writes hundreds of tokens an item, the Embedder reads once: most GPUs go to Reasoners."""


@dataclass(frozen=True, slots=True)
class Workers:
    """Sizes of the pools. Comparing and decoding take whatever CPUs are left; Ray schedules them.

    Attributes:
        embedders: Embedders, one model each, >= 1.
        reasoners: Reasoners, one model each, >= 1; none is started when nothing is reasoned over.
        writers: Workers that write to a server at the same time, >= 1; a directory always has one.
        embedder_gpus: GPUs of an Embedder; a fraction shares one.
        reasoner_gpus: GPUs of a Reasoner.
        cpus: CPUs that Ray sets aside for a worker with a model.
        files_a_task: Files that are read and decoded by one task, >= 1; a task that dies is done again.
        items_a_call: Items that a model gets at once, >= 1.

    Raises:
        InputError: When a number is out of range.

    Example:
        >>> Workers.for_cluster({"CPU": 64.0, "GPU": 8.0}, reasoning=True)
        Workers(embedders=1, reasoners=7, writers=2, embedder_gpus=1.0, reasoner_gpus=1.0, cpus=0.0, ...)
        >>> Workers.for_cluster({"CPU": 2.0}, reasoning=True).cpus
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
            raise InputError(f"{self} cannot work", hint="pools and batches are at least 1, shares at least 0")

    @classmethod
    def for_cluster(cls, resources: Mapping[str, float], *, reasoning: bool) -> Workers:
        """Pools that use a cluster's GPUs, or one model of each kind where there is none.

        Args:
            resources: "CPU" and "GPU" in all, as `ray.cluster_resources()` tells them.
            reasoning: Whether there is reasoning to do.
        """
        gpus = int(resources.get("GPU", 0))
        if gpus == 0:
            pools = 2 if reasoning else 1
            # Less than the whole CPU of a task that decodes: were they alike, Ray would decode in the actors.
            return cls(cpus=min(0.5, max(0.0, resources.get("CPU", 1) - 1) / pools))
        if not reasoning:
            return cls(embedders=gpus, embedder_gpus=1.0, cpus=0.0)
        if gpus == 1:
            return cls(embedder_gpus=0.5, reasoner_gpus=0.5, cpus=0.0)
        embedders = max(1, gpus // (REASONERS_FOR_AN_EMBEDDER + 1))
        return cls(embedders=embedders, reasoners=gpus - embedders, embedder_gpus=1.0, reasoner_gpus=1.0, cpus=0.0)

    def check(self, resources: Mapping[str, float], *, reasoning: bool) -> None:
        """Refuse pools that a cluster has no room for: they would wait for ever.

        Raises:
            InputError: Saying what is there and what is needed.
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
        """Options of the Embedders' operator."""
        return self._actor(self.embedders, self.embedder_gpus)

    def reasoner_options(self) -> dict[str, Any]:
        """Options of the Reasoners' operator."""
        return self._actor(self.reasoners, self.reasoner_gpus)

    def _actor(self, size: int, gpus: float) -> dict[str, Any]:
        from ray.data import ActorPoolStrategy

        return {
            "compute": ActorPoolStrategy(size=size),
            "batch_size": 1,  # a group of `items_a_call` decoded items
            "num_cpus": self.cpus,
            "num_gpus": gpus,
        }
