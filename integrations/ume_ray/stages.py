"""The operators: what each worker does with a batch of rows. Rows that are settled pass through unchanged."""

from __future__ import annotations

import os
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
from ume_ray.units import Decoded, EncodedUnit, Outcome, ReasonedUnit, Unit, batch_of, failed, rows_of, spent, stopped
from ume_retrieval.errors import Failure, UmeError
from ume_retrieval.media import FoundFile, display_name
from ume_retrieval.pipeline import EmbedStage, ItemLoader, StageItem, apply_stage, load_items

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
        loader = ItemLoader(
            described.embedder.budget,
            described.reasoner_budget if self.job.reasoning == "always" else None,
            self.job.models.limits,
            chunk_items=self.job.items_a_call,
        )
        items = [item_at(unit.part.entry, copies[unit.source].path) for unit in units]
        waiting = iter(units)
        for outcomes in load_items(loader, items):
            yield [self._row(next(waiting), one, copies) for one in outcomes]

    def _row(self, unit: Unit, one: StageItem | Failure, copies: Mapping[str, FoundFile]) -> Decoded | Outcome:
        if isinstance(one, StageItem):
            return Decoded(unit, one)
        copy = copies[unit.source]
        named = replace(one, source=copy.source, message=renamed(one.message, copy.path, copy.source))
        self._mark(unit, named)
        return failed(copy.source, named)

    def _mark(self, unit: Unit, failure: Failure) -> None:
        """A point that is there and can never be reasoned over says so."""
        if not unit.direct:
            self.job.shared.store().update([refused_update(entry_id(unit.part.entry), failure)])


class Reason(Operator):
    """An actor with a Reasoner of its own."""

    def __init__(self, job: Job) -> None:
        self._stage = job.models.reasoning(job.described.embedder)

    def run(self, rows: Sequence[Any]) -> Iterator[Iterable[object]]:
        """Give every decoded unit that wants it its trace, or the reason why it has none."""
        asked = [row for row in rows if _wants_reason(row)]
        outcomes = apply_stage(self._stage, [row.item for row in asked])
        reasoned = [
            ReasonedUnit(row.unit, row.item, one) if isinstance(one, Failure) else ReasonedUnit(row.unit, one)
            for row, one in zip(asked, outcomes.items, strict=True)
        ]
        rest = (row for row in rows if not _wants_reason(row))
        yield [*rest, *reasoned, spent(replace(outcomes.usage, items=0))]


class Embed(Operator):
    """An actor with an Embedder of its own."""

    def __init__(self, job: Job) -> None:
        self._stage = EmbedStage(job.models.embedder(), "corpus")

    def run(self, rows: Sequence[Any]) -> Iterator[Iterable[object]]:
        """Give every unit its vectors: the direct one when it lacks it, the reasoned one when it has a trace."""
        units = [
            ReasonedUnit(row.unit, row.item) if isinstance(row, Decoded) else row
            for row in rows
            if isinstance(row, (Decoded, ReasonedUnit))
        ]
        asked: dict[tuple[int, bool], StageItem] = {}
        for index, unit in enumerate(units):
            if unit.unit.direct:
                asked[index, False] = replace(unit.item, trace=None, evidence=None)
            if unit.item.trace is not None:
                asked[index, True] = unit.item
        outcomes = apply_stage(self._stage, [*asked.values()])
        made = dict(zip(asked, outcomes.items, strict=True))
        encoded = [
            _encoded(unit, made.get((index, False)), made.get((index, True))) for index, unit in enumerate(units)
        ]
        settled = [row for row in rows if isinstance(row, Outcome)]
        yield [*settled, *encoded, spent(outcomes.usage)]


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
            if not isinstance(made, EncodedUnit):
                continue
            point, told = self._point(made)
            (new if made.unit.direct else changed).append(point)
            outcomes += told
        store = self.job.shared.store()
        store.upsert(new)
        store.update(changed)
        yield outcomes

    def _point(self, made: EncodedUnit) -> tuple[Point, list[Outcome]]:
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


def _encoded(
    reasoned: ReasonedUnit, direct: StageItem | Failure | None, with_trace: StageItem | Failure | None
) -> EncodedUnit | Outcome:
    """Return a unit with its vectors; a new point without its direct vector is left out."""
    unit = reasoned.unit
    if isinstance(direct, Failure):
        return failed(unit.source, replace(direct, source=unit.source))
    lost = reasoned.failure or (with_trace if isinstance(with_trace, Failure) else None)
    return EncodedUnit(
        unit,
        direct.vector if direct else None,
        with_trace.vector if isinstance(with_trace, StageItem) else None,
        reasoned.item.trace,
        None if lost is None else replace(lost, source=unit.source),
    )


def folders_left_out(store: Store) -> tuple[str, ...]:
    """A store's own folders, as sources begin that lie in them."""
    return tuple(display_name(folder) + os.sep for folder in store.folders)
