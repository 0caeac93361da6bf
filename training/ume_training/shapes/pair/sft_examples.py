"""Training batches for the bundled pair: prompts and replies of the Reasoner, inputs of the Embedder."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ume_retrieval.chat import Chat
from ume_retrieval.engines.families import embedding_chat, evidence_of
from ume_retrieval.engines.resize import fit_chat
from ume_retrieval.engines.transformers.processor import ChatInputs
from ume_retrieval.inputs import Side
from ume_retrieval.tcot.grammar import render
from ume_retrieval.tcot.prompts import reasoner_chat
from ume_training.shapes.levels import Level
from ume_training.shapes.pair.architecture import BUDGET, EMBEDDER_SPEC, PROMPTS
from ume_training.shapes.samples import Pair, Sample
from ume_training.shapes.tasks import TASKS, Task, family

END_OF_TURN = "<|im_end|>"


@dataclass(frozen=True, slots=True)
class SFTExample:
    """A chat and the reply to learn.

    Attributes:
        chat: A fitted chat that ends with the user's turn.
        completion: The reply, without the token that ends it.
    """

    chat: Chat
    completion: str


def completion_loss(model: Any, inputs: ChatInputs, examples: Sequence[SFTExample]) -> tuple[Any, dict[str, float]]:
    """Cross-entropy over the completions' tokens alone.

    Args:
        model: A causal language model with pictures.
        inputs: Builder of its tensors, padding on the right.
        examples: The batch.

    Returns:
        The loss, and the share of completion tokens that greedy decoding would get right.
    """
    import torch

    replies = [example.completion + END_OF_TURN for example in examples]
    batch = inputs.tensors([example.chat for example in examples], replies)
    lengths = [len(ids) for ids in inputs.tokenizer(replies, add_special_tokens=False)["input_ids"]]
    ends = batch["attention_mask"].sum(1).tolist()
    labels = torch.full_like(batch["input_ids"], -100)
    for row, (length, end) in enumerate(zip(lengths, ends, strict=True)):
        labels[row, end - length : end] = batch["input_ids"][row, end - length : end]
    hidden = model.model(**batch).last_hidden_state[:, :-1]
    wanted = labels[:, 1:]
    # Only the positions that are scored go through the vocabulary.
    logits = model.lm_head(hidden[wanted != -100])
    targets = wanted[wanted != -100]
    loss = torch.nn.functional.cross_entropy(logits, targets)
    correct = (logits.argmax(-1) == targets).float().mean().item()
    return loss, {"token_accuracy": correct, "tokens": float(sum(ends))}


def caption_example(rng: random.Random, level: Level) -> SFTExample:
    """Return a picture, clip or page, and its description alone: the first thing to learn."""
    pair = TASKS[rng.choice(("text_to_image", "text_to_image", "text_to_video", "page_retrieval", "grounding"))]
    sample = pair.draw(rng, level).positive
    return SFTExample(_asked(sample, "corpus", rng), sample.tcot.answer)


def trace_example(rng: random.Random, level: Level) -> SFTExample:
    """Either side of a pair of any task, and its T-CoT."""
    pair = TASKS[rng.choice(list(TASKS))].draw(rng, level)
    side: Side = (
        rng.choice(("query", "query", "corpus")) if pair.positive.shown is None else rng.choice(("query", "corpus"))
    )
    sample = pair.query if side == "query" else pair.positive
    return SFTExample(_asked(sample, side, rng), render(sample.tcot))


BINDING_TASKS = ("image_question", "image_change", "grounding")
"""Tasks whose evidence is one thing among several: the last that a small model learns."""


def question_example(rng: random.Random, level: Level) -> SFTExample:
    """Three times in four a query of the tasks that must point at one thing, else any example."""
    if rng.random() < 0.25:
        return trace_example(rng, level)
    sample = TASKS[rng.choice(BINDING_TASKS)].draw(rng, level).query
    return SFTExample(_asked(sample, "query", rng), render(sample.tcot))


def _asked(sample: Sample, side: Side, rng: random.Random) -> Chat:
    return fit_chat(reasoner_chat(sample.item(rng), side, PROMPTS), BUDGET)


def pairs_with_look_alikes(rng: random.Random, level: Level, task: Task, count: int, group_size: int) -> list[Pair]:
    """`count` pairs of one task, in families of `group_size` that are one change apart."""
    return [pair for _ in range(count // group_size) for pair in family(task, rng, level, group_size)]


def shown_to_embedder(sample: Sample, rng: random.Random, *, with_trace: bool) -> Chat:
    """Return a sample as the Embedder reads it, with its true T-CoT and evidence or without."""
    item = sample.item(rng)
    if not with_trace:
        return embedding_chat(EMBEDDER_SPEC, item, None, None)
    return embedding_chat(EMBEDDER_SPEC, item, sample.tcot, evidence_of(EMBEDDER_SPEC, item, sample.tcot))


def also_right(pairs: list[Pair]) -> Any:
    """Return a mask of the items that answer each query, shape (n, n)."""
    import torch

    return torch.tensor([[pair.answered_by(other.positive) for other in pairs] for pair in pairs])
