"""Batches for the bundled pair: what the Reasoner reads and writes, what the Embedder is shown."""

from __future__ import annotations

import random
from typing import Any

from ume_retrieval.chat import Chat
from ume_retrieval.engines.families import embedding_chat, evidence_of
from ume_retrieval.engines.resize import fit_chat
from ume_retrieval.inputs import Side
from ume_retrieval.tcot.grammar import render
from ume_retrieval.tcot.prompts import reasoner_chat
from ume_training.shapes.levels import Level
from ume_training.shapes.pair.architecture import BUDGET, EMBEDDER_SPEC, PROMPTS
from ume_training.shapes.pair.supervised import Lesson
from ume_training.shapes.samples import Pair, Sample
from ume_training.shapes.tasks import TASKS, Task, family


def caption_lesson(rng: random.Random, level: Level) -> Lesson:
    """A picture, clip or page, and its description alone: the first thing to learn."""
    pair = TASKS[rng.choice(("text_to_image", "text_to_image", "text_to_video", "page_retrieval", "grounding"))]
    sample = pair.draw(rng, level).positive
    return Lesson(_asked(sample, "corpus", rng), sample.tcot.answer)


def trace_lesson(rng: random.Random, level: Level) -> Lesson:
    """Either side of a pair of any task, and its T-CoT."""
    pair = TASKS[rng.choice(list(TASKS))].draw(rng, level)
    side: Side = (
        rng.choice(("query", "query", "corpus")) if pair.positive.shown is None else rng.choice(("query", "corpus"))
    )
    sample = pair.query if side == "query" else pair.positive
    return Lesson(_asked(sample, side, rng), render(sample.tcot))


BINDING_TASKS = ("image_question", "image_change", "grounding")
"""Tasks whose evidence is one thing among several: the last that a small model learns."""


def question_lesson(rng: random.Random, level: Level) -> Lesson:
    """Three times in four a query of the tasks that must point at one thing, else any lesson."""
    if rng.random() < 0.25:
        return trace_lesson(rng, level)
    sample = TASKS[rng.choice(BINDING_TASKS)].draw(rng, level).query
    return Lesson(_asked(sample, "query", rng), render(sample.tcot))


def _asked(sample: Sample, side: Side, rng: random.Random) -> Chat:
    return fit_chat(reasoner_chat(sample.item(rng), side, PROMPTS), BUDGET)


def pairs_with_look_alikes(rng: random.Random, level: Level, task: Task, count: int, kin: int) -> list[Pair]:
    """`count` pairs of one task, in families of `kin` that are one change apart."""
    return [pair for _ in range(count // kin) for pair in family(task, rng, level, kin)]


def shown_to_embedder(sample: Sample, rng: random.Random, *, with_trace: bool) -> Chat:
    """A sample as the Embedder reads it, with its true T-CoT and evidence or without."""
    item = sample.item(rng)
    if not with_trace:
        return embedding_chat(EMBEDDER_SPEC, item, None, None)
    return embedding_chat(EMBEDDER_SPEC, item, sample.tcot, evidence_of(EMBEDDER_SPEC, item, sample.tcot))


def also_right(pairs: list[Pair]) -> Any:
    """Which items answer which queries, shape (n, n)."""
    import torch

    return torch.tensor([[pair.answered_by(other.positive) for other in pairs] for pair in pairs])
