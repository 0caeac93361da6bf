"""Pairs of the Shapes world: drawn by position for training, or written as real files in the pair schema."""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Literal, TypeAlias

from ume_retrieval.errors import InputError
from ume_retrieval.tcot.grammar import render
from ume_training.data.records import ItemRecord, PageRef, PairRecord, StretchRef
from ume_training.data.sources import LoadedPair
from ume_training.run_folder import make_folder
from ume_training.shapes.draw import write_clip, write_pages
from ume_training.shapes.levels import LEVELS
from ume_training.shapes.samples import Pair, Sample
from ume_training.shapes.tasks import TASKS, family
from ume_training.shapes.world import CLIP_SECONDS, Clip, Page

Traces: TypeAlias = Literal["none", "true"]
"""Whether written pairs carry T-CoTs: none, for a Reasoner to write, or the true ones."""

SIDES: tuple[Literal["query"], Literal["positive"]] = ("query", "positive")

MEDIA = "media"
"""Folder of pictures, clips and pages, next to the pair file."""


class ShapesSource:
    """One Shapes task as a data set without files: pair `i` is drawn from the seed and `i` alone.

    Each `group_size` consecutive pairs are one family of look-alikes, and one group. T-CoTs are the true ones.
    Benchmarks draw from another stream of seeds.

    Args:
        task: Name of the task, such as "text_to_image".
        level: Name of the level.
        seed: The same seed gives the same pairs.
        group_size: Pairs of a family, >= 1.
        count: Pairs in all, >= 1.

    Attributes:
        name: "shapes/" and the task.

    Raises:
        InputError: If task or level are unknown, or a number is below 1.

    Example:
        >>> source = ShapesSource("text_to_image", "default", seed=0, group_size=4, count=8)
        >>> source.group(3) == source.group(0), source.group(4) == source.group(0)
        (True, False)
        >>> source[5].positive.images[0].size
        (192, 192)
    """

    def __init__(self, task: str, level: str, seed: int, group_size: int = 4, count: int = 1_000_000) -> None:
        _require(task, TASKS, "task")
        _require(level, LEVELS, "level")
        if group_size < 1 or count < 1:
            raise InputError("a family and a data set have at least one pair")
        self.name = f"shapes/{task}"
        self.task = task
        self.level = level
        self.seed = seed
        self.group_size = group_size
        self._count = count
        self._family = lru_cache(maxsize=256)(self._draw_family)

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, index: int) -> LoadedPair:
        """Draw one pair with its pixels."""
        pair = self.pair(index)
        return LoadedPair(
            query=pair.query.item(self.rng(index, "query")),
            positive=pair.positive.item(self.rng(index, "positive")),
            query_tcot=render(pair.query.tcot),
            positive_tcot=render(pair.positive.tcot),
        )

    def pair(self, index: int) -> Pair:
        """Return one pair as values, without drawing it.

        Raises:
            IndexError: If the position does not exist.
        """
        if not 0 <= index < self._count:
            raise IndexError(index)
        number, member = divmod(index, self.group_size)
        return self._family(number)[member]

    def rng(self, index: int, side: Literal["query", "positive"]) -> random.Random:
        """Random stream that moves the things of one side of pair `index` by a pixel or two."""
        return random.Random(f"pairs/{self.seed}/{self.level}/{self.task}/pixels/{index}/{side}")

    def group(self, index: int) -> str:
        """Return the family."""
        return f"{self.name}/{index // self.group_size}"

    def also_answers(self, query: int, positive: int) -> bool:
        """Return whether the positive of one pair answers the query of another, by the world's own truth."""
        return self.pair(query).answered_by(self.pair(positive).positive)

    def _draw_family(self, number: int) -> list[Pair]:
        rng = random.Random(f"pairs/{self.seed}/{self.level}/{self.task}/{number}")
        return family(TASKS[self.task], rng, LEVELS[self.level], self.group_size)


