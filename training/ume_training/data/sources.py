"""Pairs with their pixels, one at a time: what contrastive training and EG-RL draw their batches from."""

from __future__ import annotations

import hashlib
from array import array
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Protocol

from ume_retrieval.checkpoint import VisualBudget
from ume_retrieval.errors import Failure, TrainingError, UmeError
from ume_retrieval.inputs import LoadedItem
from ume_retrieval.media import DEFAULT_LIMITS, Limits, content_id
from ume_retrieval.util.files import display_name
from ume_training.data.files import Located, PairReader, shards
from ume_training.data.parquet import RowReader
from ume_training.data.records import FramesRef, ItemRecord
from ume_training.data.validation import BROKEN, OnError, PairError, TCotRule, read_line, tcot_problems

REMEMBERED = 4096
"""Pairs whose content digests a source keeps, so that a batch compares its pairs without reading files again."""


@dataclass(frozen=True, slots=True)
class LoadedPair:
    """A pair whose media are pixels.

    Attributes:
        query: What is asked.
        positive: What answers it.
        negatives: Items that do not answer it.
        query_tcot: T-CoT of the query as written, or None.
        positive_tcot: T-CoT of the positive as written, or None.
    """

    query: LoadedItem
    positive: LoadedItem
    negatives: tuple[LoadedItem, ...] = ()
    query_tcot: str | None = None
    positive_tcot: str | None = None


class PairSource(Protocol):
    """A data set that can be drawn from by position; the same position gives the same pair every time.

    A batch comes from one data set.
    """

    @property
    def name(self) -> str:
        """Of the data set."""
        ...

    def __len__(self) -> int:
        """Return how many pairs there are."""
        ...

    def __getitem__(self, index: int) -> LoadedPair:
        """Load one pair."""
        ...

    def group(self, index: int) -> str:
        """Look-alikes share a group and come into the same batch; a pair without any is its own group."""
        ...

    def also_answers(self, query: int, positive: int) -> bool:
        """Return whether the positive of one pair answers the query of another, so that it is not a negative."""
        ...


@dataclass(slots=True)
class _Positions:
    """Positions of one data set's pairs, 32 bytes per pair."""

    shard: array[int] = field(default_factory=lambda: array("Q"))
    offset: array[int] = field(default_factory=lambda: array("Q"))
    line: array[int] = field(default_factory=lambda: array("Q"))
    group: array[int] = field(default_factory=lambda: array("Q"))


class PairIndex:
    """Positions of all pairs in a pair file, by data set, for random access.

    Building it reads and checks every line once; afterwards a pair costs one seek (JSONL) or one row group (Parquet).

    Args:
        path: The pair file or folder of shards.
        on_error: What to do with a broken line.
        rule: Which T-CoTs pass.

    Attributes:
        failures: Lines that were left out.

    Raises:
        PairError: For the first broken line, if `on_error` is "stop".
        TrainingError: When the file cannot be read or holds no pair.
    """

    def __init__(self, path: Path, *, on_error: OnError = "stop", rule: TCotRule = "strict") -> None:
        self.path = path
        self._shards = shards(path)
        numbers = {file: number for number, file in enumerate(self._shards)}
        self._positions: dict[str, _Positions] = {}
        reader = PairReader(path, on_error=on_error, rule=rule)
        for located, offset in reader.with_offsets():
            record = located.record
            at = self._positions.setdefault(record.dataset, _Positions())
            at.shard.append(numbers[located.file])
            at.offset.append(offset)
            at.line.append(located.line)
            at.group.append(_digest(record.group) if record.group is not None else 0)
        self.failures: tuple[Failure, ...] = tuple(reader.failures)
        self._rows = RowReader()
        if not self._positions:
            left_out = f"; {len(self.failures)} lines are broken, {self.failures[0].message}" if self.failures else ""
            raise TrainingError(f"{display_name(path)} holds no pair that can be used{left_out}")

    @property
    def datasets(self) -> Mapping[str, int]:
        """How many pairs each data set has, in order of appearance."""
        return {name: len(at.line) for name, at in self._positions.items()}

    def read(self, dataset: str, index: int) -> Located:
        """Return one pair by its position in its data set.

        Raises:
            IndexError: If the position does not exist.
            PairError: When the line has changed since the index was built.
        """
        at = self._positions[dataset]
        file, line, offset = self._shards[at.shard[index]], at.line[index], at.offset[index]
        if file.suffix == ".parquet":
            text: str | bytes = self._rows.read(file, offset)
        else:
            with file.open("rb") as handle:
                handle.seek(offset)
                text = handle.readline()
        record = read_line(text, file, line)
        if record.dataset != dataset:
            raise PairError(file, line, "dataset", "has changed since the file was opened", hint="start again")
        return Located(record, file, line)

    def group(self, dataset: str, index: int) -> str:
        """Name of a pair's group, equal for equal groups and unlike any other."""
        group = self._positions[dataset].group[index]
        return f"group {group:016x}" if group else f"pair {index}"


