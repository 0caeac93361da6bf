"""The stage that loads: a caller's inputs become items with pixels, chunk by chunk."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from time import perf_counter
from typing import Final, TypeAlias

import PIL.Image

from ume_retrieval.checkpoint import VisualBudget
from ume_retrieval.errors import InputError, ItemWarning, typed_error
from ume_retrieval.inputs import Clip, Frames, Item, LoadedItem, Page, VideoReader
from ume_retrieval.media import load
from ume_retrieval.media.files import is_remote
from ume_retrieval.media.limits import DEFAULT_LIMITS, Limits
from ume_retrieval.media.loading import content_id
from ume_retrieval.pipeline.stages import Call, Chunk, StageItem
from ume_retrieval.util.files import display_name

Input: TypeAlias = str | PIL.Image.Image | Page | Clip | Frames | VideoReader | Item | LoadedItem
"""One thing to encode. A `str` is text, never a path."""

SINGLE = (str, PIL.Image.Image, Page, Clip, Frames, VideoReader, Item, LoadedItem)

CHUNK_ITEMS: Final = 256
"""Most inputs of a chunk: large enough to fill batches, small enough that all stages start early."""

CHUNK_PIXELS = 24_000_000
"""Pixels at which a chunk ends, 96 MB as Pillow keeps RGB; up to five chunks are between the stages."""

DECODERS = max(1, min(8, (os.cpu_count() or 2) - 1))
"""Threads that decode files."""


def as_sequence(inputs: Input | Sequence[Input]) -> tuple[Sequence[Input], bool]:
    """Return inputs as a sequence, and whether it was a single one.

    Raises:
        InputError: When it is neither an input nor a sequence of inputs.

    Example:
        >>> as_sequence("a red circle")
        (('a red circle',), True)
    """
    if isinstance(inputs, SINGLE):
        return (inputs,), True
    if isinstance(inputs, Sequence) and not isinstance(inputs, (bytes, bytearray)):
        return inputs, False
    raise InputError(f"cannot encode a {type(inputs).__name__}", hint=_hint(inputs))


def as_item(value: object) -> Item:
    """Return an input as an `Item`: text stays text, pictures and clips become media.

    Raises:
        InputError: When it is something else, or empty.

    Example:
        >>> as_item("a red circle")
        Item(text='a red circle', images=(), videos=(), instruction=None)
    """
    if isinstance(value, Item):
        return value
    if isinstance(value, str):
        return Item(text=value)
    if isinstance(value, (PIL.Image.Image, Page)):
        return Item(images=(value,))
    if isinstance(value, (Clip, Frames, VideoReader)):
        return Item(videos=(value,))
    raise InputError(f"cannot encode a {type(value).__name__}", hint=_hint(value))


@dataclass(frozen=True, slots=True)
class ItemLoader:
    """Loads inputs for both models, a bounded chunk at a time.

    Two models may sample a video differently. It is decoded once for each distinct sampling, and evidence is taken
    from the Reasoner's frames, because its key frames are numbered in them.

    Attributes:
        embedder_budget: How the Embedder samples.
        reasoner_budget: How the Reasoner samples, or None without reasoning.
        limits: Limits on what is decoded.
        allow_remote: Hosts that addresses may be fetched from.
        chunk_items: Most inputs of a chunk.
    """

    embedder_budget: VisualBudget
    reasoner_budget: VisualBudget | None = None
    limits: Limits = DEFAULT_LIMITS
    allow_remote: Sequence[str] = ()
    chunk_items: int = CHUNK_ITEMS

    def chunks(self, inputs: Iterable[Input], call: Call) -> Iterator[Chunk]:
        """Load in order; a chunk ends at `chunk_items` inputs or `CHUNK_PIXELS` pixels, so memory stays bounded."""
        with ThreadPoolExecutor(DECODERS) as pool:
            waiting = self._ahead(inputs, pool)
            start = 0
            while True:
                stop, pixels, items, since = start, 0, list[StageItem](), perf_counter()
                while stop - start < self.chunk_items and pixels < CHUNK_PIXELS:
                    if (following := next(waiting, None)) is None:
                        break
                    value, load_now = following
                    try:
                        items.append(load_now())
                        call.warnings |= dict.fromkeys(item_warnings(items[-1]))
                        if not isinstance(value, str):
                            pixels += _pixels(items[-1])
                    except BaseException as foreign:  # noqa: BLE001  # interrupts are raised again
                        error = typed_error(foreign, InputError, "the input cannot be loaded", hint="check its values")
                        call.failures.add(error, index=stop, source=_source(value))
                    stop += 1
                if stop == start:
                    return
                call.advance("load", stop, since)
                yield Chunk(start, stop, items)
                start = stop

    def _ahead(
        self, inputs: Iterable[Input], pool: ThreadPoolExecutor
    ) -> Iterator[tuple[Input, Callable[[], StageItem]]]:
        """Yield every input with the call that loads it; decoding starts a few inputs before its turn."""
        begun: deque[tuple[Input, Callable[[], StageItem]]] = deque()
        for index, value in enumerate(inputs):
            if isinstance(value, (Page, Clip)) or (isinstance(value, Item) and (value.images or value.videos)):
                begun.append((value, pool.submit(self._load, value, index).result))
            else:
                begun.append((value, partial(self._load, value, index)))
            if len(begun) > DECODERS:
                yield begun.popleft()
        yield from begun

    def _load(self, value: Input, index: int) -> StageItem:
        if isinstance(value, LoadedItem):
            return StageItem(index, "", value, value)
        item = as_item(value)
        # The Reasoner's view comes first: its content id is in the cache key, whatever Embedder it works for.
        first = self.reasoner_budget or self.embedder_budget
        if not item.images and not item.videos:
            words = LoadedItem(item.text, (), (), item.instruction, content_id(item, first, self.limits))
            return StageItem(index, "", words, words)
        seen = load(item, first, self.limits, allow_remote=self.allow_remote)
        if _decoding(item, first) == _decoding(item, self.embedder_budget):
            return StageItem(index, _source(value), seen, seen)
        shown = load(item, self.embedder_budget, self.limits, allow_remote=self.allow_remote)
        return StageItem(index, _source(value), seen, shown)


def _decoding(item: Item, budget: VisualBudget) -> tuple[float, ...]:
    """Return the numbers of a budget that decide how this item is decoded: frames of videos, resolution of pages."""
    videos = any(not isinstance(video, Frames) for video in item.videos)
    pages = any(isinstance(image, Page) for image in item.images)
    return (
        *((budget.video_fps, budget.video_frames, budget.video_min_frames or 0) if videos else ()),
        *((budget.image_max_pixels,) if pages else ()),
    )


def _pixels(item: StageItem) -> int:
    views = {id(view): view for view in (item.seen, item.shown)}.values()
    pictures = [
        image
        for view in views
        for image in (*view.images, *(frame for frames in view.videos for frame in frames.images))
    ]
    return sum(image.width * image.height for image in pictures)


def item_warnings(item: StageItem) -> list[ItemWarning]:
    """Return what is not as it should be about the films of a loaded input."""
    videos = (*item.seen.videos, *(item.shown.videos if item.shown is not item.seen else ()))
    return [ItemWarning(item.source, words) for video in videos for words in video.warnings]


def _source(value: object) -> str:
    """Return the first file that an input names; addresses may carry secrets and stay unnamed."""
    media = (*value.images, *value.videos) if isinstance(value, Item) else (value,)
    for one in media:
        path = one.path if isinstance(one, (Page, Clip)) else one
        if isinstance(path, Path) or (isinstance(path, str) and isinstance(value, Item)):
            return "" if is_remote(path) else display_name(path)
    return ""


def _hint(value: object) -> str:
    if isinstance(value, Path):
        return "write Item(images=(path,)) or Item(videos=(path,))"
    return "give text, a PIL image, an Item, or a list of those"
