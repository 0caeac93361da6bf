"""The dry run: what a recipe would do here, what it would take, and what is missing."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ume_training.recipes.planning.estimates import Setting, StagePlan, estimate
from ume_training.recipes.planning.memory import HEADROOM
from ume_training.recipes.planning.missing import Machine, Missing, find_missing
from ume_training.recipes.schema import Recipe


@dataclass(frozen=True, slots=True)
class Plan:
    """Plan of a recipe.

    Attributes:
        recipe: Its name.
        stages: In order.
        pairs: How many pairs its data holds, or None while that is not known.
        missing: What would stop it here.
    """

    recipe: str
    stages: tuple[StagePlan, ...]
    pairs: int | None
    missing: tuple[Missing, ...]

    @property
    def minutes(self) -> float | None:
        """Time of the stages whose rate was measured, None if none was."""
        known = [stage.seconds for stage in self.stages if stage.seconds is not None]
        return sum(known) / 60 if known else None

    def to_dict(self) -> dict[str, Any]:
        """The JSON form."""
        return {
            "recipe": self.recipe,
            "pairs": self.pairs,
            "stages": [stage.to_dict() for stage in self.stages],
            "minutes_measured": None if self.minutes is None else round(self.minutes, 1),
            "memory_headroom": HEADROOM,
            "missing": [asdict(one) for one in self.missing],
        }


def plan_recipe(
    recipe: Recipe,
    run: Path,
    *,
    gpu_bytes: int | None = None,
    processes: int = 1,
    shards: int = 1,
    machine: Machine | None = None,
) -> Plan:
    """Look at a recipe without running it; nothing is fetched, loaded or written.

    Args:
        recipe: What to look at.
        run: Where it would run, for disk space.
        gpu_bytes: Plan for GPUs of this size; None takes this machine's.
        processes: How many processes would share a step.
        shards: Over how many of them gradients and optimizer are divided: all with ZeRO-2, 1 with DDP.
        machine: What there is to run on; None looks here.
    """
    found = machine or Machine.here(run)
    if gpu_bytes is not None:
        found = Machine(gpu_bytes, found.disk)
    pairs = count_pairs(recipe)
    # The small pair runs on the CPU in float32; real models are planned as on a GPU, wherever the plan is made.
    number_bytes = 4 if recipe.data.shapes and not found.gpu else 2
    setting = Setting(recipe, pairs, processes, shards, found.gpu, number_bytes)
    stages = tuple(estimate(stage, setting) for stage in recipe.stages)
    return Plan(recipe.name, stages, pairs, find_missing(recipe, stages, found))


def count_pairs(recipe: Recipe) -> int | None:
    """Pairs that the recipe's data holds, or None while a file is not there."""
    if recipe.data.shapes is not None:
        from ume_training.shapes.tasks import TASKS

        return recipe.data.shapes.pairs * len(TASKS)
    if not all(Path(path).exists() for path in recipe.data.pairs):
        return None
    from ume_training.data.files import count_lines

    return sum(count_lines(Path(path)) for path in recipe.data.pairs)