class FileSource:
    """One data set of a pair file; media are decoded when a pair is asked for and not kept.

    Args:
        index: Of the pair file.
        dataset: Which data set.
        budget: How videos are sampled and pages rendered: the Embedder's when contrastive training asks, the
            Reasoner's for EG-RL.
        limits: Ceilings on what a file may cost.

    Attributes:
        name: Of the data set.

    Raises:
        TrainingError: If the file lacks the data set.
    """

    def __init__(
        self, index: PairIndex, dataset: str, budget: VisualBudget, *, limits: Limits = DEFAULT_LIMITS
    ) -> None:
        if dataset not in index.datasets:
            raise TrainingError(
                f"{display_name(index.path)} lacks the data set {dataset!r}", hint=f"it has {', '.join(index.datasets)}"
            )
        self.name = dataset
        self.budget = budget
        self.limits = limits
        self._index = index
        self._contents = lru_cache(maxsize=REMEMBERED)(self._digests)

    def __len__(self) -> int:
        return self._index.datasets[self.name]

    def __getitem__(self, index: int) -> LoadedPair:
        """Load one pair.

        Raises:
            IndexError: If the position does not exist.
            PairError: When a medium does not decode; it names file, line and field.
        """
        located = self.located(index)
        record = located.record
        query, positive, *negatives = (self._load(item, side, located) for side, item in record.sides())
        return LoadedPair(query, positive, tuple(negatives), record.query_tcot, record.positive_tcot)

    def located(self, index: int) -> Located:
        """Read the record of a pair with its place in the file."""
        if not 0 <= index < len(self):
            raise IndexError(index)
        return self._index.read(self.name, index)

    def group(self, index: int) -> str:
        """Look-alikes share a group; a pair without one is its own."""
        return self._index.group(self.name, index)

    def also_answers(self, query: int, positive: int) -> bool:
        """Return whether both pairs ask the same, or have the same positive, by content and not by file name."""
        one, other = self._contents(query), self._contents(positive)
        return one[0] == other[0] or one[1] == other[1]

    def _digests(self, index: int) -> tuple[str, str]:
        located = self.located(index)
        return (
            self._content(located.record.query, "query", located),
            self._content(located.record.positive, "positive", located),
        )

    def _content(self, item: ItemRecord, side: str, located: Located) -> str:
        try:
            return content_id(item.item(located.folder, self.budget, self.limits), self.budget, self.limits)
        except UmeError as error:
            raise located_error(error, side, located) from error

    def _load(self, item: ItemRecord, side: str, located: Located) -> LoadedItem:
        try:
            return item.load(located.folder, self.budget, self.limits)
        except UmeError as error:
            raise located_error(error, side, located) from error


def located_error(error: UmeError, side: str, located: Located) -> PairError:
    """Return an error of a decoder or an engine with the file, line and field that it is about."""
    return PairError(located.file, located.line, side, error.message, hint=error.hint)


def file_sources(
    path: Path,
    budget: VisualBudget,
    *,
    on_error: OnError = "stop",
    rule: TCotRule = "strict",
    limits: Limits = DEFAULT_LIMITS,
) -> tuple[tuple[FileSource, ...], tuple[Failure, ...]]:
    """Return every data set of a pair file, and the lines that were left out.

    Raises:
        PairError: For the first broken line, if `on_error` is "stop".
        TrainingError: When the file cannot be read or holds no pair.
    """
    index = PairIndex(path, on_error=on_error, rule=rule)
    return tuple(FileSource(index, name, budget, limits=limits) for name in index.datasets), index.failures


def undecodable(located: Located, budget: VisualBudget, limits: Limits = DEFAULT_LIMITS) -> Iterator[PairError]:
    """Yield the faults that show only when media are decoded: broken files, key frames out of range."""
    loaded: dict[str, LoadedItem] = {}
    for side, item in located.record.sides():
        try:
            loaded[side] = item.load(located.folder, budget, limits)
        except UmeError as error:
            yield located_error(error, side, located)
    for field_name, item, text in located.record.tcots():
        seen = loaded.get(field_name.removesuffix("_tcot"))
        if seen is None or not seen.videos or any(isinstance(video, FramesRef) for video in item.videos):
            continue
        frames = sum(len(video.images) for video in seen.videos)
        problems = [name for name in tcot_problems(text, item, frames) if name in BROKEN]
        if problems:
            reason = f"is malformed for {frames} frames ({', '.join(problems)})"
            yield PairError(located.file, located.line, field_name, reason)


def _digest(name: str) -> int:
    # 0 means no group.
    return int.from_bytes(hashlib.blake2b(name.encode("utf-8", "replace"), digest_size=8).digest(), "big") or 1


@dataclass(frozen=True, slots=True)
class ChosenPairs:
    """Some pairs of a data set, as a data set of its own.

    Attributes:
        source: The whole.
        chosen: Positions in it.
    """

    source: PairSource
    chosen: tuple[int, ...]

    @property
    def name(self) -> str:
        """Of the data set."""
        return self.source.name

    def __len__(self) -> int:
        return len(self.chosen)

    def __getitem__(self, index: int) -> LoadedPair:
        return self.source[self.chosen[index]]

    def group(self, index: int) -> str:
        """As in the whole."""
        return self.source.group(self.chosen[index])

    def also_answers(self, query: int, positive: int) -> bool:
        """As in the whole."""
        return self.source.also_answers(self.chosen[query], self.chosen[positive])


def readable_pairs(source: PairSource) -> tuple[ChosenPairs, tuple[Failure, ...]]:
    """Return the pairs of a data set that can be loaded, and why the others cannot. Decodes every medium once.

    EG-RL shares the rows of a step out before it reads them, so it has to know beforehand.
    """
    chosen: list[int] = []
    failures: list[Failure] = []
    for index in range(len(source)):
        try:
            source[index]
        except PairError as error:
            failures.append(error.failure())
        else:
            chosen.append(index)
    return ChosenPairs(source, tuple(chosen)), tuple(failures)
