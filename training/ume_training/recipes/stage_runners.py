"""Run each kind of stage, from its settings to its output."""

from __future__ import annotations

import json
import statistics
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, cast

from ume_retrieval.checkpoint import ReasonerSpec
from ume_retrieval.engines.registry import resolve_reasoner
from ume_retrieval.errors import Failure, InputError
from ume_retrieval.util.progress import Progress
from ume_training.recipes.context import StageContext, StageOutput, progress_bar
from ume_training.recipes.export_stage import run_export
from ume_training.recipes.sources import (
    open_sources,
    pair_files,
    select_hard,
    select_readable,
    write_skipped,
)
from ume_training.recipes.stages import (
    OWN_DATA,
    AnnotateStage,
    CaptionsStage,
    ContrastiveStage,
    EgrlStage,
    ExportStage,
    FilterStage,
    QuestionsStage,
    ScoreStage,
    Stage,
    TracesStage,
    VectorsStage,
)
from ume_training.run_folder import LOG, last_line

SCORES = "scores.json"


def _tiny(context: StageContext, **settings: Any) -> Any:
    from ume_training.shapes.pair.recipe import TinyRecipe

    shapes = context.recipe.data.shapes
    if shapes is None:  # the schema refuses such recipes
        raise AssertionError
    return TinyRecipe(seed=context.recipe.seed, level=shapes.level, **settings)


def run_captions(stage: CaptionsStage, context: StageContext) -> StageOutput:
    """Learn short captions."""
    from ume_training.shapes.pair.recipe import learn_captions

    recipe = _tiny(context, size=stage.size.value(), sft_batch=stage.batch, captions=stage.schedule.value())
    return _example_output(context, learn_captions(recipe, context.run))


def run_traces(stage: TracesStage, context: StageContext) -> StageOutput:
    """Learn T-CoTs."""
    from ume_training.shapes.pair.recipe import learn_traces

    recipe = _tiny(context, sft_batch=stage.batch, traces=stage.schedule.value())
    return _example_output(context, learn_traces(recipe, context.run, Path(stage.start)))


def run_questions(stage: QuestionsStage, context: StageContext) -> StageOutput:
    """Learn harder T-CoTs."""
    from ume_training.shapes.pair.recipe import learn_questions

    recipe = _tiny(context, sft_batch=stage.batch, questions=stage.schedule.value())
    return _example_output(context, learn_questions(recipe, context.run, Path(stage.start)))


def run_vectors(stage: VectorsStage, context: StageContext) -> StageOutput:
    """Learn vectors."""
    from ume_training.shapes.pair.recipe import learn_vectors

    recipe = _tiny(
        context,
        pair_batch=stage.batch,
        group_size=stage.group_size,
        trace_share=stage.trace_share,
        warm_start=stage.warm_start.value(),
        vectors=stage.schedule.value(),
    )
    checkpoint = learn_vectors(recipe, context.run, Path(stage.start))
    return StageOutput({"": checkpoint}, last_line(context.folder / "vectors" / LOG))


def _example_output(context: StageContext, checkpoint: Path) -> StageOutput:
    return StageOutput({"": checkpoint}, last_line(context.folder / LOG))


