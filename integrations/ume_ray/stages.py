"""The operators: what each worker does with a batch of rows. Rows that are settled pass through unchanged."""

from __future__ import annotations

import os
import threading
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import Any, Literal, TypeVar

from ume_qdrant.indexing.points import Cut, entry_id, reasoned_update, refused_update
from ume_qdrant.stores.base import Point, Store, batches
from ume_qdrant.stores.filters import ReasoningState
from ume_ray.models import Description, Models
from ume_ray.sources import at_hand, item_at, listed, renamed
from ume_ray.stores import Shared
from ume_ray.units import Decoded, Made, Outcome, Thought, Unit, batch_of, failed, rows_of, spent, stopped
from ume_retrieval.errors import Failure, UmeError
from ume_retrieval.media import FoundFile, display_name
from ume_retrieval.pipeline.loading import Chunk, Intake, Loaded
from ume_retrieval.pipeline.progress import Ledger
from ume_retrieval.pipeline.stages import Embedding, Reasoned

Batch = Mapping[str, Any]
Row = TypeVar("Row")

LISTED_AT_ONCE = 256
"""Files that a listing hands on together."""


@dataclass(frozen=True, slots=True)
class Job:
    """What every worker knows of a run.

    Attributes:
        models: How to load the pair.
        described: What is known of it.
        shared: The collection.
        reasoning: When to reason over what is indexed.
        cut: Length and overlap of video segments in seconds.
        follow_symlinks: Follow links out of the given folders.
        leave_out: Folders of the store's own files, each ending in a separator.
        items_a_call: Items that a model gets at once.
    """

    models: Models
    described: Description
    shared: Shared
    reasoning: Literal["later", "always", "never"]
    cut: Cut
    follow_symlinks: bool
    leave_out: tuple[str, ...]
    items_a_call: int

    @property
    def state(self) -> ReasoningState:
        """State of reasoning of a new point."""
        return "never" if self.reasoning == "never" else "later"


class Operator(ABC):
    """Rows in, rows out, as Ray Data wants them; an error that is no single item's becomes a row."""

    __slots__ = ()

    @abstractmethod
    def run(self, rows: Sequence[Any]) -> Iterator[Iterable[object]]:
        """What becomes of some rows, a group at a time."""

    def __call__(self, batch: Batch) -> Iterator[dict[str, Any]]:
        """`run` over a batch; groups without rows are left out, since Ray cannot tell what they would hold."""
        try:
            for made in self.run(rows_of(batch)):
                if listed_rows := list(made):
                    yield batch_of(self.groups_of(listed_rows))
        except UmeError as error:
            yield batch_of([[stopped(error)]])

    def groups_of(self, rows: Sequence[object]) -> Iterable[Sequence[object]]:
        """Rows as they travel on; together unless the next operator needs them apart."""
        return [rows]


@dataclass(frozen=True, slots=True)
class List(Operator):
    """Lists the files of a group of places: one task a group, which hands on what it has found while it goes on."""

    job: Job
    groups: tuple[tuple[str, ...], ...]

    def run(self, rows: Sequence[int]) -> Iterator[Iterable[object]]:
        """What was found."""
        for number in rows:
            found = listed(
                self.groups[number],
                limits=self.job.models.limits,
                follow_symlinks=self.job.follow_symlinks,
                leave_out=self.job.leave_out,
            )
            yield from batches(found, LISTED_AT_ONCE)

    def groups_of(self, rows: Sequence[object]) -> Iterable[Sequence[object]]:
        """Each file by itself, so that Ray can share them out."""
        return [[row] for row in rows]


@dataclass(frozen=True, slots=True)
class Decode(Operator):
    """Decodes units; objects are fetched for as long as that takes."""

    job: Job

    def run(self, rows: Sequence[Any]) -> Iterator[Iterable[object]]:
        """Outcomes first, then decoded units, as many at a time as their pixels allow."""
        yield [row for row in rows if isinstance(row, Outcome)]
        units: list[Unit] = []
        lost: list[Outcome] = []
        with ExitStack() as fetched:
            copies: dict[str, FoundFile | Failure] = {}
            for unit in (row for row in rows if isinstance(row, Unit)):
                if unit.source not in copies:
                    copies[unit.source] = self._copy(unit, fetched)
                copy = copies[unit.source]
                if isinstance(copy, Failure):
                    lost.append(failed(unit.source, copy))
                else:
                    units.append(unit)
            yield lost
            yield from self._decoded(units, {one.source: one for one in copies.values() if isinstance(one, FoundFile)})

    def _copy(self, unit: Unit, fetched: ExitStack) -> FoundFile | Failure:
        try:
            return fetched.enter_context(at_hand(unit.place, self.job.models.limits))
        except UmeError as error:
            return Failure.of(error, index=0, source=unit.source)

    def _decoded(self, units: Sequence[Unit], copies: Mapping[str, FoundFile]) -> Iterator[list[Decoded | Outcome]]:
        described = self.job.described
        intake = Intake(
            reasoner_budget=described.reasoner_budget if self.job.reasoning == "always" else None,
            embedder_budget=described.embedder.budget,
            limits=self.job.models.limits,
            allow_remote=(),
            chunk_items=self.job.items_a_call,
        )
        ledger = Ledger(len(units), strict=False)
        items = [item_at(unit.part.entry, copies[unit.source].path) for unit in units]
        for chunk in intake.chunks(items, ledger):
            rows: list[Decoded | Outcome] = [Decoded(units[one.index], one) for one in chunk.items]
            for index, failure in sorted(ledger.take_failures(chunk.stop).items()):
                copy = copies[units[index].source]
                message = renamed(failure.message, copy.path, copy.source)
                named = replace(failure, source=copy.source, message=message)
                rows.append(failed(copy.source, named))
                self._mark(units[index], named)
            yield rows

    def _mark(self, unit: Unit, failure: Failure) -> None:
        """A point that is there and can never be reasoned over says so."""
        if not unit.direct:
            self.job.shared.store().update([refused_update(entry_id(unit.part.entry), failure)])


