"""The export stage: the pair as portable folders, each with a model card."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from ume_retrieval.checkpoint import read_spec
from ume_retrieval.errors import IncompatibleModel
from ume_training.recipes.context import StageContext, StageOutput
from ume_training.recipes.planning.sizes import model_behind
from ume_training.recipes.schema import Recipe
from ume_training.recipes.stage_state import StageState, read_state
from ume_training.recipes.stages import MADE_BY, ContrastiveStage, EgrlStage, ExportStage, ScoreStage, Stage

if TYPE_CHECKING:
    from ume_training.export.card import Card, Score, StageFact

Role: TypeAlias = Literal["reasoner", "embedder"]
ROLES: tuple[Role, ...] = ("reasoner", "embedder")

UNSAID = frozenset(
    {
        *("name", "stage", "start", "data", "reasoner", "embedder", "seed", "save_every", "log_every"),
        *("server", "vllm_memory"),
    }
)
"""Settings that a card leaves out: they say where things were, not what was done. An address may hold a password."""


def run_export(stage: ExportStage, context: StageContext) -> StageOutput:
    """Write the pair with its model cards."""
    from ume_training.export.folder import export

    out = Path(stage.out or context.folder / "pair")
    original = context.recipe.stage(stage.name)
    for role in ROLES:
        source = getattr(stage, role)
        if source is None:
            continue
        target = out / role
        card = card_of(role, getattr(original, role), stage.scores, context)
        export(Path(model_behind(source)), target, card=card, replace=_is_ours(target, role))
    return StageOutput({"": out}, {"written": str(out)})


def _is_ours(folder: Path, role: Role) -> bool:
    """Return whether a folder holds a checkpoint of that role, which an export may put another one in the place of."""
    try:
        spec = read_spec(folder)
    except IncompatibleModel:
        return False
    return spec is not None and spec.role == role


def card_of(role: Role, name: str, scores: str | None, context: StageContext) -> Card:
    """Build the model card of a model that this run made.

    Args:
        role: What the model does.
        name: As the recipe names it.
        scores: Name of the stage that scored it, or None.
        context: Names the run folder, which holds the stages' states.
    """
    from ume_training.export.card import Card

    made, base = lineage(context.recipe, name)
    stamps = {stage.name: stamp for stage in made if (stamp := read_state(context.run / stage.name))}
    shapes = context.recipe.data.shapes
    on_shapes = f" It was trained on Shapes, level {shapes.level}." if shapes else ""
    from_scratch = base is None and shapes is not None
    return Card(
        name=f"{context.recipe.name} {role}",
        role=role,
        base=model_behind(base) if base and not Path(model_behind(base)).is_dir() else None,
        license="apache-2.0" if from_scratch else None,
        summary=f"StageOutput by `ume train run {context.recipe.name}`.{on_shapes}",
        stages=tuple(_fact(stage, stamps[stage.name]) for stage in made if stage.name in stamps),
        seeds=(context.recipe.seed,),
        scores=tuple(_scores(scores, context)) if scores else (),
        limits=("It knows the Shapes world and nothing else.",) if from_scratch else (),
    )


def lineage(recipe: Recipe, name: str) -> tuple[tuple[Stage, ...], str | None]:
    """Return the stages whose weights a model carries on, first to last, and the model that the first one started from.

    Example:
        >>> from ume_training.recipes.schema import load_recipe
        >>> stages, base = lineage(load_recipe("embed-rl-2b"), "stage:egrl")
        >>> [stage.name for stage in stages], base
        (['egrl'], 'qwen3-vl-8b')
    """
    stages: list[Stage] = []
    here: str | None = name
    while here is not None and here.startswith(MADE_BY):
        stage = recipe.stage(here.removeprefix(MADE_BY))
        stages.append(stage)
        here = _start_of(stage)
    return tuple(reversed(stages)), here


def _start_of(stage: Stage) -> str | None:
    if isinstance(stage, ContrastiveStage):
        return stage.settings.embedder
    if isinstance(stage, EgrlStage):
        return stage.settings.reasoner
    return getattr(stage, "start", None)


def _fact(stage: Stage, stamp: StageState) -> StageFact:
    from ume_training.export.card import StageFact

    settings = dict(_plain(stage.model_dump(mode="json"), ""))
    steps = stamp.figures.get("steps") or stamp.figures.get("step") or 0
    return StageFact(stage.name, int(steps), settings)


def _plain(value: Mapping[str, Any], prefix: str) -> Iterator[tuple[str, Any]]:
    for key, inner in value.items():
        if key in UNSAID or inner is None:
            continue
        name = key if key == "settings" else f"{prefix}{key}"
        if isinstance(inner, dict):
            yield from _plain(inner, "" if key == "settings" else f"{name} ")
        else:
            yield name, json.dumps(inner) if isinstance(inner, list) else inner


def _scores(name: str, context: StageContext) -> Iterator[Score]:
    from ume_training.export.card import Score
    from ume_training.shapes.tasks import TASKS

    stage, stamp = context.recipe.stage(name), read_state(context.run / name)
    if not isinstance(stage, ScoreStage) or stamp is None:  # the schema refuses such recipes
        raise AssertionError
    for mode in ("direct", "reasoned", "fused"):
        figures = stamp.figures[mode]
        yield Score(
            dataset=f"shapes/{stage.level}",
            metric="hit@1",
            value=figures["hit@1"],
            how=mode,
            queries=stage.queries * len(TASKS) * len(stage.seeds),
            std=figures.get("std"),
            seeds=stage.seeds,
        )
