"""Operators of the Ray Data pipeline: each maps a batch of rows; outcomes pass through unchanged."""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from ume_qdrant.indexing.enrich import reasoned_update, refused_update
from ume_qdrant.indexing.labels import FileMetadata, Label, Labels
from ume_qdrant.indexing.objects import Listed, StoredObject, at_hand, item_at, listed, renamed
from ume_qdrant.indexing.plan import Cut, Explored, Holdings, Plan, entry_key, make_plan, parts_of
from ume_qdrant.indexing.write import VectorReuse
from ume_qdrant.stores.base import Point, Store, batches
from ume_qdrant.stores.filters import ReasoningState
from ume_ray.models import Description, Models
from ume_ray.stores import Shared
from ume_ray.units import Decoded, EncodedUnit, Outcome, ReasonedUnit, Unit, batch_of, failed, rows_of
from ume_retrieval.errors import Failure, ItemWarning, UmeError
from ume_retrieval.media import FoundFile, display_name
from ume_retrieval.pipeline import EmbedStage, ItemLoader, StageItem, apply_stage, load_items
from ume_retrieval.pipeline.loading import item_warnings

Batch = Mapping[str, Any]

LISTED_AT_ONCE = 256
"""Files per batch of a listing."""


@dataclass(frozen=True, slots=True)
class Job:
    """Settings of a run for every worker.

    Attributes:
        cut: Length and overlap of video segments in seconds.
        leave_out: Folders of the store's own files, each ending in a separator.
        items_a_call: Items per call of a model.
        metadata: Metadata of the files: a mapping, a function of the path, or None to keep what points have.
        tenant_key: Name of the metadata that holds the tenant, or None.
    """

    models: Models
    described: Description
    shared: Shared
    reasoning: Literal["later", "always", "never"]
    cut: Cut
    follow_symlinks: bool
    leave_out: tuple[str, ...]
    items_a_call: int
    metadata: FileMetadata | None = None
    tenant_key: str | None = None

    @property
    def state(self) -> ReasoningState:
        """Reasoning state of a new point."""
        return "never" if self.reasoning == "never" else "later"


class Operator(ABC):
    """Maps batches of rows for Ray Data; an error of a whole batch becomes a row, since Ray reports errors as text."""

    __slots__ = ()

    @abstractmethod
    def run(self, rows: Sequence[Any]) -> Iterator[Iterable[object]]:
        """Map rows to groups of rows."""

    def __call__(self, batch: Batch) -> Iterator[dict[str, Any]]:
        """Apply `run` to a batch; empty groups are dropped, since Ray cannot infer their type."""
        try:
            for made in self.run(rows_of(batch)):
                if listed_rows := list(made):
                    yield batch_of(self.groups_of(listed_rows))
        except UmeError as error:
            yield batch_of([[Outcome("stopped", failure=Failure.of(error, index=0))]])

    def groups_of(self, rows: Sequence[object]) -> Iterable[Sequence[object]]:
        """Split rows into the groups of the next operator; one group by default."""
        return [rows]


@dataclass(frozen=True, slots=True)
class List(Operator):
    """Lists the files of a group of places, one task per group; yields results incrementally."""

    job: Job
    groups: tuple[tuple[str, ...], ...]

    def run(self, rows: Sequence[int]) -> Iterator[Iterable[object]]:
        """Yield the files of the groups with these numbers."""
        for number in rows:
            found = listed(
                self.groups[number],
                limits=self.job.models.limits,
                follow_symlinks=self.job.follow_symlinks,
                leave_out=self.job.leave_out,
            )
            yield from batches(found, LISTED_AT_ONCE)

    def groups_of(self, rows: Sequence[object]) -> Iterable[Sequence[object]]:
        """Make each file a group, so that Ray can distribute them."""
        return [[row] for row in rows]


