"""The stages of the small pair, and its scores on held-out Shapes data."""

from __future__ import annotations

import json
import statistics
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ume_training.recipes.stages import CaptionsStage, QuestionsStage, ScoreStage, TracesStage, VectorsStage
from ume_training.recipes.work import LOG, Made, Work, last_figures

SCORES = "scores.json"


def _tiny(work: Work, **settings: Any) -> Any:
    from ume_training.shapes.pair.recipe import TinyRecipe

    shapes = work.recipe.data.shapes
    if shapes is None:  # the schema refuses such recipes
        raise AssertionError
    return TinyRecipe(seed=work.recipe.seed, level=shapes.level, **settings)


def run_captions(stage: CaptionsStage, work: Work) -> Made:
    """Learn short captions."""
    from ume_training.shapes.pair.recipe import learn_captions

    recipe = _tiny(work, size=stage.size.value(), lesson_batch=stage.batch, captions=stage.schedule.value())
    return _lessons(work, learn_captions(recipe, work.run))


def run_traces(stage: TracesStage, work: Work) -> Made:
    """Learn T-CoTs."""
    from ume_training.shapes.pair.recipe import learn_traces

    recipe = _tiny(work, lesson_batch=stage.batch, traces=stage.schedule.value())
    return _lessons(work, learn_traces(recipe, work.run, Path(stage.start)))


def run_questions(stage: QuestionsStage, work: Work) -> Made:
    """Learn harder T-CoTs."""
    from ume_training.shapes.pair.recipe import learn_questions

    recipe = _tiny(work, lesson_batch=stage.batch, questions=stage.schedule.value())
    return _lessons(work, learn_questions(recipe, work.run, Path(stage.start)))


def run_vectors(stage: VectorsStage, work: Work) -> Made:
    """Learn vectors."""
    from ume_training.shapes.pair.recipe import learn_vectors

    recipe = _tiny(
        work,
        pair_batch=stage.batch,
        kin=stage.kin,
        trace_share=stage.trace_share,
        apart=stage.apart.value(),
        vectors=stage.schedule.value(),
    )
    checkpoint = learn_vectors(recipe, work.run, Path(stage.start))
    return Made({"": checkpoint}, last_figures(work.folder / "vectors" / LOG))


def _lessons(work: Work, checkpoint: Path) -> Made:
    return Made({"": checkpoint}, last_figures(work.folder / LOG))


def run_score(stage: ScoreStage, work: Work) -> Made:
    """Score a pair on held-out Shapes data."""
    from ume_retrieval.pipeline.embedder import ReasoningEmbedder
    from ume_training.shapes.benchmark import build_benchmark
    from ume_training.shapes.evaluate import evaluate

    embedder = ReasoningEmbedder.from_pretrained(
        stage.embedder, reasoner=stage.reasoner, cache=work.folder / "traces.sqlite3"
    )
    reports: dict[str, dict[str, Any]] = {}
    for seed in stage.seeds:
        with tempfile.TemporaryDirectory(prefix="ume-shapes-") as world:
            benchmark = build_benchmark(
                Path(world), seed=seed, level=stage.level, queries=stage.queries, candidates=stage.candidates
            )
            reports[str(seed)] = evaluate(embedder, benchmark).to_dict()
    figures = _summary(list(reports.values()))
    scores = {"level": stage.level, "queries": stage.queries, **figures, "seeds": reports}
    path = work.folder / SCORES
    path.write_text(json.dumps(scores, indent=2) + "\n", encoding="utf-8")
    return Made({"": path}, figures)


def _summary(reports: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Mean over seeds, and the spread where there are several."""
    figures: dict[str, Any] = {}
    for mode in ("direct", "reasoned", "fused"):
        values = [report[mode]["hit@1"] for report in reports]
        figures[mode] = {"hit@1": round(statistics.fmean(values), 4)}
        if len(values) > 1:
            figures[mode]["std"] = round(statistics.stdev(values), 4)
    return figures
