"""The stages of the small pair: captions, T-CoTs, then harder T-CoTs for one model and vectors for the other."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, TypeAlias

from ume_retrieval.chat import Chat
from ume_retrieval.checkpoint import EmbedderSpec, ReasonerSpec, write_spec
from ume_retrieval.engines.transformers.processor import ChatInputs
from ume_retrieval.errors import InputError
from ume_training.contrastive import pool_at_token, symmetric_infonce
from ume_training.shapes.levels import LEVELS, Level
from ume_training.shapes.pair.architecture import EMBEDDER_SPEC, REASONER_SPEC, Size, build_model, build_processor
from ume_training.shapes.pair.loop import Schedule, fit
from ume_training.shapes.pair.sft_examples import (
    SFTExample,
    also_right,
    caption_example,
    completion_loss,
    pairs_with_look_alikes,
    question_example,
    shown_to_embedder,
    trace_example,
)
from ume_training.shapes.pair.tokenizer import build_tokenizer
from ume_training.shapes.tasks import TASKS

CHECKPOINT = "checkpoint"
"""Folder of a stage's result, inside the stage's own folder."""


@dataclass(frozen=True, slots=True)
class TinyRecipe:
    """Settings of the small pair's stages; those of the bundled pair are in `recipes/bundled/shapes.yaml`.

    Attributes:
        seed: Of weights and data.
        level: Name of the Shapes level; "questions" holds all that "default" asks, and more.
        size: Width and depth of both models.
        captions: Schedule of the first stage: pictures to short captions. A stage that is not run needs no schedule.
        traces: Schedule of the second stage: items to T-CoTs, all tasks alike.
        questions: Schedule of the third: more of the tasks that must point at one thing among several.
        warm_start: Schedule of the Embedder's first steps, on unrelated pairs; among look-alikes from the start, it
            collapses to one vector.
        vectors: Schedule of the Embedder among look-alikes.
        sft_batch: Examples a step.
        pair_batch: Pairs a step, a multiple of `group_size`.
        group_size: Pairs of a family of look-alikes.
        trace_share: Share of steps whose inputs carry T-CoTs; 0.5 keeps the direct vector an honest opponent.
    """

    seed: int = 0
    level: str = "questions"
    size: Size = field(default_factory=Size)
    captions: Schedule | None = None
    traces: Schedule | None = None
    questions: Schedule | None = None
    warm_start: Schedule | None = None
    vectors: Schedule | None = None
    sft_batch: int = 32
    pair_batch: int = 64
    group_size: int = 4
    trace_share: float = 0.5

    def schedule(self, stage: str) -> Schedule:
        """Return the schedule of a stage.

        Raises:
            InputError: If it does not exist.
        """
        found: Schedule | None = getattr(self, stage)
        if found is None:
            raise InputError(f"the stage {stage} needs a schedule", hint=f"give TinyRecipe({stage}=Schedule(...))")
        return found


DrawsExample: TypeAlias = Callable[[random.Random, Level], SFTExample]


def learn_captions(recipe: TinyRecipe, run: Path) -> Path:
    """First stage: from random weights to short captions. Returns the checkpoint that both models start from."""
    tokenizer = build_tokenizer(EMBEDDER_SPEC.emb_token)
    model = build_model(tokenizer, recipe.size, recipe.seed)
    processor, schedule = build_processor(tokenizer), recipe.schedule("captions")
    return _learn_to_write(model, processor, recipe, run / "captions", example=caption_example, schedule=schedule)


def learn_traces(recipe: TinyRecipe, run: Path, start: Path) -> Path:
    """Second stage: from captions to T-CoTs of every task and side. Returns the checkpoint that both models share."""
    return learn_more(recipe, run / "traces", start, trace_example, recipe.schedule("traces"))


def learn_questions(recipe: TinyRecipe, run: Path, start: Path) -> Path:
    """Third stage: the Reasoner alone learns the tasks that are hardest to reason about. Returns its checkpoint."""
    return learn_more(recipe, run / "questions", start, question_example, recipe.schedule("questions"))


def learn_more(recipe: TinyRecipe, folder: Path, start: Path, example: DrawsExample, schedule: Schedule) -> Path:
    """Go on learning to write from a checkpoint, with any examples.

    Args:
        recipe: What the stages share.
        folder: Where state, log and result are kept; its name is part of the draw of each batch.
        start: Checkpoint to start from.
        example: Draws a example.
        schedule: Steps and learning rates.

    Returns:
        The checkpoint, which describes itself as a Reasoner.
    """
    model, processor = _load(start)
    return _learn_to_write(model, processor, recipe, folder, example=example, schedule=schedule)


def _learn_to_write(
    model: Any, processor: Any, recipe: TinyRecipe, folder: Path, *, example: DrawsExample, schedule: Schedule
) -> Path:
    inputs = ChatInputs(processor, "right")
    level = LEVELS[recipe.level]

    def step(rng: random.Random) -> tuple[Any, Mapping[str, float]]:
        return completion_loss(model, inputs, [example(rng, level) for _ in range(recipe.sft_batch)])

    model.train()
    fit(model, step, schedule, folder=folder, name=folder.name, seed=recipe.seed)
    return _write(model, processor, folder / CHECKPOINT, REASONER_SPEC)


def learn_vectors(recipe: TinyRecipe, run: Path, start: Path) -> Path:
    """Last stage: from T-CoTs to vectors, with and without T-CoTs in the input. Returns the Embedder's checkpoint."""
    model, processor = _load(start)
    step = _pair_step(model, ChatInputs(processor, "right"), recipe)
    model.train()
    # The names are those of folders and random streams of earlier runs.
    for name, stage, group_size in (("apart", "warm_start", 1), ("vectors", "vectors", recipe.group_size)):
        folder, schedule = run / "vectors" / name, recipe.schedule(stage)
        fit(model, partial(step, group_size=group_size), schedule, folder=folder, name=name, seed=recipe.seed)
    return _write(model, processor, run / "vectors" / CHECKPOINT, EMBEDDER_SPEC)


