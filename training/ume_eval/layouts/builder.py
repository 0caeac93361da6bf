"""Build an `EvalTask` from published rows; rows and files that cannot be used become problems."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any, Final, TypeAlias

from ume_eval.rows import Row
from ume_eval.samples import Candidate, EvalTask, Film, Problem, ProblemName, Query, Sample
from ume_eval.tasks import Task
from ume_retrieval.errors import InputError, MediaNotFound
from ume_retrieval.media import display_name
from ume_retrieval.report.sanitize import one_line

FRAMES: Final = 8
"""Frames per video in both benchmarks."""

FRAME_STEP_S: Final = 0.5
"""Time between sampled frames of unknown rate: the paper samples videos at 2 fps."""

PICTURES: Final = (".jpg", ".jpeg", ".png")
VIDEOS: Final = (".mp4", ".webm", ".mkv", ".avi", ".mov")

MALFORMED: Final = (KeyError, TypeError, ValueError, AttributeError, IndexError, OSError, InputError)
"""Errors that a malformed row may raise; OSError for file names that the system does not accept."""


class TaskBuilder:
    """Collects queries, candidates and problems of a task, up to a limit of queries; None for all."""

    def __init__(self, task: Task, folder: Path, limit: int | None) -> None:
        self.task = task
        self.media = folder / task.media
        self._limit = limit
        self._queries: list[Query] = []
        self._candidates: dict[str, Candidate | None] = {}
        self._problems: list[Problem] = []
        self._limited = False
        self._distractors = 0

    def read_queries(self, rows: Iterable[Row], read_row: RowReader) -> None:
        """Read one query per row, up to the limit; a row that fails counts as a missed query."""
        for number, row in enumerate(rows):
            if self._limit is not None and number >= self._limit:
                self._limited = True
                return
            where = f"{self.task.name} query {len(self._queries) + sum(p.costs_query for p in self._problems)}"
            try:
                read_row(self, row.columns)
            except MediaNotFound as error:
                self._problem("missing_media", where, error.message, costs_query=True)
            except MALFORMED as error:
                self._problem("broken_row", where, _message(error), costs_query=True)

    @contextmanager
    def guard(self, where: str) -> Iterator[None]:
        """Turn an error in the row of a judgement or candidate into a problem."""
        try:
            yield
        except MALFORMED as error:
            self._problem("broken_row", where, _message(error))

    def candidate(self, key: str, sample: Callable[[], Sample]) -> None:
        """Add a candidate unless its key is known; if its files are missing, note it: it can never be found."""
        if key in self._candidates:
            return
        self._candidates[key] = None
        try:
            self._candidates[key] = Candidate(key, sample())
        except MediaNotFound as error:
            self._problem("missing_media", f"{self.task.name} candidate {key}", error.message)
        except (InputError, OSError) as error:
            self._problem("broken_row", f"{self.task.name} candidate {key}", _message(error))

    def texts(self, texts: Iterable[str]) -> None:
        """Add texts as candidates, each under itself as key."""
        for text in texts:
            self.candidate(text, partial(Sample, text))

    def films(self, names: Iterable[str]) -> None:
        """Add folders of frames as candidates, each under its name."""
        for name in names:
            self.candidate(name, partial(self._film, name))

    def query(self, sample: Sample, answers: Mapping[str, float], among: Sequence[str] | None = None) -> None:
        """Add a query; a name listed twice among its own candidates counts once.

        Without answers or with an empty list of candidates, the query becomes a problem and counts as a miss.
        """
        key = f"{len(self._queries)}"
        where = f"{self.task.name} query {key}"
        if among is not None and not among:
            self._problem("no_candidates", where, "its list of candidates is empty", costs_query=True)
        elif not answers:
            self._problem("no_answer", where, "nothing answers it", costs_query=True)
        else:
            names = None if among is None else tuple(dict.fromkeys(among))
            if names is not None and not answers.keys() & set(names):
                self._problem("no_answer", where, "its answer is not among its candidates")
            self._queries.append(Query(key, sample, dict(answers), names))

    def wants(self, key: str) -> bool:
        """Whether to read a candidate of a common corpus: under a limit, answers and as many distractors."""
        if self._limit is None or any(key in query.answers or key in (query.among or ()) for query in self._queries):
            return True
        self._distractors += 1
        self._limited |= self._distractors > self._limit
        return self._distractors <= self._limit

    def done(self) -> EvalTask:
        """Return the task as far as it could be read."""
        candidates = tuple(one for one in self._candidates.values() if one is not None)
        known = {one.key for one in candidates}
        for query in self._queries:
            if query.among is None and not query.answers.keys() & known:
                self._problem("no_answer", f"{self.task.name} query {query.key}", "its answer is not in the corpus")
        return EvalTask(self.task, tuple(self._queries), candidates, tuple(self._problems), limited=self._limited)

    def _film(self, name: str) -> Sample:
        return Sample(videos=(film(self.media, name),), instruction=self.task.candidate_instruction)

    def _problem(self, name: ProblemName, where: str, message: str, *, costs_query: bool = False) -> None:
        self._problems.append(Problem(name, one_line(where), one_line(message), costs_query))


RowReader: TypeAlias = Callable[[TaskBuilder, dict[str, Any]], None]
"""Reads the columns of one row: adds a query, and the candidates that the row names."""


def inside(folder: Path, name: str) -> Path:
    """Return a path below a folder; raises InputError when the name is empty or leads out of it.

    Example:
        >>> inside(Path("data"), "a/b.png").as_posix()
        'data/a/b.png'
    """
    path = PurePosixPath(name)
    if not name.strip() or path.is_absolute() or ".." in path.parts or "\0" in name:
        raise InputError(f"{name!r} is not a path inside the data", hint="check the row")
    return folder / path


def picture(folder: Path, name: str) -> Path:
    """Return the path of a picture file, as `inside`; raises MediaNotFound when it does not exist."""
    path = inside(folder, name)
    if not path.is_file():
        raise MediaNotFound(f"{display_name(path)} not found", hint="unpack the benchmark's archives")
    return path


def film(folder: Path, name: str, *, saved_fps: float | None = None) -> Film:
    """Read a video that is published as a folder of frames, thinned evenly to 8.

    Args:
        folder: Parent of the folders of frames.
        name: The video's folder.
        saved_fps: Rate at which the frames were saved, from which their times follow; if None, sampled frames are
            `FRAME_STEP_S` apart.

    Raises:
        MediaNotFound: Without frames.
        InputError: When the name leads out of the folder.
    """
    place = inside(folder, name)
    files = place.iterdir() if place.is_dir() else ()
    frames = sorted((file for file in files if file.suffix.lower() in PICTURES), key=_natural)
    if not frames:
        raise MediaNotFound(f"no frames in {display_name(place)}", hint="unpack the benchmark's archives")
    chosen = evenly(len(frames), FRAMES)
    if saved_fps:
        times, length = tuple(index / saved_fps for index in chosen), len(frames) / saved_fps
    else:
        times, length = tuple(n * FRAME_STEP_S for n in range(len(chosen))), len(chosen) * FRAME_STEP_S
    return Film(tuple(frames[index] for index in chosen), times, length)


def evenly(count: int, most: int) -> list[int]:
    """Choose at most `most` of `count` positions, first and last included (as `numpy.linspace` rounded down).

    Example:
        >>> evenly(64, 8), evenly(3, 8)
        ([0, 9, 18, 27, 36, 45, 54, 63], [0, 1, 2])
    """
    if count <= most:
        return list(range(count))
    return [index * (count - 1) // (most - 1) for index in range(most)]


def without_suffix(name: str) -> str:
    """Remove the suffix of a video file, but no other dotted part of the name.

    Example:
        >>> without_suffix("a.b.mp4"), without_suffix("v_1.5")
        ('a.b', 'v_1.5')
    """
    stem, dot, suffix = name.rpartition(".")
    return stem if dot and f".{suffix.lower()}" in VIDEOS else name


def _natural(file: Path) -> list[tuple[int, str]]:
    """Return a sort key under which frame 2 comes before frame 10."""
    return [(int(part), "") if part.isdecimal() else (-1, part.lower()) for part in re.split(r"(\d+)", file.name)]


def _message(error: Exception) -> str:
    return f"no column {error}" if isinstance(error, KeyError) else str(error) or type(error).__name__
