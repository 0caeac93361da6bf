"""Convert mteb's batches to items: texts, images and videos in any combination."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Final

import PIL.Image

from ume_retrieval.errors import InputError
from ume_retrieval.inputs import Frames, Item

MOST_FRAMES: Final = 64
"""Most frames that are read of a video, evenly spaced; the model's budget then chooses among them."""

EMPTY: Final = "(empty)"
"""Replaces blank texts, which some tasks have."""


def items_of(batches: Iterable[Mapping[str, Any]], instruction: str | None) -> Iterator[Item]:
    """Yield the items of a data loader's batches, in order.

    Args:
        batches: Columns by name, each a list with one entry per row; "text", "image" and "video" are read.
        instruction: The task's instruction for queries; None for documents.

    Raises:
        InputError: When a batch lacks all these columns.
    """
    for batch in batches:
        columns = {name: batch[name] for name in ("text", "image", "video") if name in batch}
        if not columns:
            raise InputError(f"a batch has columns {', '.join(batch)} only", hint="text, image and video are read")
        for row in zip(*columns.values(), strict=True):
            yield _item(dict(zip(columns, row, strict=True)), instruction)


def _item(row: Mapping[str, Any], instruction: str | None) -> Item:
    text, video = row.get("text"), row.get("video")
    pictures = row.get("image")
    images: Sequence[Any] = pictures if isinstance(pictures, (list, tuple)) else [] if pictures is None else [pictures]
    videos = () if video is None else (frames_of(video),)
    words = text if text and text.strip() else None
    if words is None and not images and not videos:
        words = EMPTY
    return Item(words, tuple(picture.convert("RGB") for picture in images), videos, instruction)


def frames_of(video: Any) -> Frames:
    """Read frames from torchcodec's decoder or from a tensor of shape (frames, 3, height, width).

    Raises:
        InputError: For an empty video.
    """
    fps, duration = 1.0, None
    if not len(video):
        raise InputError("a video is empty: 0 frames")
    numbers = _spread(len(video))
    if hasattr(video, "get_frames_at"):
        fps = float(video.metadata.average_fps or 1.0)
        duration = video.metadata.duration_seconds
        pixels = video.get_frames_at(indices=numbers).data
    else:
        pixels = video[numbers]
    arrays = pixels.permute(0, 2, 3, 1).contiguous().cpu().numpy().astype("uint8")
    images = tuple(PIL.Image.fromarray(array) for array in arrays)
    return Frames(images, tuple(number / fps for number in numbers), float(duration or len(video) / fps))


def _spread(count: int) -> list[int]:
    if count <= MOST_FRAMES:
        return list(range(count))
    return [round(index * (count - 1) / (MOST_FRAMES - 1)) for index in range(MOST_FRAMES)]
