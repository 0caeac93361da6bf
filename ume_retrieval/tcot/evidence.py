"""Evidence pictures of a T-CoT: crops of its boxes, and its key frames."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import PIL.Image

from ume_retrieval.inputs import LoadedItem
from ume_retrieval.profiles import EVERY_CUE, EvidenceRule
from ume_retrieval.tcot.cues import SCALE
from ume_retrieval.tcot.trace import Box, TCot


@dataclass(frozen=True, slots=True)
class EvidenceRef:
    """Origin of an evidence picture.

    Attributes:
        kind: A crop of an image, or a frame of a video.
        media: Which image (crop) or video (frame) of the item, 0-based.
        box: The box of a crop, else None.
        frame: The frame's number in its own video, 1-based, else None.
        time_s: The frame's time in seconds from the start of the file, else None.
    """

    kind: Literal["crop", "frame"]
    media: int
    box: Box | None
    frame: int | None
    time_s: float | None


@dataclass(frozen=True, slots=True)
class Evidence:
    """The pictures that go into the Embedder's input between `</thinking>` and `<rethink>`.

    Attributes:
        images: RGB crops and frames at their own size, in cue order: boxes first, then key frames.
        refs: Origin of each picture.
        dropped: Number of cues without a picture: beyond the limit, excluded by the rule, or on media that the item
            lacks.
    """

    images: tuple[PIL.Image.Image, ...]
    refs: tuple[EvidenceRef, ...]
    dropped: int


def extract(tcot: TCot, item: LoadedItem, limit: int, rule: EvidenceRule = EVERY_CUE) -> Evidence:
    """Crop the evidence of a T-CoT from its item.

    Frames are numbered across videos: with 8 frames in the first, key frame 9 is the first frame of the second.

    Args:
        tcot: The trace; boxes in 0..1000 of their image, key frames 1-based.
        item: The pixels that the Reasoner saw, in the same sampling.
        limit: Most pictures, >= 0; further ones are counted as dropped.
        rule: How crops are rounded, which are left out, and how frames are numbered.

    Example:
        >>> image = PIL.Image.new("RGB", (200, 100))
        >>> item = LoadedItem(None, (image,), (), None, "id")
        >>> evidence = extract(TCot(boxes=(Box(0, 0, 500, 1000),)), item, limit=4)
        >>> evidence.images[0].size, evidence.dropped
        ((100, 100), 0)
    """
    found = [(ref, image) for ref, image in (*_crops(tcot, item, rule), *_frames(tcot, item, rule))][: max(limit, 0)]
    return Evidence(
        images=tuple(image for _, image in found),
        refs=tuple(ref for ref, _ in found),
        dropped=len(tcot.boxes) + len(tcot.key_frames) - len(found),
    )


def crop_pixels(box: Box, width: int, height: int, rule: EvidenceRule = EVERY_CUE) -> tuple[int, int, int, int]:
    """Pixel rectangle (left, top, right, bottom) of a box in an image of this size.

    By default rounded outwards, clamped to the image, and at least 16 pixels wide and high where the image is.

    Example:
        >>> crop_pixels(Box(250, 500, 750, 1000), 400, 100)
        (100, 50, 300, 100)
        >>> crop_pixels(Box(0, 0, 1, 1), 400, 100)
        (0, 0, 16, 16)
    """
    left, right = _span(box.x1, box.x2, width, rule)
    top, bottom = _span(box.y1, box.y2, height, rule)
    return left, top, right, bottom


def _is_shown(size: tuple[int, int], rule: EvidenceRule) -> bool:
    shorter, longer = sorted(size)
    too_small = rule.small == "omit" and shorter < rule.min_side
    return not too_small and (rule.max_aspect is None or longer <= rule.max_aspect * shorter)


def _span(low: int, high: int, size: int, rule: EvidenceRule) -> tuple[int, int]:
    low, high = (min(max(value, 0), SCALE) for value in sorted((low, high)))
    start = low * size // SCALE
    end = high * size // SCALE if rule.rounding == "down" else -(-high * size // SCALE)
    least = min(rule.min_side, size)
    if rule.small == "widen" and end - start < least:
        start = min(max((start + end - least) // 2, 0), size - least)
        end = start + least
    return start, end


def _crops(tcot: TCot, item: LoadedItem, rule: EvidenceRule) -> Iterator[tuple[EvidenceRef, PIL.Image.Image]]:
    for box in tcot.boxes:
        if 0 <= box.image < len(item.images):
            image = item.images[box.image]
            left, top, right, bottom = crop_pixels(box, *image.size, rule)
            if _is_shown((right - left, bottom - top), rule):
                yield EvidenceRef("crop", box.image, box, None, None), image.crop((left, top, right, bottom))


def _frames(tcot: TCot, item: LoadedItem, rule: EvidenceRule) -> Iterator[tuple[EvidenceRef, PIL.Image.Image]]:
    numbered = [(media, index) for media, frames in enumerate(item.videos) for index in range(len(frames.images))]
    for number in tcot.key_frames:
        if 0 <= (place := number - rule.first_frame) < len(numbered):
            media, index = numbered[place]
            frames = item.videos[media]
            yield EvidenceRef("frame", media, None, index + 1, frames.timestamps[index]), frames.images[index]
