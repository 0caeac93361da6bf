"""One line of a pair file as a validated value, and its conversion to a `TrainingPair`.

A record refers to media and never holds pixels, so a file of records can be read, filtered and copied without opening
a picture. `docs/training-data.md` shows every field.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path
from typing import Annotated, Any, TypeAlias

from pydantic import BaseModel, ConfigDict, Discriminator, Field, Tag, model_validator

from ume_retrieval.checkpoint import VisualBudget
from ume_retrieval.errors import InputError
from ume_retrieval.inputs import Clip, Frames, ImageInput, Item, LoadedItem, Modality, Page, VideoInput
from ume_retrieval.media import DEFAULT_LIMITS, Limits, load, open_image, sample_times
from ume_training.data.pairs import TrainingPair

FRAMES_A_SECOND = 2.0
"""How far apart listed frames are taken to be when the record does not say (arXiv 2602.13823: 2 fps)."""

Words: TypeAlias = Annotated[str, Field(pattern=r"\S")]
"""Text that says something."""

MediaPath: TypeAlias = Annotated[str, Field(min_length=1)]


class _Strict(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


class PageRef(_Strict):
    """One page of a PDF file, 1-based."""

    path: MediaPath
    page: Annotated[int, Field(ge=1)] = 1


class StretchRef(_Strict):
    """A segment of a video file in seconds; without `end_s`, to its end."""

    path: MediaPath
    start_s: Annotated[float, Field(ge=0)] = 0.0
    end_s: float | None = None

    @model_validator(mode="after")
    def _goes_forward(self) -> StretchRef:
        if self.end_s is not None and self.end_s <= self.start_s:
            raise ValueError(f"end_s {self.end_s:g} is not after start_s {self.start_s:g}")
        return self


class FramesRef(_Strict):
    """A video as picture files of its frames in time order, `fps` of them a second."""

    frames: Annotated[tuple[MediaPath, ...], Field(min_length=1)]
    fps: Annotated[float, Field(gt=0)] = FRAMES_A_SECOND


def _image_kind(value: Any) -> str:
    """Return the form that a value has, so that its errors are about that form alone."""
    return "object" if isinstance(value, (dict, BaseModel)) else "path"


def _video_kind(value: Any) -> str:
    listed = isinstance(value, FramesRef) or (isinstance(value, dict) and "frames" in value)
    return "frames" if listed else _image_kind(value)


ImageRef: TypeAlias = Annotated[
    Annotated[MediaPath, Tag("path")] | Annotated[PageRef, Tag("object")], Discriminator(_image_kind)
]
VideoRef: TypeAlias = Annotated[
    Annotated[MediaPath, Tag("path")] | Annotated[StretchRef, Tag("object")] | Annotated[FramesRef, Tag("frames")],
    Discriminator(_video_kind),
]
TAGS = frozenset({"path", "object", "frames"})
"""Names of the forms, which appear in pydantic's locations but mean nothing to a reader."""


class ItemRecord(_Strict):
    """One side of a pair; see `ume_retrieval.inputs.Item`."""

    text: Words | None = None
    images: tuple[ImageRef, ...] = ()
    videos: tuple[VideoRef, ...] = ()
    instruction: Words | None = None

    @model_validator(mode="after")
    def _holds_something(self) -> ItemRecord:
        if not self.text and not self.images and not self.videos:
            raise ValueError("an item needs text, an image or a video")
        return self

    @property
    def modality(self) -> Modality:
        """The modality that decides prompt and evidence cue."""
        if self.videos:
            return "video"
        return "image" if self.images else "text"

    def paths(self) -> Iterator[tuple[str, str]]:
        """Yield every file that is referred to, as (place in the record, path as written)."""
        for kind, refs in (("images", self.images), ("videos", self.videos)):
            for number, ref in enumerate(refs):
                place = f"{kind}[{number}]"
                if isinstance(ref, FramesRef):
                    yield from ((f"{place}.frames[{i}]", frame) for i, frame in enumerate(ref.frames))
                else:
                    yield (place, ref) if isinstance(ref, str) else (f"{place}.path", ref.path)

    def moved(self, start: Path, end: Path) -> ItemRecord:
        """Rewrite relative paths for a file in folder `end` instead of `start`."""

        def path(written: str) -> str:
            return written if Path(written).is_absolute() else os.path.relpath(start / written, end)

        def ref(one: Any) -> Any:
            if isinstance(one, str):
                return path(one)
            if isinstance(one, FramesRef):
                return one.model_copy(update={"frames": tuple(map(path, one.frames))})
            return one.model_copy(update={"path": path(one.path)})

        return self.model_copy(update={"images": tuple(map(ref, self.images)), "videos": tuple(map(ref, self.videos))})

    def item(self, folder: Path, budget: VisualBudget, limits: Limits = DEFAULT_LIMITS) -> Item:
        """As an `Item`. Media stay references, except listed frames, which are decoded as the budget samples them.

        Args:
            folder: What relative paths start from.
            budget: Its `video_fps` and `video_frames` thin listed frames.
            limits: Ceilings on what a frame may cost.

        Raises:
            MediaError: When a listed frame does not decode.
        """
        images: list[ImageInput] = [
            folder / image if isinstance(image, str) else Page(folder / image.path, image.page) for image in self.images
        ]
        videos: list[VideoInput] = []
        for video in self.videos:
            if isinstance(video, str):
                videos.append(folder / video)
            elif isinstance(video, StretchRef):
                videos.append(Clip(folder / video.path, video.start_s, video.end_s))
            else:
                videos.append(_decoded(video, folder, budget, limits))
        return Item(self.text, tuple(images), tuple(videos), self.instruction)

    def load(self, folder: Path, budget: VisualBudget, limits: Limits = DEFAULT_LIMITS) -> LoadedItem:
        """With pixels, as inference loads them (`ume_retrieval.media.load`).

        Raises:
            MediaError: When a medium cannot be read.
        """
        return load(self.item(folder, budget, limits), budget, limits)


