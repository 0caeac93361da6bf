"""Find files, packages, models, GPU memory and disk space that a recipe needs and this machine lacks."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Literal

from ume_retrieval.engines.registry import HUB_ID
from ume_training.recipes.inputs import models_of
from ume_training.recipes.planning.estimates import StagePlan
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
    """Everything that would stop the recipe here, each named once, in the order of the stages.

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
