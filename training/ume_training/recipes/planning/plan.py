"""Dry run of a recipe: its steps, its cost, and missing requirements."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

from ume_retrieval.engines.registry import HUB_ID
from ume_training.recipes.inputs import models_of
from ume_training.recipes.planning.estimates import Setting, StagePlan, estimate
from ume_training.recipes.planning.memory import GB, HEADROOM
from ume_training.recipes.planning.sizes import model_behind
from ume_training.recipes.schema import Recipe
from ume_training.recipes.stages import MADE_BY, ContrastiveStage, EgrlStage, Stage

INSTALL = "pip install 'ume-retrieval[train]'"
PACKAGES: dict[type[Stage], tuple[str, ...]] = {
    ContrastiveStage: ("sentence_transformers", "peft", "accelerate", "datasets"),
    EgrlStage: ("trl", "peft", "accelerate", "datasets"),
}
"""Packages that a kind of stage imports beyond the library's own."""

LARGE = 3 * 10**8
"""Parameters above which a model wants a GPU."""


@dataclass(frozen=True, slots=True)
class Missing:
    """One thing that is not there.

    Attributes:
        kind: What sort of thing.
        what: Which one.
        fix: What to do.
    """

    kind: Literal["file", "package", "model", "gpu", "disk"]
    what: str
    fix: str


@dataclass(frozen=True, slots=True)
class Machine:
    """GPU memory and disk space.

    Attributes:
        gpu: Memory of each GPU in bytes; 0 without one.
        disk: Free bytes where the run folder will be.
    """

    gpu: int
    disk: int

    @classmethod
    def here(cls, run: Path) -> Machine:
        """This machine."""
        import torch

        gpu = torch.cuda.get_device_properties(0).total_memory if torch.cuda.is_available() else 0
        place = run.resolve()
        while not place.exists():
            place = place.parent
        return cls(gpu, shutil.disk_usage(place).free)


def find_missing(recipe: Recipe, plans: Sequence[StagePlan], machine: Machine) -> tuple[Missing, ...]:
    """Return everything that would stop the recipe here, each named once, in the order of the stages.

    Args:
        recipe: What is to be run.
        plans: Its stages' estimates.
        machine: What there is to run on.
    """
    found = [*_files(recipe), *_packages(recipe), *_models(recipe), *_gpu(plans, machine), *_disk(plans, machine)]
    return tuple(dict.fromkeys(found))


def _files(recipe: Recipe) -> Iterator[Missing]:
    for path in recipe.data.pairs:
        if not Path(path).exists():
            yield Missing("file", path, "write it with `ume train convert`, or correct `data.pairs`")


def _packages(recipe: Recipe) -> Iterator[Missing]:
    for stage in recipe.stages:
        for name in PACKAGES.get(type(stage), ()):
            if find_spec(name) is None:
                yield Missing("package", name, INSTALL)
        if isinstance(stage, EgrlStage) and stage.settings.generation == "vllm" and find_spec("vllm") is None:
            yield Missing("package", "vllm", "pip install vllm (it pins older packages: use an environment of its own)")


def _models(recipe: Recipe) -> Iterator[Missing]:
    for stage in recipe.stages:
        for model in models_of(stage):
            name = model.name
            if name.startswith(MADE_BY):
                continue
            behind = model_behind(name)
            if Path(behind).is_dir():
                continue
            if HUB_ID.fullmatch(behind) and behind[0] not in ".~":
                if not _is_cached(behind):
                    yield Missing("model", behind, f"hf download {behind}, or let the first run fetch it")
            else:
                yield Missing("model", name, f"correct {stage.name}.{model.key}")


def _is_cached(hub_id: str) -> bool:
    from huggingface_hub import try_to_load_from_cache

    return isinstance(try_to_load_from_cache(hub_id, "config.json"), str)


def _gpu(plans: Sequence[StagePlan], machine: Machine) -> Iterator[Missing]:
    for plan in plans:
        if plan.memory is None or (plan.model or 0) < LARGE:
            continue
        need = plan.memory.total * HEADROOM
        if not machine.gpu:
            yield Missing("gpu", f"{plan.name} wants a GPU with {need / GB:.0f} GB", "run it where there is one")
        elif need > machine.gpu:
            yield Missing(
                "gpu",
                f"{plan.name} wants {need / GB:.0f} GB on each GPU, and there are {machine.gpu / GB:.0f}",
                "lower micro_batch or mini_batch, use lora or gradient_checkpointing, or share over GPUs with ZeRO-2",
            )


def _disk(plans: Sequence[StagePlan], machine: Machine) -> Iterator[Missing]:
    need = sum(plan.disk for plan in plans)
    if need > machine.disk:
        yield Missing("disk", f"{need / GB:.0f} GB, and {machine.disk / GB:.0f} GB are free", "choose another --run")


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
        """Return the JSON form."""
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
    """Return pairs that the recipe's data holds, or None while a file is not there."""
    if recipe.data.shapes is not None:
        from ume_training.shapes.tasks import TASKS

        return recipe.data.shapes.pairs * len(TASKS)
    if not all(Path(path).exists() for path in recipe.data.pairs):
        return None
    from ume_training.data.files import count_lines

    return sum(count_lines(Path(path)) for path in recipe.data.pairs)