def shapes_records(
    folder: Path,
    *,
    tasks: Sequence[str] = tuple(TASKS),
    level: str = "questions",
    seed: int = 0,
    group_size: int = 4,
    count: int = 100,
    traces: Traces = "none",
) -> Iterator[PairRecord]:
    """Draw Shapes pairs lazily, and write their media into `folder`/media.

    Scenes become PNG files; the clips of a family are joined into one MP4 file, and its pages in one PDF.
    The pairs are those of `ShapesSource` with the same arguments.

    Args:
        folder: Where the pair file will be.
        tasks: Names of tasks; each is a data set.
        level: Name of the level.
        seed: Of everything.
        group_size: Pairs of a family of look-alikes.
        count: Pairs a task.
        traces: "true" writes the true T-CoTs, "none" leaves them to a Reasoner.

    Raises:
        InputError: As `ShapesSource`.
    """
    for task in tasks:
        source = ShapesSource(task, level, seed, group_size, count)
        for first in range(0, count, group_size):
            yield from _write_family(source, range(first, min(first + group_size, count)), folder, traces)


def _write_family(source: ShapesSource, members: range, folder: Path, traces: Traces) -> Iterator[PairRecord]:
    pairs = [source.pair(index) for index in members]
    media = folder / MEDIA / source.task
    make_folder(media)
    stem = f"{members.start:06d}"
    queries, positives = (
        _write_side(
            [getattr(pair, side) for pair in pairs],
            source,
            members=members,
            side=side,
            stem=media / f"{stem}-{side}",
            folder=folder,
        )
        for side in SIDES
    )
    for index, pair, query, positive in zip(members, pairs, queries, positives, strict=True):
        yield PairRecord(
            id=f"{source.level}-{source.seed}-{index:06d}",
            dataset=source.name,
            query=query,
            positive=positive,
            group=f"{source.level}-{source.seed}-{members.start:06d}",
            target=pair.positive.text,
            query_tcot=render(pair.query.tcot) if traces == "true" else None,
            positive_tcot=render(pair.positive.tcot) if traces == "true" else None,
        )


def _write_side(
    samples: Sequence[Sample],
    source: ShapesSource,
    *,
    members: range,
    side: Literal["query", "positive"],
    stem: Path,
    folder: Path,
) -> list[ItemRecord]:
    """Write the media of one side of a family, and return its records."""
    clips = [sample.shown for sample in samples if isinstance(sample.shown, Clip)]
    pages = [sample.shown for sample in samples if isinstance(sample.shown, Page)]
    video, pdf = (stem.with_name(stem.name + suffix) for suffix in (".mp4", ".pdf"))
    if clips:
        write_clip(clips, video)
    if pages:
        write_pages(pages, pdf)
    records: list[ItemRecord] = []
    clip = page = 0
    for index, sample in zip(members, samples, strict=True):
        shown = sample.shown
        if shown is None:
            records.append(ItemRecord(text=sample.text))
        elif isinstance(shown, Clip):
            start, clip = float(CLIP_SECONDS * clip), clip + 1
            stretch = StretchRef(path=_relative(video, folder), start_s=start, end_s=start + CLIP_SECONDS)
            records.append(ItemRecord(text=sample.text, videos=(stretch,)))
        elif isinstance(shown, Page):
            page += 1
            records.append(ItemRecord(text=sample.text, images=(PageRef(path=_relative(pdf, folder), page=page),)))
        else:
            picture = stem.with_name(f"{stem.name}-{index:06d}.png")
            sample.item(source.rng(index, side)).images[0].save(picture)
            records.append(ItemRecord(text=sample.text, images=(_relative(picture, folder),)))
    return records


def _relative(path: Path, folder: Path) -> str:
    return path.relative_to(folder).as_posix()


def _require(name: str, known: Iterable[str], what: str) -> None:
    names = list(known)
    if name not in names:
        raise InputError(f"unknown {what} {name!r}", hint=f"use one of {', '.join(names)}")
