"""What readers hand to the run: queries and candidates whose pictures are still files.

A task may hold thousands of videos. A `Sample` therefore names files, and becomes an `Item` when its turn comes.
"""

from __future__ import annotations

import struct
from collections import Counter
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
"""A row that does not have the layout's form; a file that is not there; a query that nothing in the task answers; a
query with nothing to rank."""


@dataclass(frozen=True, slots=True)
class Film:
    """A video as its sampled frames.

    Attributes:
        frames: Picture files in time order, at least one.
        times: Seconds of each, ascending.
        duration_s: Length of the stretch that they stand for, > 0.
    """

    frames: tuple[Path, ...]
    times: tuple[float, ...]
    duration_s: float

    def __post_init__(self) -> None:
        if not self.frames or len(self.frames) != len(self.times):
            raise InputError("a film needs a time for each of its frames, and one frame at least")


@dataclass(frozen=True, slots=True)
class Sample:
    """One thing to embed: text, pictures and videos by their files, and what is wanted of it.

    Attributes:
        text: The words, or None.
        images: Picture files, or pictures inside Parquet files.
        videos: Films, or video files.
        instruction: What the published evaluation tells a model about it, or None.

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
        """As `Item.modality`."""
        if self.videos:
            return "video"
        return "image" if self.images else "text"

    def item(self) -> Item:
        """The item to encode; the frames of films are decoded here.

        Raises:
            MediaError: When a frame cannot be read.
        """
        images = tuple(image.read() if isinstance(image, PictureCell) else image for image in self.images)
        return Item(self.text, images, tuple(map(_video, self.videos)), self.instruction)

    def digest(self) -> str:
        """Hex digest of everything that it holds, files by their bytes and never by their names.

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
    """One thing that may be found.

    Attributes:
        key: Its name in the task.
        sample: What it shows.
    """

    key: str
    sample: Sample


@dataclass(frozen=True, slots=True)
class Query:
    """One question.

    Attributes:
        key: Its name in the task.
        sample: What is asked.
        answers: Names of the candidates that answer it, each with its gain > 0. A name that the task has no candidate
            for is an answer that cannot be found.
        among: Names of its own candidates, each once, in the published order; None where it is ranked against all.
    """

    key: str
    sample: Sample
    answers: dict[str, float]
    among: tuple[str, ...] | None = None


@dataclass(frozen=True, slots=True)
class Problem:
    """Something that a reader could not use.

    Attributes:
        name: What kind of thing, for counting.
        where: File and row, or the name of a query or candidate.
        message: What was seen, one line.
        costs_query: Whether a query was lost by it, which then counts as a miss.
    """

    name: ProblemName
    where: str
    message: str
    costs_query: bool = False


@dataclass(frozen=True, slots=True)
class EvalTask:
    """A task, read.

    Attributes:
        task: What it is.
        queries: In the order of the rows.
        candidates: Each once, in the order of their first mention.
        problems: What could not be used.
        limited: Whether only the first queries were read, so that its scores stand beside no others.
    """

    task: Task
    queries: tuple[Query, ...]
    candidates: tuple[Candidate, ...]
    problems: tuple[Problem, ...] = ()
    limited: bool = False

    @property
    def lost(self) -> int:
        """Queries that could not be read. They count as misses, so that leaving them out never helps."""
        return sum(problem.costs_query for problem in self.problems)

    def problem_counts(self) -> dict[str, int]:
        """How many problems there are of each kind."""
        return dict(Counter(problem.name for problem in self.problems))
