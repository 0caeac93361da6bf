"""Families: how each kind of Embedder or reranker wants its input written. Pure functions from items to chats."""

from __future__ import annotations

import unicodedata
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final, TypeAlias

from ume_retrieval.chat import Chat, ImagePart, Message, Pair, Part, TextPart, VideoPart
from ume_retrieval.checkpoint import EmbedderSpec, RerankerSpec
from ume_retrieval.engines.resize import fit_frames, fit_image
from ume_retrieval.errors import InputError, ReasoningError
from ume_retrieval.inputs import Frames, LoadedItem, Side
from ume_retrieval.tcot.evidence import Evidence, extract
from ume_retrieval.tcot.grammar import (
    break_tags,
    is_usable,
    neutralise,
    parse,
    split_for_evidence,
    split_reply,
    validate,
)

if TYPE_CHECKING:
    from ume_retrieval.tcot.trace import TCot

Written: TypeAlias = EmbedderSpec | RerankerSpec
"""A description of how a model's pictures and words are written."""

JUDGE: Final = (
    "Judge whether the Document meets the requirements based on the Query and the Instruct provided. "
    'Note that the answer can only be "yes" or "no".'
)
"""System turn of Qwen3-VL-Reranker, as published."""

OWN_PICTURES: Final = ("sentence-transformers", "cross-encoder")
"""Families whose models resize pictures themselves."""

MOST_ASPECT: Final = 200
"""Longest side of a picture in its shortest one, above which the published reranker does not see it."""

HALF_SECOND = 0.5
"""Seconds that qwen-vl-utils assumes between frames when there is only one."""


@dataclass(frozen=True, slots=True)
class ReasonedChat:
    """An item with a reply about it, as an Embedder reads them.

    Attributes:
        tcot: The reply, parsed.
        evidence: The pictures that it names.
        chat: Both with the item, ready for an engine.
    """

    tcot: TCot
    evidence: Evidence
    chat: Chat


def reasoned_chat(
    spec: EmbedderSpec, item: LoadedItem, reply: str, side: Side | None = None, *, seen: LoadedItem | None = None
) -> ReasonedChat:
    """Write an item and the Reasoner's reply about it for an Embedder: the way from reply to vector that all share.

    Args:
        spec: The Embedder's description.
        item: Text and pixels, as the Embedder samples them.
        reply: What the Reasoner wrote.
        side: End of retrieval that the item is on, as in `embedding_chat`.
        seen: The item as the Reasoner sampled it, when that differs; evidence is cut out of it.

    Raises:
        ReasoningError: When the reply says nothing that can be embedded.
    """
    view = seen or item
    tcot = parse_about(view, reply)
    evidence = evidence_of(spec, view, tcot)
    return ReasonedChat(tcot, evidence, embedding_chat(spec, item, tcot, evidence, side))


def parse_about(seen: LoadedItem, reply: str) -> TCot:
    """Parse a reply about an item as the Reasoner sampled it; cues beyond its images and frames are dropped."""
    frames = sum(len(video.images) for video in seen.videos)
    return parse(reply, images=len(seen.images), frames=frames or None)


def evidence_of(spec: EmbedderSpec, seen: LoadedItem, tcot: TCot) -> Evidence:
    """Crop the evidence of a T-CoT that the Embedder is shown.

    Raises:
        ReasoningError: When the T-CoT says nothing that can be embedded.
    """
    if not is_usable(tcot):
        names = {problem.name for problem in (*tcot.problems, *validate(tcot, seen.modality))}
        raise ReasoningError(
            f"the Reasoner wrote no usable trace ({', '.join(sorted(names))})",
            hint="try another Reasoner or more max_tokens, or encode this item with reasoning='never'",
        )
    return extract(tcot, seen, spec.budget.evidence_images, spec.profile.evidence)


