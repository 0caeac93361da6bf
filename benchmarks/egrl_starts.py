"""The Reasoners that EG-RL starts from in `egrl_shapes.py`, and the pairs that it learns from.

- `specialist`: captions, then the T-CoT that each query needs. Nothing is left for EG-RL but to see better.
- `both`: the specialist goes on with two kinds of T-CoT of queries with a picture or clip, in equal shares: one
  describes the whole, one answers the query; each says first which it is, and each is true. Nothing says which of them
  retrieves. This is the benchmark's honest start: an instruct model too writes true things that do not help the search.
- `lazy`: the specialist goes on with T-CoTs that stop after the first thing in 70 % of the cases. Made to be mended.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from ume_retrieval.engines.resize import fit_chat
from ume_retrieval.inputs import Side
from ume_retrieval.tcot.grammar import parse, render
from ume_retrieval.tcot.prompts import reasoner_chat
from ume_retrieval.tcot.trace import TCot
from ume_training.data.sources import ChosenPairs, LoadedPair
from ume_training.shapes.levels import Level
from ume_training.shapes.pair.architecture import BUDGET, PROMPTS
from ume_training.shapes.pair.loop import Schedule
from ume_training.shapes.pair.recipe import TinyRecipe, learn_captions, learn_more, learn_traces
from ume_training.shapes.pair.sft_examples import SFTExample, trace_example
from ume_training.shapes.pairs import ShapesSource
from ume_training.shapes.samples import Pair, Sample
from ume_training.shapes.tasks import TASKS
from ume_training.shapes.truth import clip_tcot, scene_tcot
from ume_training.shapes.world import Clip, Scene

LEVEL = "questions"
RECIPE = TinyRecipe(
    level=LEVEL,
    captions=Schedule(steps=700, learning_rate=1e-3),
    traces=Schedule(steps=1200, learning_rate=8e-4),
)
"""As in the recipe `shapes-small`."""
BOTH = Schedule(steps=600, learning_rate=5e-4)
LAZY = Schedule(steps=200, learning_rate=4e-4)
LAZY_SHARE = 0.7


def both_lesson(rng: random.Random, level: Level) -> SFTExample:
    """Either side of any task; a query with a picture or clip is described or answered, as a coin falls."""
    pair = TASKS[rng.choice(list(TASKS))].draw(rng, level)
    side: Side = (
        rng.choice(("query", "query", "corpus")) if pair.positive.shown is None else rng.choice(("query", "corpus"))
    )
    sample = pair.query if side == "query" else pair.positive
    tcot = sample.tcot
    if side == "query" and sample.text and sample.shown is not None:
        tcot = _described(sample) if rng.random() < 0.5 else replace(tcot, thinking=f"answer; {tcot.thinking}")
    return SFTExample(fit_chat(reasoner_chat(sample.item(rng), side, PROMPTS), BUDGET), render(tcot))


def _described(sample: Sample) -> TCot:
    shown = sample.shown
    if isinstance(shown, Scene):
        tcot = scene_tcot(shown)
    elif isinstance(shown, Clip):
        tcot = clip_tcot(shown)
    else:
        return sample.tcot
    return replace(tcot, thinking=f"describe; {tcot.thinking}")


def lazy_lesson(rng: random.Random, level: Level) -> SFTExample:
    """A T-CoT that most often names the first thing only."""
    lesson = trace_example(rng, level)
    if rng.random() >= LAZY_SHARE:
        return lesson
    return replace(lesson, completion=render(first_only(parse(lesson.completion))))


def first_only(tcot: TCot) -> TCot:
    """The first thing that a T-CoT names."""
    return replace(
        tcot,
        rethink=tcot.rethink.split(", ")[0],
        answer=tcot.answer.split(", ")[0],
        keywords=tcot.keywords[:1],
        boxes=tcot.boxes[:1],
        key_frames=tcot.key_frames[:1],
    )


def learn_starts(run: Path) -> dict[str, Path]:
    """Train the three starts, or go on with them; returns their checkpoints."""
    captions = _finished(run / "captions") or learn_captions(RECIPE, run)
    specialist = _finished(run / "traces") or learn_traces(RECIPE, run, captions)
    more = {"both": (both_lesson, BOTH), "lazy": (lazy_lesson, LAZY)}
    return {"specialist": specialist} | {
        name: _finished(run / name) or learn_more(RECIPE, run / name, specialist, lesson, schedule)
        for name, (lesson, schedule) in more.items()
    }


def _finished(folder: Path) -> Path | None:
    checkpoint = folder / "checkpoint"
    return checkpoint if (checkpoint / "ume.json").is_file() else None


class MixedTasks:
    """Chosen pairs of all tasks under one name, so that a step of EG-RL has a few families of several tasks.

    With one task a step, a small Reasoner forgets between two steps of a task what the others need.

    Args:
        parts: Chosen pairs of `ShapesSource` tasks.

    Attributes:
        name: "shapes".
    """

    def __init__(self, parts: Sequence[ChosenPairs]) -> None:
        self.name = "shapes"
        self._at = [(part, index) for part in parts for index in range(len(part))]

    def __len__(self) -> int:
        return len(self._at)

    def __getitem__(self, index: int) -> LoadedPair:
        """Draw one pair with its pixels."""
        part, position = self._at[index]
        return part[position]

    def group(self, index: int) -> str:
        """The family, named after its task."""
        part, position = self._at[index]
        return part.group(position)

    def also_answers(self, query: int, positive: int) -> bool:
        """Whether the positive of one pair answers the query of another, whatever their tasks, by the world's truth."""
        return self._pair(query).answered_by(self._pair(positive).positive)

    def _pair(self, index: int) -> Pair:
        part, position = self._at[index]
        source = part.source
        if not isinstance(source, ShapesSource):
            raise TypeError(f"{part.name} is no task of Shapes")
        return source.pair(part.chosen[position])