@dataclass(frozen=True, slots=True)
class Decode(Operator):
    """Decodes units; objects are fetched into a temporary folder meanwhile."""

    job: Job

    def run(self, rows: Sequence[Any]) -> Iterator[Iterable[object]]:
        """Yield outcomes first, then decoded units, in groups bounded by their pixels."""
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
            rows: list[Decoded | Outcome] = []
            for one in outcomes:
                unit = next(waiting)
                rows += [self._row(unit, one, copies), *self._warned(one, copies[unit.source])]
            yield rows

    def _row(self, unit: Unit, one: StageItem | Failure, copies: Mapping[str, FoundFile]) -> Decoded | Outcome:
        if isinstance(one, StageItem):
            return Decoded(unit, one)
        copy = copies[unit.source]
        named = replace(one, source=copy.source, message=renamed(one.message, copy.path, copy.source))
        self._mark(unit, named)
        return failed(copy.source, named)

    def _warned(self, one: StageItem | Failure, copy: FoundFile) -> list[Outcome]:
        words = [] if isinstance(one, Failure) else item_warnings(one)
        renamed_words = {renamed(warning.message, copy.path, copy.source) for warning in words}
        return [Outcome("warned", copy.source, warning=ItemWarning(copy.source, message)) for message in renamed_words]

    def _mark(self, unit: Unit, failure: Failure) -> None:
        """Record in an existing point that reasoning failed."""
        if not unit.direct:
            self.job.shared.store().update([refused_update(unit.part.id, failure)])


class Reason(Operator):
    """Actor with its own Reasoner."""

    def __init__(self, job: Job) -> None:
        self._stage = job.models.reasoning(job.described.embedder)

    def run(self, rows: Sequence[Any]) -> Iterator[Iterable[object]]:
        """Add a trace or a failure to every decoded unit that needs reasoning."""
        asked = [row for row in rows if _wants_reason(row)]
        outcomes = apply_stage(self._stage, [row.item for row in asked])
        reasoned = [
            ReasonedUnit(row.unit, row.item, one) if isinstance(one, Failure) else ReasonedUnit(row.unit, one)
            for row, one in zip(asked, outcomes.items, strict=True)
        ]
        rest = (row for row in rows if not _wants_reason(row))
        yield [*rest, *reasoned, Outcome("spent", usage=replace(outcomes.usage, items=0))]


class Embed(Operator):
    """Actor with its own Embedder."""

    def __init__(self, job: Job) -> None:
        self._stage = EmbedStage(job.models.embedder(), "corpus")

    def run(self, rows: Sequence[Any]) -> Iterator[Iterable[object]]:
        """Add the direct vector to every unit that lacks it, and the reasoned vector to every unit with a trace."""
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
        yield [*settled, *encoded, Outcome("spent", usage=outcomes.usage)]


@dataclass(frozen=True, slots=True)
class Write(Operator):
    """Writes the points and yields only outcomes."""

    job: Job

    def run(self, rows: Sequence[Any]) -> Iterator[Iterable[object]]:
        """Write the points of a batch before its outcomes are yielded."""
        outcomes = [row for row in rows if isinstance(row, Outcome)]
        new: list[Point] = []
        changed: list[Point] = []
        for made in rows:
            if not isinstance(made, EncodedUnit):
                continue
            point, done = self._point(made)
            (new if made.unit.direct else changed).append(point)
            outcomes += done
        store = self.job.shared.store()
        store.upsert(new)
        store.update(changed)
        yield outcomes

    def _point(self, made: EncodedUnit) -> tuple[Point, list[Outcome]]:
        unit, key, outcomes = made.unit, made.unit.part.id, []
        point = Point(key)
        if made.direct is not None:
            point = unit.part.point(made.direct, self.job.state)
            outcomes.append(Outcome("embedded", unit.source))
        more = Point(key)
        if made.reasoned is not None and made.trace is not None:
            text = made.trace.tcot.answer if unit.part.entry.item.text is None else None
            more = reasoned_update(key, made.reasoned, made.trace, self.job.described.info, text=text)
            outcomes.append(Outcome("reasoned", unit.source))
        elif made.failure is not None:
            outcomes.append(failed(unit.source, made.failure))
            more = refused_update(key, made.failure)
        return Point(key, {**point.vectors, **more.vectors}, {**point.payload, **more.payload}), outcomes


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
    """Return the store's own folders as prefixes of the sources in them."""
    return tuple(display_name(folder) + os.sep for folder in store.folders)