def embedding_chat(
    spec: EmbedderSpec, item: LoadedItem, tcot: TCot | None, evidence: Evidence | None, side: Side | None = None
) -> Chat:
    """Write an item, and its T-CoT when there is one, as the chat that the Embedder's family was trained on.

    Args:
        spec: The checkpoint's own description: family, profile, prompts, visual budget.
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
    several = _is_several(spec, item)
    content = {"text": _words(spec, item), "images": _images(spec, item), "videos": _videos(spec, item)}
    order = spec.profile.order_of_several if several else spec.profile.order
    parts = (*(part for kind in order for part in content[kind]), *_trace(spec, tcot, _crops(spec, item, evidence)))
    if spec.family == "embed-rl":
        # arXiv 2602.13823, section 3: [text, image, video, T-CoT, <emb>]; turn order as in the released code.
        return (
            Message("user", (*parts, TextPart(spec.summary_prompt))),
            Message("assistant", (TextPart(spec.emb_token),)),
        )
    if spec.family == "qwen3-vl-embedding":
        # QwenLM/Qwen3-VL-Embedding 8ce3aab, src/models/qwen3_vl_embedding.py: the instruction is the system turn.
        system = Message("system", (TextPart(_sentence(spec, _instruction(item) or spec.default_instruction)),))
        return (system, Message("user", parts))
    user = Message("user", parts, side)
    instruction = _instruction(item)
    return (Message("system", (TextPart(_safe(spec, instruction)),)), user) if instruction else (user,)


def reranking_pair(spec: RerankerSpec, query: LoadedItem, item: LoadedItem) -> Pair:
    """Write a query and an item for a reranker: on each side videos, pictures, text, as published; nothing is stripped.

    Args:
        spec: The model's description.
        query: What is searched for; its instruction is the retrieval task.
        item: What may answer it; its instruction is not used.

    Returns:
        A pair whose pictures are fitted to the budget, unless the model resizes them itself.

    Raises:
        InputError: When a picture is more than 200 times as long as wide, which the published model does not see.
    """
    return Pair(_side(spec, query), _side(spec, item), query.instruction or None)


def pair_chat(spec: RerankerSpec, pair: Pair) -> Chat:
    """Write a pair as the chat of Qwen3-VL-Reranker, whose answer would be "yes" or "no".

    QwenLM/Qwen3-VL-Embedding 8ce3aab, src/models/qwen3_vl_reranker.py.
    """
    task = TextPart(f"<Instruct>: {_safe(spec, pair.instruction or spec.default_instruction)}")
    asked = (task, TextPart("<Query>:"), *pair.query, TextPart("\n<Document>:"), *pair.document)
    return (Message("system", (TextPart(JUDGE),)), Message("user", asked))


def _side(spec: RerankerSpec, item: LoadedItem) -> tuple[Part, ...]:
    if spec.family == "qwen3-vl-reranker":
        for image in (*item.images, *(frame for video in item.videos for frame in video.images)):
            if max(image.size) > MOST_ASPECT * min(image.size):
                raise InputError(
                    f"a picture of {image.width} x {image.height} pixels is too long for this reranker",
                    hint=f"cut it: its longest side may be {MOST_ASPECT} times its shortest",
                )
    words = [TextPart(_safe(spec, item.text))] if item.text else []
    return (*_videos(spec, item), *_images(spec, item), *words)


def _is_several(spec: Written, item: LoadedItem) -> bool:
    """Whether an item counts as several pictures: a video part does, a single frame shown as an image does not."""
    as_images = spec.profile.videos == "images"
    return len(item.images) + sum(len(video.images) if as_images else 2 for video in item.videos) > 1


def _frame_bounds(spec: Written, item: LoadedItem) -> tuple[int, int] | None:
    """Bounds of all pictures of an item that is shown like the frames of a video; None for any other item."""
    if spec.profile.several_as_frames and _is_several(spec, item):
        return spec.budget.frame_min_pixels, spec.budget.frame_max_pixels
    return None


def _images(spec: Written, item: LoadedItem) -> list[Part]:
    if spec.family in OWN_PICTURES:
        return [*map(ImagePart, item.images)]
    bounds = _frame_bounds(spec, item) or (spec.budget.image_min_pixels, spec.budget.image_max_pixels)
    images = item.images
    if spec.profile.videos == "images":
        images = (*images, *(image for video in item.videos for image in video.images))
    return [ImagePart(fit_image(image, *bounds)) for image in images]


def _videos(spec: Written, item: LoadedItem) -> list[Part]:
    profile, budget = spec.profile, spec.budget
    if spec.family in OWN_PICTURES:
        return [*map(VideoPart, item.videos)]
    if profile.videos == "images":
        return []
    videos = [_thinned(video, budget.video_frames) if profile.thin_frames else video for video in item.videos]
    videos = [_even(video) if profile.repeat_odd_frame else video for video in videos]
    return [VideoPart(fit_frames(video, budget, profile), doubled=profile.doubled_vision_tokens) for video in videos]


def _thinned(frames: Frames, most: int) -> Frames:
    """At most so many frames, spread evenly from the first to the last; places are rounded down, as published."""
    count = len(frames.images)
    if count <= most:
        return frames
    places = [place * (count - 1) // (most - 1) if most > 1 else 0 for place in range(most)]
    images = tuple(frames.images[place] for place in places)
    return replace(frames, images=images, timestamps=tuple(frames.timestamps[place] for place in places))


def _even(frames: Frames) -> Frames:
    """An even number of frames: the last one is shown again, one step later."""
    if len(frames.images) % 2 == 0:
        return frames
    times = frames.timestamps
    step = times[-1] - times[-2] if len(times) > 1 else HALF_SECOND
    return replace(frames, images=(*frames.images, frames.images[-1]), timestamps=(*times, times[-1] + step))


def _words(spec: EmbedderSpec, item: LoadedItem) -> list[Part]:
    # Embed-RL puts the instruction before the text, not in a system turn.
    instruction = _instruction(item) if spec.family == "embed-rl" else None
    text = spec.profile.instruction_joiner.join(words for words in (instruction, item.text) if words)
    if spec.profile.strip_text:
        text = text.strip()
    return [TextPart(_inert(spec, text))] if text else []


def _instruction(item: LoadedItem) -> str | None:
    """The item's instruction; None if blank."""
    return item.instruction if item.instruction and item.instruction.strip() else None


