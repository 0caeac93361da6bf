"""Held-out retrieval on Shapes, as real files: every task's queries, and candidates with look-alikes among them."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ume_retrieval.inputs import Clip as VideoStretch
from ume_retrieval.inputs import Item, Modality
from ume_retrieval.inputs import Page as PdfPage
from ume_training.shapes.draw import write_clip, write_pages
from ume_training.shapes.levels import LEVELS
from ume_training.shapes.samples import Pair, Sample, draw
from ume_training.shapes.tasks import TASKS, Task, family
from ume_training.shapes.world import CLIP_SECONDS, Clip, Page

KIN = 4
"""Pairs of a family: one that is asked for, and three look-alikes."""

CLIPS_A_VIDEO = 3
PAGES_A_FILE = 4

_PATIENCE = 400
"""Families drawn in vain before a task is taken to have no more candidates (there are only so many labels)."""


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
        item: The text, or where its file is.
        sample: What it shows, with its true T-CoT.
    """

    item: Item
    sample: Sample


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
    """
    sets = []
    for task in TASKS.values():
        rng = random.Random(f"benchmark/{seed}/{task.name}")
        pairs, samples = _draw(task, rng, level, queries, candidates)
        items = _write(samples, folder / task.name, rng)
        sets.append(
            TaskSet(
                task.name,
                task.group,
                tuple(_query(pair, samples, folder / task.name / "queries", rng) for pair in pairs),
                tuple(Candidate(item, sample) for item, sample in zip(items, samples, strict=True)),
            )
        )
    return tuple(sets)


def _draw(
    task: Task, rng: random.Random, level: str, queries: int, candidates: int
) -> tuple[list[Pair], list[Sample]]:
    """Queries, and all different candidates of their families and more."""
    asked: list[Pair] = []
    pool: dict[str, Sample] = {}
    in_vain = 0
    while len(asked) < queries or (len(pool) < candidates and in_vain < _PATIENCE):
        pairs = family(task, rng, LEVELS[level], KIN)
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
    return Query(_write([pair.query], folder, rng)[0], relevant, pair.positive.modality)


def _write(samples: Sequence[Sample], folder: Path, rng: random.Random) -> list[Item]:
    """Write what is shown, clips by threes into videos and pages by fours into PDFs, and say where each is."""
    folder.mkdir(parents=True, exist_ok=True)
    writer = _Writer(folder, len(list(folder.iterdir())))
    items: list[Item | None] = [None] * len(samples)
    clips = [i for i, sample in enumerate(samples) if isinstance(sample.shown, Clip)]
    pages = [i for i, sample in enumerate(samples) if isinstance(sample.shown, Page)]
    for start in range(0, len(clips), CLIPS_A_VIDEO):
        group = clips[start : start + CLIPS_A_VIDEO]
        for index, stretch in zip(group, writer.video([samples[i] for i in group]), strict=True):
            items[index] = Item(text=samples[index].text, videos=(stretch,))
    for start in range(0, len(pages), PAGES_A_FILE):
        group = pages[start : start + PAGES_A_FILE]
        for index, page in zip(group, writer.pdf([samples[i] for i in group]), strict=True):
            items[index] = Item(text=samples[index].text, images=(page,))
    for index, sample in enumerate(samples):
        if items[index] is None:
            items[index] = Item(text=sample.text, images=writer.picture(sample, rng))
    return [item for item in items if item is not None]


@dataclass
class _Writer:
    """Numbers the files of one folder."""

    folder: Path
    count: int = field(default=0)

    def _path(self, suffix: str) -> Path:
        self.count += 1
        return self.folder / f"{self.count:04d}{suffix}"

    def video(self, samples: Sequence[Sample]) -> list[VideoStretch]:
        path = self._path(".mp4")
        write_clip([sample.shown for sample in samples if isinstance(sample.shown, Clip)], path)
        return [
            VideoStretch(path, float(CLIP_SECONDS * i), float(CLIP_SECONDS * (i + 1))) for i in range(len(samples))
        ]

    def pdf(self, samples: Sequence[Sample]) -> list[PdfPage]:
        path = self._path(".pdf")
        write_pages([sample.shown for sample in samples if isinstance(sample.shown, Page)], path)
        return [PdfPage(path, number) for number in range(1, len(samples) + 1)]

    def picture(self, sample: Sample, rng: random.Random) -> tuple[Path, ...]:
        if sample.shown is None or isinstance(sample.shown, Clip):
            return ()
        path = self._path(".png")
        draw(sample.shown, rng).save(path)
        return (path,)
