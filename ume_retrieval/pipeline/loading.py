"""The first stage: what a caller hands in, turned into items with pixels, chunk by chunk."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Generic, TypeAlias, TypeVar

import PIL.Image

from ume_retrieval.checkpoint import VisualBudget
from ume_retrieval.errors import InputError, UmeError
from ume_retrieval.inputs import Clip, Frames, Item, LoadedItem, Page
from ume_retrieval.media import load
from ume_retrieval.media.files import display_name, is_remote
from ume_retrieval.media.limits import Limits
from ume_retrieval.pipeline.progress import Ledger

Input: TypeAlias = str | PIL.Image.Image | Page | Clip | Frames | Item | LoadedItem
"""One thing to encode. A `str` is text, never a path."""

Part = TypeVar("Part")

SINGLE = (str, PIL.Image.Image, Page, Clip, Frames, Item, LoadedItem)

CHUNK_PIXELS = 24_000_000
"""A chunk of loaded items closes at this many pixels, 96 MB as Pillow keeps RGB; up to five are between the stages."""

DECODERS = max(1, min(8, (os.cpu_count() or 2) - 1))
"""Files that are decoded at the same time."""


def as_sequence(inputs: Input | Sequence[Input]) -> tuple[Sequence[Input], bool]:
    """Inputs as a sequence, and whether it was a single one.

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
    """An input as an `Item`: text stays text, pictures and clips become media.

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
    if isinstance(value, (Clip, Frames)):
        return Item(videos=(value,))
    raise InputError(f"cannot encode a {type(value).__name__}", hint=_hint(value))


@dataclass(frozen=True, slots=True)
class Chunk(Generic[Part]):
    """Inputs that go through the stages together.

    Attributes:
        start: Position of the first input in the call.
        stop: Position after the last one.
        items: What the last stage made of them, in order; inputs that failed are left out.
    """

    start: int
    stop: int
    items: list[Part]


@dataclass(frozen=True, slots=True)
class Loaded:
    """An input with its pixels.

    Attributes:
        index: Position in the call.
        source: What a report calls it; may be empty.
        seen: As the Reasoner sees it; key frames are numbered in this sampling.
        shown: As the Embedder sees it; the same object unless the two models sample this item differently.
    """

    index: int
    source: str
    seen: LoadedItem
    shown: LoadedItem


@dataclass(frozen=True, slots=True)
class Intake:
    """Loads inputs for both models.

    Two models may sample a video differently. It is decoded once for each distinct sampling, and evidence is taken
    from the Reasoner's frames, because its key frames are numbered in them.

    Attributes:
        reasoner_budget: How the Reasoner samples, or None when it is not asked.
        embedder_budget: How the Embedder samples.
        limits: Limits on what is decoded.
        allow_remote: Hosts that addresses may be fetched from.
        chunk_items: Most inputs of a chunk.
    """

    reasoner_budget: VisualBudget | None
    embedder_budget: VisualBudget
    limits: Limits
    allow_remote: Sequence[str]
    chunk_items: int

    def chunks(self, inputs: Iterable[Input], ledger: Ledger) -> Iterator[Chunk[Loaded]]:
        """Load in order; a chunk ends at `chunk_items` inputs or `CHUNK_PIXELS` pixels, so memory stays bounded."""
        with ThreadPoolExecutor(DECODERS) as pool:
            waiting = self._ahead(inputs, pool)
            start = 0
            while True:
                stop, pixels, items = start, 0, list[Loaded]()
                with ledger.timed("load"):
                    while stop - start < self.chunk_items and pixels < CHUNK_PIXELS:
                        if (following := next(waiting, None)) is None:
                            break
                        value, load_now = following
                        try:
                            items.append(load_now())
                            pixels += _pixels(items[-1])
                        except UmeError as error:
                            ledger.fail(error, index=stop, source=_source(value))
                        stop += 1
                if stop == start:
                    return
                ledger.report("load", stop)
                yield Chunk(start, stop, items)
                start = stop

    def _ahead(self, inputs: Iterable[Input], pool: ThreadPoolExecutor) -> Iterator[tuple[Input, Callable[[], Loaded]]]:
        """Every input with the call that loads it; what has to be decoded is begun a few inputs before its turn."""
        begun: deque[tuple[Input, Callable[[], Loaded]]] = deque()
        for index, value in enumerate(inputs):
            if isinstance(value, (Page, Clip)) or (isinstance(value, Item) and (value.images or value.videos)):
                begun.append((value, pool.submit(self._load, value, index).result))
            else:
                begun.append((value, partial(self._load, value, index)))
            if len(begun) > DECODERS:
                yield begun.popleft()
        yield from begun

    def _load(self, value: Input, index: int) -> Loaded:
        if isinstance(value, LoadedItem):
            return Loaded(index, "", value, value)
        item = as_item(value)
        # The Reasoner's view comes first: its content id is in the cache key, whatever Embedder it works for.
        first = self.reasoner_budget or self.embedder_budget
        seen = load(item, first, self.limits, allow_remote=self.allow_remote)
        if _decoding(item, first) == _decoding(item, self.embedder_budget):
            return Loaded(index, _source(value), seen, seen)
        shown = load(item, self.embedder_budget, self.limits, allow_remote=self.allow_remote)
        return Loaded(index, _source(value), seen, shown)


def _decoding(item: Item, budget: VisualBudget) -> tuple[float, ...]:
    """What of a budget decides how this item is decoded: frames of videos, resolution of pages."""
    videos = any(not isinstance(video, Frames) for video in item.videos)
    pages = any(isinstance(image, Page) for image in item.images)
    return (
        *((budget.video_fps, budget.video_frames, budget.video_min_frames or 0) if videos else ()),
        *((budget.image_max_pixels,) if pages else ()),
    )


def _pixels(loaded: Loaded) -> int:
    views = {id(view): view for view in (loaded.seen, loaded.shown)}.values()
    pictures = [
        image
        for view in views
        for image in (*view.images, *(frame for frames in view.videos for frame in frames.images))
    ]
    return sum(image.width * image.height for image in pictures)


def _source(value: object) -> str:
    """The first file that an input names, safe to show; addresses may carry secrets and stay unnamed."""
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