def _crops(spec: EmbedderSpec, item: LoadedItem, evidence: Evidence | None) -> list[ImagePart]:
    images = evidence.images if evidence else ()
    if spec.family == "sentence-transformers":
        return [*map(ImagePart, images)]
    # Evidence of several pictures gets the budget of a frame where those do.
    bounds = _frame_bounds(spec, item) or (spec.budget.crop_min_pixels, spec.budget.crop_max_pixels)
    return [ImagePart(fit_image(image, *bounds)) for image in images]


def _trace(spec: EmbedderSpec, tcot: TCot | None, crops: list[ImagePart]) -> list[Part]:
    if tcot is None:
        return []
    if spec.trace_part == "answer":
        if not tcot.answer.strip():
            raise ReasoningError(
                "the trace lacks an answer, the only part of it that this model embeds",
                hint="try another Reasoner, or encode this item with reasoning='never'",
            )
        return [*crops, TextPart(_safe(spec, tcot.answer))]
    profile = spec.profile
    if profile.trace == "rendered" or not tcot.raw:
        # A T-CoT that was built by hand exists in the canonical form only.
        thinking, conclusion = split_for_evidence(tcot)
    elif (pieces := split_reply(_safe(spec, tcot.raw))) is not None:
        thinking, conclusion = pieces
    else:
        return [TextPart(_safe(spec, tcot.raw)), *crops]  # nowhere to cut it
    if profile.trace == "reply":
        thinking += profile.after_thinking
    return [TextPart(thinking), *crops, *([TextPart(conclusion)] if conclusion else [])]


def _safe(spec: Written, words: str) -> str:
    return neutralise(words, spec.profile.control_tokens)


def _inert(spec: EmbedderSpec, words: str) -> str:
    """Words of an item, which must not look like its trace to an Embedder that reads traces with their tags."""
    safe = neutralise(words, spec.profile.control_tokens)
    return safe if spec.family == "sentence-transformers" else break_tags(safe)


def _sentence(spec: EmbedderSpec, instruction: str) -> str:
    """The published code closes an instruction with a full stop when it ends in no punctuation."""
    text = _inert(spec, instruction.strip())
    return text if not text or unicodedata.category(text[-1]).startswith("P") else text + "."
