"""The stages that make training pairs: annotate and filter."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ume_retrieval.errors import Failure, InputError
from ume_training.recipes.sources import load_reasoner, name_left_out, pair_files
from ume_training.recipes.stages import OWN_DATA, AnnotateStage, FilterStage
from ume_training.recipes.work import Made, Tell, Work, bar

if TYPE_CHECKING:
    from ume_training.data.judge import Judge

PAIRS = "pairs.jsonl"


def run_annotate(stage: AnnotateStage, work: Work) -> Made:
    """Write T-CoTs for every pair."""
    from ume_training.data.annotate import AnnotateSettings, annotate

    settings = AnnotateSettings(
        leak_share=stage.leak_share,
        seed=work.recipe.seed,
        max_tokens=stage.max_tokens,
        temperature=stage.temperature,
        batch=stage.batch,
    )
    drawn = stage.data == OWN_DATA and work.recipe.data.shapes is not None
    files = (_write_world(work),) if drawn else pair_files(stage.data, work.recipe)
    reasoner = load_reasoner(stage.reasoner)
    out = work.folder / PAIRS
    figures: dict[str, Any] = {"pairs": 0, "left_out": 0}
    failures: list[Failure] = []
    for number, file in enumerate(files):
        with bar(stage.name, work) as tell:
            report = annotate(
                file,
                # Several files become one folder of shards.
                out if len(files) == 1 else work.folder / "pairs" / f"{number:03d}-{file.stem}.jsonl",
                reasoner,
                settings,
                resume=True,
                on_error=stage.on_error,
                on_progress=partial(_tell_pairs, tell),
            )
        for key in ("pairs", "leaked", "reasoner_calls", "completion_tokens"):
            figures[key] = figures.get(key, 0) + getattr(report, key)
        failures += report.failures
    figures["left_out"] = name_left_out(failures, work)
    return Made({"": out if len(files) == 1 else work.folder / "pairs"}, figures)


def _write_world(work: Work) -> Path:
    from ume_training.shapes.pairs import write_shapes_pairs

    shapes = work.recipe.data.shapes
    if shapes is None:  # the caller has looked
        raise AssertionError
    folder = work.folder / "world"
    if (folder / PAIRS).is_file():
        return folder / PAIRS
    return write_shapes_pairs(folder, level=shapes.level, seed=work.recipe.seed, kin=shapes.kin, count=shapes.pairs)


def run_filter(stage: FilterStage, work: Work) -> Made:
    """Let a judge keep and reject pairs."""
    from ume_training.data.filter import filter_pairs
    from ume_training.data.judge import ReasonerJudge, WordsJudge

    files = pair_files(stage.data, work.recipe)
    if len(files) != 1:
        raise InputError(f"{stage.name} takes one pair file", hint="put the files into one folder of shards")
    judge: Judge
    judge = ReasonerJudge(load_reasoner(stage.judge)) if stage.words is None else WordsJudge(stage.words)
    kept, rejected = work.folder / "kept.jsonl", work.folder / "rejected.jsonl"
    with bar(stage.name, work) as tell:
        report = filter_pairs(
            files[0],
            kept,
            rejected,
            judge,
            undecided=stage.undecided,
            resume=True,
            on_error=stage.on_error,
            on_progress=lambda done: tell(done, None, {}),
        )
    told = report.to_dict()
    left_out = name_left_out(report.failures, work)
    figures = {"kept": told["kept"], "rejected": told["rejected"], "left_out": left_out}
    figures |= {key: told[key] for key in ("kept_share", "reasons")}
    return Made({"": kept, "rejected": rejected}, figures)


def _tell_pairs(tell: Tell, done: int) -> None:
    tell(done, None, {})
