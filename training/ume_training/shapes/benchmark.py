"""Held-out retrieval on Shapes, as real files: every task's queries, and candidates with look-alikes among them."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import count
from pathlib import Path

from ume_retrieval.errors import InputError
from ume_retrieval.inputs import Clip as VideoStretch
from ume_retrieval.inputs import Item, Modality
from ume_retrieval.inputs import Page as PdfPage
from ume_training.shapes.draw import write_clip, write_pages
from ume_training.shapes.levels import LEVELS
from ume_training.shapes.samples import Pair, Sample, draw
from ume_training.shapes.tasks import TASKS, Task, family
from ume_training.shapes.world import CLIP_SECONDS, Clip, Page

GROUP_SIZE = 4
"""Pairs of a family: one that is asked for, and three look-alikes."""

CORPUS = "corpus"
QUERIES = "queries"
"""Each task's folder keeps its candidates apart from its queries."""

CLIPS_A_VIDEO = 3
PAGES_A_FILE = 4

_PATIENCE = 400
"""Families drawn without a new candidate before a task counts as exhausted."""


@dataclass(frozen=True, slots=True)
class Query:
    """One question and the candidates that answer it.

    Attributes:
        item: What is asked.
        relevant: Positions among the task's candidates, at least one.
        target: Modality of what is looked for.
    """

    item: Item
    relevant: frozenset[int]
    target: Modality


@dataclass(frozen=True, slots=True)
class Candidate:
    """One thing that may be found.

    Attributes:
        item: The text, or where its pixels are.
        path: The file that holds it, a text file for a text.
        sample: What it shows, with its true T-CoT.
    """

    item: Item
    path: Path
    sample: Sample

    @property
    def place(self) -> tuple[str, float | None, int | None]:
        """File, first second and page, which tell it from every other candidate."""
        video = next(iter(self.item.videos), None)
        image = next(iter(self.item.images), None)
        start = video.start_s if isinstance(video, VideoStretch) else None
        return str(self.path), start, image.page if isinstance(image, PdfPage) else None


@dataclass(frozen=True, slots=True)
class TaskSet:
    """A task's queries over its own candidates."""

    name: str
    group: str
    queries: tuple[Query, ...]
    candidates: tuple[Candidate, ...]


def build_benchmark(
    folder: Path, *, seed: int, level: str = "default", queries: int = 20, candidates: int = 100
) -> tuple[TaskSet, ...]:
    """Draw every task from a seed and write its pictures, clips and pages into `folder`.

    Args:
        folder: Where files go; one folder a task.
        seed: The same seed gives the same benchmark. Training draws its seeds from another stream.
        level: Name of a Shapes level.
        queries: Queries a task.
        candidates: Least candidates a task, as far as it has so many different ones.

    Returns:
        One set a task, in the order of `TASKS`.

    Raises:
        InputError: If the level is unknown.
    """
    if level not in LEVELS:
        raise InputError(f"unknown level {level!r}", hint=f"use one of {', '.join(LEVELS)}")
    sets = []
    for task in TASKS.values():
        rng = random.Random(f"benchmark/{seed}/{task.name}")
        pairs, samples = _draw(task, rng, level, queries, candidates)
        files = _write(samples, folder / task.name / CORPUS, rng)
        sets.append(
            TaskSet(
                task.name,
                task.group,
                tuple(_query(pair, samples, folder / task.name / QUERIES, rng) for pair in pairs),
                tuple(Candidate(*file, sample) for file, sample in zip(files, samples, strict=True)),
            )
        )
    return tuple(sets)


def _draw(task: Task, rng: random.Random, level: str, queries: int, candidates: int) -> tuple[list[Pair], list[Sample]]:
    """Queries, and all different candidates of their families and more."""
    asked: list[Pair] = []
    pool: dict[str, Sample] = {}
    in_vain = 0
    while len(asked) < queries or (len(pool) < candidates and in_vain < _PATIENCE):
        pairs = family(task, rng, LEVELS[level], GROUP_SIZE)
        before = len(pool)
        for pair in pairs:
            pool.setdefault(_identity(pair.positive), pair.positive)
        in_vain = 0 if len(pool) > before else in_vain + 1
        if len(asked) < queries:
            asked.append(pairs[0])
    samples = list(pool.values())
    rng.shuffle(samples)
    return asked, samples


def _identity(sample: Sample) -> str:
    return sample.text if sample.shown is None and sample.text else repr(sample.shown)


def _query(pair: Pair, samples: Sequence[Sample], folder: Path, rng: random.Random) -> Query:
    relevant = frozenset(i for i, sample in enumerate(samples) if pair.answered_by(sample))
    item, _ = _write([pair.query], folder, rng)[0]
    return Query(item, relevant, pair.positive.modality)


def _write(samples: Sequence[Sample], folder: Path, rng: random.Random) -> list[tuple[Item, Path]]:
    """Write samples, clips by threes into videos and pages by fours into PDFs, and say where each is."""
    folder.mkdir(parents=True, exist_ok=True)
    numbers = count(len(list(folder.iterdir())))
    clips = [i for i, sample in enumerate(samples) if isinstance(sample.shown, Clip)]
    pages = [i for i, sample in enumerate(samples) if isinstance(sample.shown, Page)]
    written: dict[int, tuple[Item, Path]] = {}
    for positions in _groups(clips, CLIPS_A_VIDEO):
        path = folder / f"{next(numbers):04d}.mp4"
        write_clip([clip for i in positions if isinstance(clip := samples[i].shown, Clip)], path)
        for order, i in enumerate(positions):
            stretch = VideoStretch(path, float(CLIP_SECONDS * order), float(CLIP_SECONDS * (order + 1)))
            written[i] = Item(text=samples[i].text, videos=(stretch,)), path
    for positions in _groups(pages, PAGES_A_FILE):
        path = folder / f"{next(numbers):04d}.pdf"
        write_pages([page for i in positions if isinstance(page := samples[i].shown, Page)], path)
        for order, i in enumerate(positions):
            written[i] = Item(text=samples[i].text, images=(PdfPage(path, order + 1),)), path
    for i, sample in enumerate(samples):
        if sample.shown is None:
            path = folder / f"{next(numbers):04d}.txt"
            path.write_text(f"{sample.text}\n", encoding="utf-8")
            written[i] = Item(text=sample.text), path
        elif not isinstance(sample.shown, Clip) and i not in written:
            path = folder / f"{next(numbers):04d}.png"
            draw(sample.shown, rng).save(path)
            written[i] = Item(text=sample.text, images=(path,)), path
    return [written[i] for i in range(len(samples))]


def _groups(positions: Sequence[int], size: int) -> Iterator[Sequence[int]]:
    return (positions[start : start + size] for start in range(0, len(positions), size))
