"""The recipe of `ume-tiny`: captions, T-CoTs, then harder T-CoTs for one model and vectors for the other."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from ume_retrieval.chat import Chat
from ume_retrieval.chat_inputs import ChatInputs
from ume_retrieval.checkpoint import write_spec
from ume_training.contrastive import pool_at_token, symmetric_infonce
from ume_training.loop import Schedule, fit
from ume_training.shapes.levels import LEVELS
from ume_training.shapes.tasks import TASKS
from ume_training.supervised import Lesson, completion_loss
from ume_training.tiny.architecture import EMBEDDER_SPEC, REASONER_SPEC, Size, build_model, build_processor
from ume_training.tiny.lessons import (
    also_right,
    caption_lesson,
    pairs_with_look_alikes,
    question_lesson,
    shown_to_embedder,
    trace_lesson,
)
from ume_training.tiny.tokenizer import build_tokenizer


@dataclass(frozen=True, slots=True)
class TinyRecipe:
    """Everything that decides what the pair becomes.

    Attributes:
        seed: Of weights and data.
        level: Name of the Shapes level; "questions" holds all that "default" asks, and more.
        size: Width and depth of both models.
        captions: Schedule of the first stage: pictures to short captions.
        traces: Schedule of the second stage: items to T-CoTs, all tasks alike.
        questions: Schedule of the third: more of the tasks that must point at one thing among several.
        apart: Schedule of the Embedder's first steps, on pairs that have nothing to do with each other: thrown among
            look-alikes at once, it maps everything to one vector and stays there.
        vectors: Schedule of the Embedder among look-alikes.
        lesson_batch: Lessons a step.
        pair_batch: Pairs a step, a multiple of `kin`.
        kin: Pairs of a family of look-alikes.
        trace_share: Share of steps whose inputs carry T-CoTs; 0.5 keeps the direct vector an honest opponent.
    """

    seed: int = 0
    level: str = "questions"
    size: Size = field(default_factory=Size)
    captions: Schedule = field(default_factory=lambda: Schedule(steps=1200, learning_rate=1e-3))
    traces: Schedule = field(default_factory=lambda: Schedule(steps=3500, learning_rate=8e-4))
    questions: Schedule = field(default_factory=lambda: Schedule(steps=3500, learning_rate=6e-4))
    apart: Schedule = field(default_factory=lambda: Schedule(steps=300, learning_rate=6e-4, floor=1.0))
    vectors: Schedule = field(default_factory=lambda: Schedule(steps=1800, learning_rate=6e-4))
    lesson_batch: int = 32
    pair_batch: int = 64
    kin: int = 4
    trace_share: float = 0.5


def learn_captions(recipe: TinyRecipe, run: Path) -> Path:
    """First stage: from random weights to short captions. Returns the checkpoint that both models start from."""
    tokenizer = build_tokenizer(EMBEDDER_SPEC.emb_token)
    processor = build_processor(tokenizer)
    model = build_model(tokenizer, recipe.size, recipe.seed)
    _learn_to_write(model, processor, recipe, run / "captions", lesson=caption_lesson, schedule=recipe.captions)
    return _write(model, processor, run / "captions" / "checkpoint")


def learn_traces(recipe: TinyRecipe, run: Path, start: Path) -> Path:
    """Second stage: from captions to T-CoTs of every task and side. Returns the checkpoint that both models share."""
    model, processor = _load(start)
    _learn_to_write(model, processor, recipe, run / "traces", lesson=trace_lesson, schedule=recipe.traces)
    return _write(model, processor, run / "traces" / "checkpoint")


def learn_questions(recipe: TinyRecipe, run: Path, start: Path, out: Path) -> None:
    """Third stage: the Reasoner learns the tasks that are hardest to reason about, and goes to `out`."""
    model, processor = _load(start)
    _learn_to_write(model, processor, recipe, run / "questions", lesson=question_lesson, schedule=recipe.questions)
    write_spec(REASONER_SPEC, _write(model, processor, out))


def _learn_to_write(
    model: Any, processor: Any, recipe: TinyRecipe, folder: Path, *, lesson: Callable[..., Lesson], schedule: Schedule
) -> None:
    inputs = ChatInputs(processor, "right")
    level = LEVELS[recipe.level]

    def step(rng: random.Random) -> tuple[Any, Mapping[str, float]]:
        return completion_loss(model, inputs, [lesson(rng, level) for _ in range(recipe.lesson_batch)])

    model.train()
    fit(model, step, schedule, folder=folder, name=folder.name, seed=recipe.seed)


def learn_vectors(recipe: TinyRecipe, run: Path, start: Path, out: Path) -> None:
    """Last stage: from T-CoTs to vectors, with and without T-CoTs in the input. The Embedder goes to `out`."""
    model, processor = _load(start)
    inputs = ChatInputs(processor, "right")
    emb_token = processor.tokenizer.convert_tokens_to_ids(EMBEDDER_SPEC.emb_token)
    level = LEVELS[recipe.level]

    def embed(chats: list[Chat]) -> Any:
        batch = inputs.tensors(chats)
        return pool_at_token(model.model(**batch).last_hidden_state, batch["input_ids"], emb_token)

    def step(rng: random.Random, kin: int) -> tuple[Any, Mapping[str, float]]:
        task = TASKS[rng.choice(list(TASKS))]
        with_trace = rng.random() < recipe.trace_share
        pairs = pairs_with_look_alikes(rng, level, task, recipe.pair_batch, kin)
        queries, items = (
            embed([shown_to_embedder(sample, rng, with_trace=with_trace) for sample in samples])
            for samples in ([pair.query for pair in pairs], [pair.positive for pair in pairs])
        )
        loss, figures = symmetric_infonce(queries, items, also_right(pairs))
        mode = "reasoned" if with_trace else "direct"
        return loss, {mode: figures["in_batch_hit@1"], f"{mode}/{task.name}": figures["in_batch_hit@1"]}

    model.train()
    for name, schedule, kin in (("apart", recipe.apart, 1), ("vectors", recipe.vectors, recipe.kin)):
        fit(model, partial(step, kin=kin), schedule, folder=run / name, name=name, seed=recipe.seed)
    write_spec(EMBEDDER_SPEC, _write(model, processor, out))


def _load(folder: Path) -> tuple[Any, Any]:
    from transformers import Qwen3VLForConditionalGeneration, Qwen3VLProcessor

    return Qwen3VLForConditionalGeneration.from_pretrained(folder), Qwen3VLProcessor.from_pretrained(folder)


def _write(model: Any, processor: Any, out: Path) -> Path:
    out.mkdir(parents=True, exist_ok=True)
    model.save_pretrained(out)
    processor.save_pretrained(out)
    return out
