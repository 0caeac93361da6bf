"""Inputs of a stage: results of earlier stages, models by name, files of pairs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from ume_retrieval.engines.registry import Role, resolve_embedder, resolve_reasoner
from ume_retrieval.errors import UmeError
from ume_training.data.judge import COUNTS_WORDS
from ume_training.recipes.schema import Recipe, references
from ume_training.recipes.stage_state import Fingerprint, StageState, digest_path
from ume_training.recipes.stages import (
    MADE_BY,
    MODEL_KEYS,
    OWN_DATA,
    ContrastiveStage,
    EgrlStage,
    ExportStage,
    Stage,
)


class ModelName(NamedTuple):
    """A model that a stage takes.

    Attributes:
        key: Dotted path of its name in the stage's settings.
        role: What it is taken for.
        name: Preset, hub id, folder, or `stage:NAME`.
    """

    key: str
    role: Role
    name: str


def models_of(stage: Stage) -> tuple[ModelName, ...]:
    """Return every model that a stage names."""
    return tuple(_models_in(stage.model_dump(mode="json"), ""))


def _models_in(settings: Mapping[str, Any], prefix: str) -> Iterator[ModelName]:
    for key, value in settings.items():
        if isinstance(value, dict):
            yield from _models_in(value, f"{prefix}{key}.")
        elif key in MODEL_KEYS and isinstance(value, str) and value.partition(":")[0] != COUNTS_WORDS:
            yield ModelName(prefix + key, MODEL_KEYS[key], value)


def with_paths(stage: Stage, seed: int, run: Path, made: Mapping[str, StageState], out: Path | None) -> Stage:
    """Return the stage with paths for every `stage:NAME`, and with the recipe's seed by default.

    Args:
        stage: As the recipe has it.
        seed: The recipe's.
        run: Folder of the run.
        made: Stamps of the stages before it.
        out: Where an export goes, or None for inside the run folder.
    """
    settings = stage.model_dump(mode="json")
    if isinstance(stage, ContrastiveStage | EgrlStage) and "seed" not in stage.settings.model_fields_set:
        settings["settings"]["seed"] = seed
    for place, name, part in references(stage):
        inner: Any = settings
        for step in place[:-1]:
            inner = inner[step]
        inner[place[-1]] = str(made[name].paths(run / name)[part])
    if isinstance(stage, ExportStage):
        settings["out"] = str(out.resolve() if out else run / stage.name / "pair")
    return type(stage).model_validate(settings)


def fingerprint_of(stage: Stage, ready: Stage, recipe: Recipe, made: Mapping[str, StageState]) -> Fingerprint:
    """Collect everything that determines a stage's result.

    Args:
        stage: As the recipe has it; paths are left out of the fingerprint, so a run folder may move.
        ready: The same with paths and seed.
        recipe: Whose seed and data hold.
        made: Stamps of the stages before it.
    """
    settings = stage.model_dump(mode="json", exclude={"name"})
    for key in stage.free:
        _forget(settings, key.split("."))
    basis: Fingerprint = {"settings": settings, "seed": recipe.seed, "inputs": {}}
    for reference in references(stage):
        name = f"{MADE_BY}{reference.stage}{'/' if reference.part else ''}{reference.part}"
        basis["inputs"][name] = made[reference.stage].fingerprints[reference.part]
    for model in models_of(stage):
        if not model.name.startswith(MADE_BY):
            basis["inputs"][model.name] = _model_print(model)
    if isinstance(ready, ExportStage):
        basis["out"] = ready.out
        if ready.scores is not None:
            basis["inputs"][ready.scores] = made[ready.scores].fingerprints[""]
    if isinstance(stage, ContrastiveStage):
        # Set next to the data, but they decide only how often this stage draws from it.
        basis["weights"] = dict(recipe.data.weights)
    if stage.world_only:
        basis["level"] = recipe.data.shapes.level if recipe.data.shapes else None
    elif getattr(stage, "data", None) == OWN_DATA:
        basis["data"] = recipe.data.model_dump(mode="json", exclude={"weights"})
        basis["inputs"] |= {path: digest_path(Path(path)) for path in recipe.data.pairs if Path(path).exists()}
    return basis


def _forget(settings: dict[str, Any], key: list[str]) -> None:
    inner: Any = settings
    for step in key[:-1]:
        inner = inner.get(step) or {}
    inner.pop(key[-1], None)


def _model_print(model: ModelName) -> str:
    """Return a digest of a folder, or the hub id with its commit if pinned."""
    try:
        resolve = resolve_embedder if model.role == "embedder" else resolve_reasoner
        found = resolve(model.name)
    except UmeError:
        # A plain model that becomes an Embedder is in no list of Embedders; its name must do.
        return digest_path(Path(model.name)) if Path(model.name).is_dir() else model.name
    folder = Path(found.model)
    return digest_path(folder) if folder.is_dir() else f"{found.model}@{found.revision or 'newest'}"