class Reason(Operator):
    """An actor with a Reasoner of its own."""

    def __init__(self, job: Job) -> None:
        self._reasoning = job.models.reasoning(job.described.embedder)

    def run(self, rows: Sequence[Any]) -> Iterator[Iterable[object]]:
        """Give every decoded unit that wants it its trace, or the reason why it has none."""
        asked = [row for row in rows if _wants_reason(row)]
        ledger = Ledger(len(asked), strict=False)
        chunk = Chunk(0, len(asked), [_at(index, row.loaded) for index, row in enumerate(asked)])
        done = {one.loaded.index: one for one in self._reasoning.run(chunk, ledger).items}
        failures = ledger.take_failures(len(asked))
        thoughts = [
            Thought(row.unit, done.get(index) or Reasoned(row.loaded), failures.get(index))
            for index, row in enumerate(asked)
        ]
        rest = (row for row in rows if not _wants_reason(row))
        yield [*rest, *thoughts, spent(replace(ledger.usage(), items=0))]


class Embed(Operator):
    """An actor with an Embedder of its own."""

    def __init__(self, job: Job) -> None:
        self._embedding = Embedding(job.models.embedder(), threading.Lock(), "corpus")

    def run(self, rows: Sequence[Any]) -> Iterator[Iterable[object]]:
        """Give every unit its vectors: the direct one when it lacks it, the reasoned one when it has a trace."""
        thoughts = [
            Thought(row.unit, Reasoned(row.loaded)) if isinstance(row, Decoded) else row
            for row in rows
            if isinstance(row, (Decoded, Thought))
        ]
        asked: list[tuple[int, bool, Reasoned]] = []
        for index, thought in enumerate(thoughts):
            if thought.unit.direct:
                asked.append((index, False, Reasoned(thought.reasoned.loaded)))
            if thought.reasoned.trace is not None:
                asked.append((index, True, thought.reasoned))
        ledger = Ledger(len(asked), strict=False)
        numbered = [replace(one, loaded=_at(number, one.loaded)) for number, (_, _, one) in enumerate(asked)]
        pairs = self._embedding.run(Chunk(0, len(asked), numbered), ledger).items
        vectors = {asked[one.loaded.index][:2]: vector for one, vector in pairs}
        failures = {asked[number][:2]: failure for number, failure in ledger.take_failures(len(asked)).items()}
        made = [_made(thought, index, vectors, failures) for index, thought in enumerate(thoughts)]
        settled = [row for row in rows if isinstance(row, Outcome)]
        yield [*settled, *made, spent(ledger.usage())]


@dataclass(frozen=True, slots=True)
class Write(Operator):
    """Writes what was made, and hands on nothing but outcomes."""

    job: Job

    def run(self, rows: Sequence[Any]) -> Iterator[Iterable[object]]:
        """A batch's points are in the collection when its outcomes are handed on."""
        outcomes = [row for row in rows if isinstance(row, Outcome)]
        new: list[Point] = []
        changed: list[Point] = []
        for made in rows:
            if not isinstance(made, Made):
                continue
            point, told = self._point(made)
            (new if made.unit.direct else changed).append(point)
            outcomes += told
        store = self.job.shared.store()
        store.upsert(new)
        store.update(changed)
        yield outcomes

    def _point(self, made: Made) -> tuple[Point, list[Outcome]]:
        unit, key, told = made.unit, entry_id(made.unit.part.entry), []
        point = Point(key)
        if made.direct is not None:
            point = unit.part.point(made.direct, self.job.state)
            told.append(Outcome("embedded", unit.source))
        more = Point(key)
        if made.reasoned is not None and made.trace is not None:
            text = made.trace.tcot.answer if unit.part.entry.item.text is None else None
            more = reasoned_update(key, made.reasoned, made.trace, self.job.described.info, text=text)
            told.append(Outcome("reasoned", unit.source))
        elif made.failure is not None:
            told.append(failed(unit.source, made.failure))
            more = refused_update(key, made.failure)
        return Point(key, {**point.vectors, **more.vectors}, {**point.payload, **more.payload}), told


def _wants_reason(row: object) -> bool:
    return isinstance(row, Decoded) and row.unit.reason


def _made(
    thought: Thought,
    index: int,
    vectors: Mapping[tuple[int, bool], Any],
    failures: Mapping[tuple[int, bool], Failure],
) -> Made | Outcome:
    """A unit after the Embedder; a new point without its direct vector is none."""
    unit, refused = thought.unit, failures.get((index, False))
    if refused is not None:
        return failed(unit.source, replace(refused, source=unit.source))
    lost = thought.failure or failures.get((index, True))
    return Made(
        unit,
        vectors.get((index, False)),
        vectors.get((index, True)),
        thought.reasoned.trace,
        None if lost is None else replace(lost, source=unit.source),
    )


def _at(index: int, loaded: Loaded) -> Loaded:
    return replace(loaded, index=index)


def folders_left_out(store: Store) -> tuple[str, ...]:
    """A store's own folders, as sources begin that lie in them."""
    return tuple(display_name(folder) + os.sep for folder in store.folders)