def run_score(stage: ScoreStage, context: StageContext) -> StageOutput:
    """Score a pair on held-out Shapes data."""
    from ume_retrieval.pipeline.embedder import ReasoningEmbedder
    from ume_training.shapes.benchmark import build_benchmark
    from ume_training.shapes.evaluate import evaluate

    embedder = ReasoningEmbedder.from_pretrained(
        stage.embedder, reasoner=stage.reasoner, cache=context.folder / "traces.sqlite3"
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
    path = context.folder / SCORES
    path.write_text(json.dumps(scores, indent=2) + "\n", encoding="utf-8")
    return StageOutput({"": path}, figures)


def _summary(reports: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return the mean over seeds, and the spread where there are several."""
    figures: dict[str, Any] = {}
    for mode in ("direct", "reasoned", "fused"):
        values = [report[mode]["hit@1"] for report in reports]
        figures[mode] = {"hit@1": round(statistics.fmean(values), 4)}
        if len(values) > 1:
            figures[mode]["std"] = round(statistics.stdev(values), 4)
    return figures


PAIRS = "pairs.jsonl"


def run_annotate(stage: AnnotateStage, context: StageContext) -> StageOutput:
    """Write T-CoTs for every pair."""
    from ume_training.data.annotate import AnnotateSettings, annotate
    from ume_training.data.judge import load_reasoner

    settings = AnnotateSettings(
        answer_hint_prob=stage.answer_hint_prob,
        seed=context.recipe.seed,
        max_tokens=stage.max_tokens,
        temperature=stage.temperature,
        batch=stage.batch,
    )
    drawn = stage.data == OWN_DATA and context.recipe.data.shapes is not None
    files = (_write_world(context),) if drawn else pair_files(stage.data, context.recipe)
    reasoner = load_reasoner(stage.reasoner)
    out = context.folder / PAIRS
    figures: dict[str, Any] = {"pairs": 0, "left_out": 0}
    failures: list[Failure] = []
    for number, file in enumerate(files):
        with progress_bar(stage.name, context) as show:
            report = annotate(
                file,
                # Several files become one folder of shards.
                out if len(files) == 1 else context.folder / "pairs" / f"{number:03d}-{file.stem}.jsonl",
                reasoner,
                settings,
                resume=True,
                on_error=stage.on_error,
                on_progress=lambda done: show(Progress(stage.name, done, None)),
            )
        for key in ("pairs", "leaked", "reasoner_calls", "completion_tokens"):
            figures[key] = figures.get(key, 0) + getattr(report, key)
        failures += report.failures
    figures["left_out"] = write_skipped(failures, context)
    return StageOutput({"": out if len(files) == 1 else context.folder / "pairs"}, figures)


def _write_world(context: StageContext) -> Path:
    from ume_training.data.files import write_records
    from ume_training.shapes.pairs import shapes_records

    shapes = context.recipe.data.shapes
    if shapes is None:  # the caller has looked
        raise AssertionError
    path = context.folder / "world" / PAIRS
    if not path.is_file():
        records = shapes_records(
            path.parent, level=shapes.level, seed=context.recipe.seed, group_size=shapes.group_size, count=shapes.pairs
        )
        write_records(records, path)
    return path


def run_filter(stage: FilterStage, context: StageContext) -> StageOutput:
    """Let a judge keep and reject pairs."""
    from ume_training.data.filter import filter_pairs
    from ume_training.data.judge import load_judge

    files = pair_files(stage.data, context.recipe)
    if len(files) != 1:
        raise InputError(f"{stage.name} takes one pair file", hint="put the files into one folder of shards")
    kept, rejected = context.folder / "kept.jsonl", context.folder / "rejected.jsonl"
    with progress_bar(stage.name, context) as show:
        report = filter_pairs(
            files[0],
            kept,
            rejected,
            load_judge(stage.judge),
            undecided=stage.undecided,
            resume=True,
            on_error=stage.on_error,
            on_progress=lambda done: show(Progress(stage.name, done, None)),
        )
    summary = report.to_dict()
    left_out = write_skipped(report.failures, context)
    figures = {"kept": summary["kept"], "rejected": summary["rejected"], "left_out": left_out}
    figures |= {key: summary[key] for key in ("kept_share", "reasons")}
    return StageOutput({"": kept, "rejected": rejected}, figures)


def run_egrl(stage: EgrlStage, context: StageContext) -> StageOutput:
    """Train the Reasoner by EG-RL."""
    from ume_training.egrl.run import run_egrl as train

    budget = cast("ReasonerSpec", resolve_reasoner(stage.settings.reasoner).spec).budget
    sources, broken = open_sources(stage.data, context.recipe, budget, rule="any")
    opened = len(broken) + sum(map(len, sources))
    if stage.data != OWN_DATA or context.recipe.data.shapes is None:
        sources = select_readable(sources, broken, context)
    left_out = opened - sum(map(len, sources))
    if stage.choose == "hard":
        sources = select_hard(sources, stage.settings, context)
    with progress_bar(stage.name, context) as show:
        result = train(stage.settings, sources, context.folder, on_progress=show)
    figures = {
        "steps": result.steps,
        "pairs": sum(map(len, sources)),
        "left_out": left_out,
        "sampled_format": result.sampled_format,
    }
    return StageOutput({"": result.reasoner}, {**figures, **last_line(context.folder / LOG)})


def run_contrastive(stage: ContrastiveStage, context: StageContext) -> StageOutput:
    """Train the Embedder, and merge its adapters into weights that the next stages load."""
    from ume_training.contrastive import train_contrastive
    from ume_training.contrastive.start import resolve_start
    from ume_training.export.merge import merge_embedder

    start = resolve_start(stage.settings.embedder, stage.settings.spec)
    sources, broken = open_sources(stage.data, context.recipe, start.spec.budget, on_error=stage.settings.on_error)
    left_out = write_skipped(broken, context)
    with progress_bar(stage.name, context) as show:
        result = train_contrastive(
            stage.settings, sources, context.folder / "run", weights=context.recipe.data.weights, on_progress=show
        )
    checkpoint = context.folder / "checkpoint"
    if context.workers.main:
        merge_embedder(result.folder, checkpoint, replace=True)
    figures = {"steps": result.steps, "left_out": left_out + result.skipped, **result.figures}
    return StageOutput({"": checkpoint}, figures)


_EXECUTORS: Mapping[type[Stage], Callable[[Any, StageContext], StageOutput]] = MappingProxyType(
    {
        CaptionsStage: run_captions,
        TracesStage: run_traces,
        QuestionsStage: run_questions,
        VectorsStage: run_vectors,
        AnnotateStage: run_annotate,
        FilterStage: run_filter,
        ContrastiveStage: run_contrastive,
        EgrlStage: run_egrl,
        ScoreStage: run_score,
        ExportStage: run_export,
    }
)


def execute(stage: Stage, context: StageContext) -> StageOutput:
    """Run or resume a stage; every `stage:NAME` in it must be resolved to a path.

    Args:
        stage: What to do.
        context: Recipe, folders and processes.
    """
    return _EXECUTORS[type(stage)](stage, context)
