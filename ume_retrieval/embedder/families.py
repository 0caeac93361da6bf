"""Families: how each kind of Embedder wants its input written. Pure functions from an item to a chat."""

from __future__ import annotations

import unicodedata
from typing import TYPE_CHECKING

from ume_retrieval.chat import Chat, ImagePart, Message, Part, TextPart, VideoPart
from ume_retrieval.checkpoint import EmbedderSpec
from ume_retrieval.errors import ReasoningError
from ume_retrieval.fitting import fit_frames, fit_image
from ume_retrieval.inputs import LoadedItem, Side
from ume_retrieval.tcot.grammar import neutralise, split_for_evidence

if TYPE_CHECKING:
    from ume_retrieval.tcot.evidence import Evidence
    from ume_retrieval.tcot.trace import TCot


def embedding_chat(
    spec: EmbedderSpec, item: LoadedItem, tcot: TCot | None, evidence: Evidence | None, side: Side | None = None
) -> Chat:
    """Write an item, and its T-CoT when there is one, as the chat that the Embedder's family was trained on.

    Args:
        spec: The checkpoint's own description: family, prompts, visual budget.
        item: Text and pixels.
        tcot: The trace, or None for a direct embedding.
        evidence: Crops or key frames of the trace, or None.
        side: End of retrieval that the item is on. Only the sentence-transformers family makes a difference; None
            embeds as `SentenceTransformer.encode` does.

    Returns:
        A chat whose pictures are fitted to the budget. The sentence-transformers family gets them at their own size,
        because its processor resizes as the authors meant it, and the item's instruction as the system turn.

    Raises:
        ReasoningError: When only the answer is wanted of a trace that has none.
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
    told = (Message("system", (TextPart(neutralise(words)),)),) if (words := _instruction(item)) else ()
    return (*told, Message("user", parts, side))


def _media(spec: EmbedderSpec, item: LoadedItem) -> list[Part]:
    if spec.family == "sentence-transformers":
        return [*map(ImagePart, item.images), *map(VideoPart, item.videos)]
    budget = spec.budget
    images = [ImagePart(fit_image(i, budget.image_min_pixels, budget.image_max_pixels)) for i in item.images]
    videos = [VideoPart(fit_frames(frames, budget)) for frames in item.videos]
    # Qwen3-VL-Embedding puts videos first; Embed-RL's released code keeps images first.
    return [*videos, *images] if spec.family == "qwen3-vl-embedding" else [*images, *videos]


def _words(spec: EmbedderSpec, item: LoadedItem) -> list[Part]:
    # Embed-RL has no turn for the instruction: it leads the text.
    instruction = _instruction(item) if spec.family == "embed-rl" else None
    return [TextPart(neutralise("\n".join(words)))] if (words := [w for w in (instruction, item.text) if w]) else []


def _instruction(item: LoadedItem) -> str | None:
    """The item's instruction; a blank one is none."""
    return item.instruction if item.instruction and item.instruction.strip() else None


def _trace(spec: EmbedderSpec, tcot: TCot | None, evidence: Evidence | None) -> list[Part]:
    if tcot is None:
        return []
    budget = spec.budget
    pictures = evidence.images if evidence else ()
    if spec.family != "sentence-transformers":
        pictures = tuple(fit_image(i, budget.crop_min_pixels, budget.crop_max_pixels) for i in pictures)
    crops = [ImagePart(picture) for picture in pictures]
    if spec.trace_part == "answer":
        if not tcot.answer.strip():
            raise ReasoningError(
                "the trace has no answer, and this model embeds nothing else of it",
                hint="try another Reasoner, or encode this item with reasoning='never'",
            )
        return [*crops, TextPart(neutralise(tcot.answer))]
    thinking, conclusion = split_for_evidence(tcot)
    return [TextPart(thinking), *crops, TextPart(conclusion)]


def _sentence(instruction: str) -> str:
    """The published code closes an instruction with a full stop when it ends in no punctuation."""
    text = neutralise(instruction.strip())
    return text if not text or unicodedata.category(text[-1]).startswith("P") else text + "."
