"""Supervised training of a Reasoner: from an item to the text that it should write."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ume_retrieval.chat import Chat
from ume_retrieval.engines.transformers.processor import ChatInputs

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
