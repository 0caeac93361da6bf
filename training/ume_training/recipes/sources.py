"""The data sets that a stage of a recipe learns from, and the Reasoners that look at them."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ume_retrieval.checkpoint import VisualBudget
from ume_retrieval.errors import Failure, TrainingError
from ume_retrieval.util.files import atomic_write
from ume_training.data.sources import PairSource, file_sources
from ume_training.data.validation import OnError, TCotRule
from ume_training.recipes.schema import Recipe, ShapesData
from ume_training.recipes.stages import OWN_DATA

if TYPE_CHECKING:
    from ume_training.egrl.settings import EgrlSettings
    from ume_training.recipes.context import StageContext

HARD, READABLE, SKIPPED = "hard.json", "readable.json", "skipped.jsonl"


def open_sources(
    data: str, recipe: Recipe, budget: VisualBudget, *, on_error: OnError = "skip", rule: TCotRule = "strict"
) -> tuple[tuple[PairSource, ...], tuple[Failure, ...]]:
    """Open the data sets that a stage's `data` names; also return the skipped lines.

    Args:
        data: "data" for the recipe's own, or a pair file.
        recipe: Whose data and seed hold.
        budget: How videos are sampled and pages rendered.
        on_error: What to do with a broken line.
        rule: Which T-CoTs pass.

    Raises:
        PairError: For the first broken line, if `on_error` is "stop".
        TrainingError: When a pair file is missing or holds no pair, or two files hold the same data set.
    """
    if data == OWN_DATA and recipe.data.shapes is not None:
        return _world(recipe.data.shapes, recipe.seed), ()
    found: dict[str, PairSource] = {}
    failures: list[Failure] = []
    for path in pair_files(data, recipe):
        sources, missed = file_sources(path, budget, on_error=on_error, rule=rule)
        failures += missed
        for source in sources:
            if source.name in found:
                raise TrainingError(
                    f"{path} holds the data set {source.name!r}, which another file holds too",
                    hint="give it another name, or put both files into one folder",
                )
            found[source.name] = source
    return tuple(found.values()), tuple(failures)


def pair_files(data: str, recipe: Recipe) -> tuple[Path, ...]:
    """Return the pair files that a stage's `data` names."""
    return tuple(Path(path) for path in recipe.data.pairs) if data == OWN_DATA else (Path(data),)


def _world(shapes: ShapesData, seed: int) -> tuple[PairSource, ...]:
    from ume_training.shapes.pairs import ShapesSource
    from ume_training.shapes.tasks import TASKS

    return tuple(
        ShapesSource(task, shapes.level, seed, group_size=shapes.group_size, count=shapes.pairs) for task in TASKS
    )


def write_skipped(failures: Sequence[Failure], context: StageContext) -> int:
    """Write the items that a stage skipped to `skipped.jsonl` in its folder, and return their number."""
    if failures and context.workers.main:
        lines = [json.dumps({"source": one.source, "message": one.message}) + "\n" for one in failures]
        atomic_write(context.folder / SKIPPED, "".join(lines), what="the failures")
    return len(failures)


def select_readable(
    sources: Sequence[PairSource], broken: Sequence[Failure], context: StageContext
) -> tuple[PairSource, ...]:
    """Keep the pairs whose media decode, and write the others to `skipped.jsonl`; done once per run."""
    from ume_training.data.sources import readable_pairs

    def find() -> dict[str, list[int]]:
        found = {source.name: readable_pairs(source) for source in sources}
        write_skipped([*broken, *(failure for _, missed in found.values() for failure in missed)], context)
        return {name: list(pairs.chosen) for name, (pairs, _) in found.items()}

    return _choose(sources, READABLE, find, context)


def select_hard(sources: Sequence[PairSource], settings: EgrlSettings, context: StageContext) -> tuple[PairSource, ...]:
    """Of each data set the groups that the Reasoner does not get right; found once and kept in the stage's folder.

    Raises:
        TrainingError: When there are none: there is nothing to learn. Without groups it is known beforehand.
    """
    if not any(len({source.group(index) for index in range(len(source))}) < len(source) for source in sources):
        raise TrainingError(
            "no two pairs share a group, and only groups of look-alikes can be hard",
            hint="give look-alikes one `group`, or choose: all",
        )
    chosen = _choose(sources, HARD, lambda: _find_hard(sources, settings), context)
    if not chosen:
        raise TrainingError(
            "the Reasoner gets all pairs right already, so none is hard", hint="draw more, or choose: all"
        )
    return chosen


def _choose(
    sources: Sequence[PairSource], name: str, find: Callable[[], dict[str, list[int]]], context: StageContext
) -> tuple[PairSource, ...]:
    """Find positions once, in the main process, and keep them in a file of the stage's folder."""
    from ume_training.data.sources import ChosenPairs

    path = context.folder / name
    if context.workers.main and not path.is_file():
        atomic_write(path, json.dumps(find()) + "\n", what="the chosen pairs")
    context.workers.barrier()
    positions: dict[str, list[int]] = json.loads(path.read_text(encoding="utf-8"))
    return tuple(ChosenPairs(source, tuple(positions[source.name])) for source in sources if positions[source.name])


def _find_hard(sources: Sequence[PairSource], settings: EgrlSettings) -> dict[str, list[int]]:
    from ume_training.data.judge import load_reasoner
    from ume_training.egrl.hard import hard_pairs
    from ume_training.egrl.process import load_discriminator

    reasoner, judge = load_reasoner(settings.reasoner), load_discriminator(settings)
    return {source.name: list(hard_pairs(source, reasoner, judge).chosen) for source in sources}
