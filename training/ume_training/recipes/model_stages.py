"""The stages that train large models: contrastive and EG-RL."""

from __future__ import annotations

from typing import cast

from ume_retrieval.checkpoint import ReasonerSpec
from ume_retrieval.engines.registry import resolve_reasoner
from ume_training.recipes.sources import hard_ones, name_left_out, open_sources, readable_ones
from ume_training.recipes.stages import OWN_DATA, ContrastiveStage, EgrlStage
from ume_training.recipes.work import LOG, Made, Work, bar, last_figures


def run_egrl(stage: EgrlStage, work: Work) -> Made:
    """Train the Reasoner by EG-RL."""
    from ume_training.egrl.run import run_egrl as train

    budget = cast("ReasonerSpec", resolve_reasoner(stage.settings.reasoner).spec).budget
    sources, broken = open_sources(stage.data, work.recipe, budget, rule="any")
    opened = len(broken) + sum(map(len, sources))
    if stage.data != OWN_DATA or work.recipe.data.shapes is None:
        sources = readable_ones(sources, broken, work)
    left_out = opened - sum(map(len, sources))
    if stage.choose == "hard":
        sources = hard_ones(sources, stage.settings, work)
    with bar(stage.name, work) as tell:
        result = train(stage.settings, sources, work.folder, on_progress=tell)
    figures = {
        "steps": result.steps,
        "pairs": sum(map(len, sources)),
        "left_out": left_out,
        "sampled_format": result.sampled_format,
    }
    return Made({"": result.reasoner}, {**figures, **last_figures(work.folder / LOG)})


def run_contrastive(stage: ContrastiveStage, work: Work) -> Made:
    """Train the Embedder, and merge its adapters into weights that the next stages load."""
    from ume_training.contrastive import train_contrastive
    from ume_training.contrastive.start import resolve_start
    from ume_training.export.merge import merge_embedder

    start = resolve_start(stage.settings.embedder, stage.settings.spec)
    sources, broken = open_sources(stage.data, work.recipe, start.spec.budget, on_error=stage.settings.on_error)
    left_out = name_left_out(broken, work)
    with bar(stage.name, work) as tell:
        result = train_contrastive(
            stage.settings, sources, work.folder / "run", weights=work.recipe.data.weights, watch=tell
        )
    checkpoint = work.folder / "checkpoint"
    if work.workers.main:
        merge_embedder(result.folder, checkpoint, replace=True)
    figures = {"steps": result.steps, "left_out": left_out + result.skipped, **result.figures}
    return Made({"": checkpoint}, figures)
