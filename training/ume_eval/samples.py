"""Queries and candidates of a task. A `Sample` only names its files, since a task may hold thousands of videos."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Literal, TypeAlias

from ume_eval.rows import PictureCell
from ume_eval.tasks import Task
from ume_retrieval.errors import InputError
from ume_retrieval.inputs import Clip, Frames, Item, Modality, VideoInput
from ume_retrieval.media import DEFAULT_LIMITS, open_image
from ume_retrieval.media.files import file_digest
from ume_retrieval.media.loading import frame_fields

ProblemName: TypeAlias = Literal["broken_row", "missing_media", "no_answer", "no_candidates"]
"""A malformed row; a missing file; a query without an answer in the task; a query without candidates."""


@dataclass(frozen=True, slots=True)
class Film:
    """A video as its sampled frames.

    Attributes:
        frames: Picture files in time order, at least one.
        times: Seconds of each, ascending.
        duration_s: Duration that the frames cover, > 0.
    """

    frames: tuple[Path, ...]
    times: tuple[float, ...]
    duration_s: float

    def __post_init__(self) -> None:
        if not self.frames or len(self.frames) != len(self.times):
            raise InputError("a film needs at least one frame, and a time for each")


@dataclass(frozen=True, slots=True)
class Sample:
    """One thing to embed: a text, and the files of pictures and videos.

    Attributes:
        text: The text, or None.
        images: Picture files, or pictures in Parquet files.
        videos: Films, or video files.
        instruction: Instruction of the published evaluation, or None.

    Raises:
        InputError: When it is empty.
    """

    text: str | None = None
    images: tuple[Path | PictureCell, ...] = ()
    videos: tuple[Film | Path, ...] = ()
    instruction: str | None = None

    def __post_init__(self) -> None:
        if not (self.text and self.text.strip()) and not self.images and not self.videos:
            raise InputError("a sample needs text, a picture or a video")

    @property
    def modality(self) -> Modality:
        """The modality, as `Item.modality`."""
        if self.videos:
            return "video"
        return "image" if self.images else "text"

    def item(self) -> Item:
        """Make the item to encode; frames of films are decoded here."""
        images = tuple(image.read() if isinstance(image, PictureCell) else image for image in self.images)
        return Item(self.text, images, tuple(map(_video, self.videos)), self.instruction)

    def digest(self) -> str:
        """Hash the content as hex digits, files by their bytes and not by their names.

        Raises:
            MediaError: When a file cannot be read.

        Example:
            >>> Sample("a cat").digest() == Sample("a cat", instruction="Find it.").digest()
            False
        """
        fields = [b"ume-sample-1"]
        for name, words in ((b"text", self.text), (b"instruction", self.instruction)):
            if words is not None:
                fields += (name, words.encode("utf-8", "surrogatepass"))
        for image in self.images:
            if isinstance(image, PictureCell):
                fields += (b"image", sha256(image.read()).digest())
            else:
                fields += (b"image", file_digest(image, DEFAULT_LIMITS))
        for video in self.videos:
            shown = (video,) if isinstance(video, Path) else video.frames
            times = () if isinstance(video, Path) else (video.duration_s, *video.times)
            fields += (b"video", struct.pack(f">{len(times)}d", *times))
            fields += (file_digest(file, DEFAULT_LIMITS) for file in shown)
        return sha256(frame_fields(fields)).hexdigest()


def _video(video: Film | Path) -> VideoInput:
    if isinstance(video, Path):
        return Clip(video)
    return Frames(tuple(open_image(frame) for frame in video.frames), video.times, video.duration_s)


@dataclass(frozen=True, slots=True)
class Candidate:
    """A candidate, with its unique key in the task."""

    key: str
    sample: Sample


@dataclass(frozen=True, slots=True)
class Query:
    """A query.

    Attributes:
        key: Its unique key in the task.
        sample: Its content.
        answers: Gain > 0 by key of each relevant candidate; a key without a candidate can never be found.
        among: Keys of its own candidates, each once, in the published order; None if it is ranked against all.
    """

    key: str
    sample: Sample
    answers: dict[str, float]
    among: tuple[str, ...] | None = None


@dataclass(frozen=True, slots=True)
class Problem:
    """An unusable row or file.

    Attributes:
        name: Kind of problem.
        where: File and row, or the name of a query or candidate.
        message: Description, one line.
        costs_query: Whether it loses a query, which then counts as a miss.
    """

    name: ProblemName
    where: str
    message: str
    costs_query: bool = False


@dataclass(frozen=True, slots=True)
class EvalTask:
    """A task with its data.

    Attributes:
        task: The task.
        queries: Queries in the order of the rows.
        candidates: Candidates in the order of their first mention.
        problems: Unusable rows and files.
        limited: Whether only the first queries were read, so that scores are not comparable.
    """

    task: Task
    queries: tuple[Query, ...]
    candidates: tuple[Candidate, ...]
    problems: tuple[Problem, ...] = ()
    limited: bool = False

    @property
    def lost(self) -> int:
        """Number of unreadable queries; they count as misses."""
        return sum(problem.costs_query for problem in self.problems)
