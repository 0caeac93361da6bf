"""The operator that decides what there is to do, from what the collection holds of each file."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from ume_qdrant.indexing.plan import Explored, Holdings, Plan, make_plan
from ume_qdrant.indexing.points import Part, entry_id, entry_key
from ume_qdrant.indexing.write import VectorReuse
from ume_qdrant.stores.base import Point, Store
from ume_qdrant.stores.filters import ReasoningState
from ume_ray.sources import Listed, StoredObject, at_hand, renamed
from ume_ray.stages import Job, Operator
from ume_ray.units import Outcome, Unit, failed
from ume_retrieval.errors import Failure, UmeError
from ume_retrieval.media import FoundFile, entries


@dataclass(frozen=True, slots=True)
class Compare(Operator):
    """Compares files with what the collection holds of them: what it lacks goes on, the rest is settled.

    Nothing is decoded here. Decoding hands on its results one by one, and when its worker dies Ray does it again and
    leaves out what it has handed on already: so it must do the same again, whatever was written meanwhile.
    """

    job: Job

    def run(self, rows: Sequence[Listed]) -> Iterator[Iterable[object]]:
        """Outcomes, and units for what is to be decoded."""
        files = [row for row in rows if not isinstance(row, Failure)]
        yield [failed(row.source, row) for row in rows if isinstance(row, Failure)]
        store = self.job.shared.store()
        holdings = Holdings(store, [file.source for file in files], self.job.cut)
        found = Explored()
        places: dict[str, FoundFile | StoredObject] = {}
        for file in files:
            places[file.source] = file
            if holdings.is_current(file.source, file.size, file.mtime_ns) and not self._waiting(holdings, file):
                found.current.add(file.source)
            else:
                self._look(file, found)
        plan = make_plan(holdings, found)
        store.update(plan.refreshed)
        units = [*self._missing(plan, store, places), *self._unfinished(plan, holdings, found, places)]
        yield [*self._settled(plan, found), *units]

    def _waiting(self, holdings: Holdings, file: FoundFile | StoredObject) -> bool:
        return any(self._owed(point.payload["reasoning"]) for point in holdings.points(file.source))

    def _owed(self, state: ReasoningState) -> bool:
        """Whether a point in this state needs something from this run."""
        return state in {"always": ("later", "never"), "later": ("never",), "never": ()}[self.job.reasoning]

    def _look(self, file: FoundFile | StoredObject, found: Explored) -> None:
        """Learn what a file holds."""
        limits = self.job.models.limits
        segment_s, overlap_s = self.job.cut
        try:
            with at_hand(file, limits) as here:
                if isinstance(here, Failure):
                    found.failures.append(here)
                    return
                try:
                    found.entries[file.source] = entries(here, limits=limits, segment_s=segment_s, overlap_s=overlap_s)
                except UmeError as error:
                    failure = Failure.of(error, index=0, source=file.source)
                    message = renamed(failure.message, here.path, file.source)
                    found.failures.append(replace(failure, message=message))
        except UmeError as error:
            found.failures.append(Failure.of(error, index=0, source=file.source))

    def _missing(
        self, plan: Plan, store: Store, places: Mapping[str, FoundFile | StoredObject]
    ) -> Iterator[Unit | Outcome]:
        """Points that the collection lacks; those that show what it has under another name are written at once."""
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
        self, plan: Plan, holdings: Holdings, found: Explored, places: Mapping[str, FoundFile | StoredObject]
    ) -> Iterator[Unit | Outcome]:
        """Points that are there and wait for reasoning."""
        store = self.job.shared.store()
        excluded: list[Point] = []
        for source, there in found.entries.items():
            states = {point.id: point.payload["reasoning"] for point in holdings.points(source)}
            for entry in there:
                state = states.get(entry_id(entry))
                if state is None or not self._owed(state):
                    continue
                if state == "never":
                    excluded.append(Point(entry_id(entry), {}, {"reasoning": "later"}))
                if self.job.reasoning == "always":
                    parts = len(there) + sum(failure.source == source for failure in plan.failures)
                    yield Unit(Part(entry, parts, self.job.cut), places[source], direct=False, reason=True)
        store.update(excluded)

    def _settled(self, plan: Plan, found: Explored) -> Iterator[Outcome]:
        """What is known of the batch's files without asking a model."""
        yield from (failed(failure.source, failure) for failure in plan.failures)
        at_work = {work.source for work in plan.work}
        for source in [*found.current, *(found.entries.keys() - at_work)]:
            yield Outcome("unchanged", source)
        for work in plan.work:
            if work.stale:
                yield Outcome("stale", work.source, stale=work.stale, present=work.present)