class PairRecord(_Strict):
    """One line of a pair file; the fields are those of `TrainingPair`.

    Example:
        >>> line = '{"id": "1", "dataset": "d", "query": {"text": "a cat"}, "positive": {"images": ["cat.png"]}}'
        >>> record = PairRecord.model_validate_json(line)
        >>> record.positive.modality, record.leaked
        ('image', False)
    """

    id: Words
    dataset: Words
    query: ItemRecord
    positive: ItemRecord
    negatives: tuple[ItemRecord, ...] = ()
    group: Words | None = None
    target: Words | None = None
    query_tcot: Words | None = None
    positive_tcot: Words | None = None
    leaked: bool = False

    @property
    def key(self) -> tuple[str, str]:
        """Unique key: data set and id."""
        return self.dataset, self.id

    def sides(self) -> Iterator[tuple[str, ItemRecord]]:
        """Its items, each with its place in the record."""
        yield "query", self.query
        yield "positive", self.positive
        yield from ((f"negatives[{number}]", item) for number, item in enumerate(self.negatives))

    def tcots(self) -> Iterator[tuple[str, ItemRecord, str]]:
        """Yield the pair's T-CoTs, each with its field and its item."""
        if self.query_tcot is not None:
            yield "query_tcot", self.query, self.query_tcot
        if self.positive_tcot is not None:
            yield "positive_tcot", self.positive, self.positive_tcot

    def line(self) -> str:
        """Serialise as one line of JSON, without default values."""
        return self.model_dump_json(exclude_defaults=True)

    def moved(self, start: Path, end: Path) -> PairRecord:
        """Return the same pair written for a file in folder `end` instead of `start`."""
        here, there = start.resolve(), end.resolve()
        if here == there:
            return self
        return self.model_copy(
            update={
                "query": self.query.moved(here, there),
                "positive": self.positive.moved(here, there),
                "negatives": tuple(item.moved(here, there) for item in self.negatives),
            }
        )

    def pair(self, folder: Path, budget: VisualBudget | None = None) -> TrainingPair:
        """As a `TrainingPair` whose relative paths start from `folder`; see `ItemRecord.item`."""
        query, positive, *negatives = (item.item(folder, budget or VisualBudget()) for _, item in self.sides())
        plain = self.model_dump(exclude={"query", "positive", "negatives"})
        return TrainingPair(query=query, positive=positive, negatives=tuple(negatives), **plain)

    @classmethod
    def of(cls, pair: TrainingPair) -> PairRecord:
        """Convert a pair to a record, with its paths unchanged.

        Raises:
            InputError: When an item holds pixels or bytes; those go into files first.
        """
        values = {field.name: getattr(pair, field.name) for field in fields(pair)}
        items = {"query": _item_record(pair.query), "positive": _item_record(pair.positive)}
        return cls(**{**values, **items, "negatives": tuple(map(_item_record, pair.negatives))})


def _decoded(ref: FramesRef, folder: Path, budget: VisualBudget, limits: Limits) -> Frames:
    duration = len(ref.frames) / ref.fps
    times = sample_times(0.0, duration, min(budget.video_fps, ref.fps), budget.video_frames)
    chosen = sorted({min(round(time * ref.fps), len(ref.frames) - 1) for time in times})
    images = tuple(open_image(folder / ref.frames[i], limits) for i in chosen)
    return Frames(images, tuple(i / ref.fps for i in chosen), duration)


def _item_record(item: Item) -> ItemRecord:
    images: list[str | PageRef] = []
    videos: list[str | StretchRef] = []
    for image in item.images:
        if isinstance(image, Page):
            images.append(PageRef(path=str(image.path), page=image.page))
        elif isinstance(image, (str, Path)):
            images.append(str(image))
        else:
            raise _pixels(image)
    for video in item.videos:
        if isinstance(video, Clip):
            videos.append(StretchRef(path=str(video.path), start_s=video.start_s, end_s=video.end_s))
        elif isinstance(video, (str, Path)):
            videos.append(str(video))
        else:
            raise _pixels(video)
    return ItemRecord(text=item.text, images=tuple(images), videos=tuple(videos), instruction=item.instruction)


def _pixels(value: object) -> InputError:
    return InputError(
        f"a pair file holds no pixels, and this is a {type(value).__name__}",
        hint="write the picture to a file and give its path",
    )