def _pair_step(model: Any, inputs: ChatInputs, recipe: TinyRecipe) -> Callable[..., tuple[Any, Mapping[str, float]]]:
    emb_token = inputs.tokenizer.convert_tokens_to_ids(EMBEDDER_SPEC.emb_token)
    level = LEVELS[recipe.level]

    def embed(chats: list[Chat]) -> Any:
        batch = inputs.tensors(chats)
        return pool_at_token(model.model(**batch).last_hidden_state, batch["input_ids"], emb_token)

    def step(rng: random.Random, group_size: int) -> tuple[Any, Mapping[str, float]]:
        task = TASKS[rng.choice(list(TASKS))]
        with_trace = rng.random() < recipe.trace_share
        pairs = pairs_with_look_alikes(rng, level, task, recipe.pair_batch, group_size)
        queries, items = (
            embed([shown_to_embedder(sample, rng, with_trace=with_trace) for sample in samples])
            for samples in ([pair.query for pair in pairs], [pair.positive for pair in pairs])
        )
        loss, figures = symmetric_infonce(queries, items, also_right(pairs))
        mode = "reasoned" if with_trace else "direct"
        return loss, {mode: figures["in_batch_hit@1"], f"{mode}/{task.name}": figures["in_batch_hit@1"]}

    return step


def _load(folder: Path) -> tuple[Any, Any]:
    from transformers import Qwen3VLForConditionalGeneration, Qwen3VLProcessor

    return Qwen3VLForConditionalGeneration.from_pretrained(folder), Qwen3VLProcessor.from_pretrained(folder)


def _write(model: Any, processor: Any, out: Path, spec: ReasonerSpec | EmbedderSpec) -> Path:
    out.mkdir(parents=True, exist_ok=True)
    model.save_pretrained(out)
    processor.save_pretrained(out)
    write_spec(spec, out)
    return out