@dataclass(frozen=True, slots=True)
class Compare(Operator):
    """Compares files with their points: yields units for missing points, and outcomes for the rest.

    Separate from decoding, which streams its results: if its worker dies, Ray repeats it and skips the results that it
    had yielded, so its input must not depend on the points written meanwhile.
    """

    job: Job

    def run(self, rows: Sequence[Listed]) -> Iterator[Iterable[object]]:
        """Yield outcomes, and units to decode."""
        files = [row for row in rows if not isinstance(row, Failure)]
        yield [failed(row.source, row) for row in rows if isinstance(row, Failure)]
        store = self.job.shared.store()
        labels = Labels(self.job.metadata, self.job.tenant_key, ())
        holdings = Holdings(store, [file.source for file in files], self.job.cut, labels.tenant_key)
        found = Explored()
        places: dict[str, FoundFile | StoredObject] = {}
        for file in files:
            places[file.source] = file
            try:
                label = labels.of(file.address if isinstance(file, StoredObject) else str(file.path))
            except UmeError as error:
                found.fail(error, file.source)
                continue
            held = holdings.points(file.source, label.tenant)
            current = holdings.is_current(file.source, file.size, file.mtime_ns, label.tenant)
            if current and not any(self._owed(point.payload["reasoning"]) for point in held):
                found.skip(file.source, label)
            else:
                self._look(file, label, found)
        plan = make_plan(holdings, found)
        store.update(plan.refreshed)
        units = [*self._missing(plan, store, places), *self._unfinished(holdings, found, places)]
        yield [*self._settled(plan, found), *units]

    def _owed(self, state: ReasoningState) -> bool:
        """Return whether a point in this state needs reasoning or a new state from this run."""
        return state in {"always": ("later", "never"), "later": ("never",), "never": ()}[self.job.reasoning]

    def _look(self, file: FoundFile | StoredObject, label: Label, found: Explored) -> None:
        """Read the entries of a file."""
        limits = self.job.models.limits
        try:
            with at_hand(file, limits) as here:
                try:
                    found.open(here, label, self.job.cut, limits)
                except UmeError as error:
                    failure = Failure.of(error, index=0, source=file.source)
                    copy = here.path if isinstance(here, FoundFile) else Path()
                    found.failures.append(replace(failure, message=renamed(failure.message, copy, file.source)))
        except UmeError as error:
            found.fail(error, file.source)

    def _missing(
        self, plan: Plan, store: Store, places: Mapping[str, FoundFile | StoredObject]
    ) -> Iterator[Unit | Outcome]:
        """Yield units for missing points; writes at once those whose content the collection has under another name."""
        parts = [(work, part) for work in plan.work for part in work.missing]
        known = VectorReuse(store, [part.entry for _, part in parts]).find([part.entry for _, part in parts])
        twins: list[Point] = []
        for work, part in parts:
            donor = known.get(entry_key(part.entry))
            if donor is None:
                yield Unit(part, places[work.source], direct=True, reason=self.job.reasoning == "always")
                continue
            twins.append(part.copy_of(donor, self.job.state))
            yield Outcome("taken over", work.source)
            if self.job.reasoning == "always" and twins[-1].payload["reasoning"] == "later":
                yield Unit(part, places[work.source], direct=False, reason=True)
        store.upsert(twins)

    def _unfinished(
        self, holdings: Holdings, found: Explored, places: Mapping[str, FoundFile | StoredObject]
    ) -> Iterator[Unit | Outcome]:
        """Yield units for existing points that lack reasoning."""
        store = self.job.shared.store()
        excluded: list[Point] = []
        tenants = {source: found.label(source).tenant for source in found.entries}
        states = {
            point.id: point.payload["reasoning"]
            for source, tenant in tenants.items()
            for point in holdings.points(source, tenant)
        }
        for source, part in parts_of(holdings, found):
            state = states.get(part.id)
            if state is None or not self._owed(state):
                continue
            if state == "never":
                excluded.append(Point(part.id, {}, {"reasoning": "later"}))
            if self.job.reasoning == "always":
                yield Unit(part, places[source], direct=False, reason=True)
        store.update(excluded)

    def _settled(self, plan: Plan, found: Explored) -> Iterator[Outcome]:
        """Yield the outcomes of the batch that need no model."""
        yield from (failed(failure.source, failure) for failure in plan.failures)
        at_work = {work.source for work in plan.work}
        for source in [*found.current, *(found.entries.keys() - at_work)]:
            yield Outcome("unchanged", source)
        for work in plan.work:
            if work.stale:
                yield Outcome("stale", work.source, stale=work.stale, present=work.present)
