"""Families: how each kind of Embedder wants its input written. Pure functions from an item to a chat."""

from __future__ import annotations

import unicodedata
from typing import TYPE_CHECKING

from ume_retrieval.chat import Chat, ImagePart, Message, Part, TextPart, VideoPart
from ume_retrieval.checkpoint import EmbedderSpec
from ume_retrieval.engines.resize import fit_frames, fit_image
from ume_retrieval.inputs import LoadedItem
from ume_retrieval.tcot.grammar import neutralise, split_for_evidence

if TYPE_CHECKING:
    from ume_retrieval.tcot.evidence import Evidence
    from ume_retrieval.tcot.trace import TCot


def embedding_chat(spec: EmbedderSpec, item: LoadedItem, tcot: TCot | None, evidence: Evidence | None) -> Chat:
    """Write an item, and its T-CoT when there is one, as the chat that the Embedder's family was trained on.

    Args:
        spec: The checkpoint's own description: family, prompts, visual budget.
        item: Text and pixels.
        tcot: The trace, or None for a direct embedding.
        evidence: Crops or key frames of the trace, or None.

    Returns:
        A chat whose pictures are fitted to the budget.
    """
    parts = (*_media(spec, item), *_words(spec, item), *_trace(spec, tcot, evidence))
    if spec.family == "embed-rl":
        # arXiv 2602.13823, section 3: [text, image, video, T-CoT, <emb>]; turn order as in the released code.
        return (
            Message("user", (*parts, TextPart(spec.summary_prompt))),
            Message("assistant", (TextPart(spec.emb_token),)),
        )
    if spec.family == "qwen3-vl-embedding":
        # QwenLM/Qwen3-VL-Embedding 8ce3aab, src/models/qwen3_vl_embedding.py: the instruction is the system turn.
        system = Message("system", (TextPart(_sentence(_instruction(item) or spec.default_instruction)),))
        return (system, Message("user", parts))
    return (Message("user", parts),)


def _media(spec: EmbedderSpec, item: LoadedItem) -> list[Part]:
    budget = spec.budget
    images = [ImagePart(fit_image(i, budget.image_min_pixels, budget.image_max_pixels)) for i in item.images]
    videos = [VideoPart(fit_frames(frames, budget)) for frames in item.videos]
    # Qwen3-VL-Embedding puts videos first; Embed-RL's released code keeps images first.
    return [*videos, *images] if spec.family == "qwen3-vl-embedding" else [*images, *videos]


def _words(spec: EmbedderSpec, item: LoadedItem) -> list[Part]:
    # Only Qwen3-VL-Embedding has a turn of its own for the instruction; elsewhere it leads the text.
    instruction = None if spec.family == "qwen3-vl-embedding" else _instruction(item)
    return [TextPart(neutralise("\n".join(words)))] if (words := [w for w in (instruction, item.text) if w]) else []


def _instruction(item: LoadedItem) -> str | None:
    """The item's instruction; a blank one is none."""
    return item.instruction if item.instruction and item.instruction.strip() else None


def _trace(spec: EmbedderSpec, tcot: TCot | None, evidence: Evidence | None) -> list[Part]:
    if tcot is None:
        return []
    thinking, conclusion = split_for_evidence(tcot)
    budget = spec.budget
    pictures = evidence.images if evidence else ()
    crops = [ImagePart(fit_image(i, budget.crop_min_pixels, budget.crop_max_pixels)) for i in pictures]
    return [TextPart(thinking), *crops, TextPart(conclusion)]


def _sentence(instruction: str) -> str:
    """The published code closes an instruction with a full stop when it ends in no punctuation."""
    text = neutralise(instruction.strip())
    return text if not text or unicodedata.category(text[-1]).startswith("P") else text + "."
