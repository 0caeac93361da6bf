"""Carrying out a plan: embed what is missing, take over what is known, write batch by batch."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Final

import numpy as np

from ume_qdrant.indexing.plan import FileWork, Plan
from ume_qdrant.indexing.points import ContentKey, Part, entry_key
from ume_qdrant.indexing.reuse import CONTENT_FIELDS, Donors, content_key
from ume_qdrant.reports import OnProgress, Progress, error_of
from ume_qdrant.stores.base import Point, Store, Vector, batches
from ume_qdrant.stores.filters import Filter, ReasoningState
from ume_retrieval.errors import Failure
from ume_retrieval.pipeline.embedder import ReasoningEmbedder
from ume_retrieval.pipeline.run import Encoded
from ume_retrieval.results import Usage

BATCH: Final = 500
"""Points whose payload is set, or that are removed, at a time."""


@dataclass(slots=True)
class Writer:
    """One run's writing.

    Args:
        embedder: The models; only the Embedder is asked.
        store: The collection.
        state: State of reasoning of new points.
        strict: Raise the first failure, after the rest of its batch is written.
        report: Told of each batch.

    Attributes:
        written: Files of which something was written or removed.
        embedded: Those of them for which the Embedder was asked.
        failures: What could not be embedded.
        points: Points written.
        usage: What the Embedder was asked.
    """

    embedder: ReasoningEmbedder
    store: Store
    state: ReasoningState
    strict: bool
    report: OnProgress
    written: set[str] = field(default_factory=set)
    embedded: set[str] = field(default_factory=set)
    failures: list[Failure] = field(default_factory=list)
    points: int = 0
    usage: Usage = field(default_factory=Usage)

    def write(self, plan: Plan, batch_size: int) -> None:
        """Write what the collection lacks, in the plan's order."""
        for some in batches(plan.refreshed, BATCH):
            self.store.update(some)
        for work in plan.work:
            if not work.missing:
                self._finish(work)
        units = [(work, part) for work in plan.work for part in work.missing]
        donors = Donors(self.store, [part.entry for _, part in units])
        new = self._new([part for _, part in units])
        items = [part.entry.item for part in new.values()]
        done = 0
        # What comes next is decoded and embedded while a batch is written.
        with self.embedder.stream_corpus(items, reasoning="never", total=len(items), chunk_items=batch_size) as stream:
            coming = _Coming(deque(new), iter(stream))
            for batch in batches(units, batch_size):
                self._write_batch(batch, donors, coming)
                for work, part in batch:
                    if part is work.missing[-1]:
                        self._finish(work)
                done += len(batch)
                self.report(Progress("embed", done, len(units), batch[-1][0].source, stream.rates))
            self.usage += stream.usage

    def remove(self, plan: Plan) -> None:
        """Take out the points of files that are gone."""
        for some in batches([key for ids in plan.gone.values() for key in ids], BATCH):
            self.store.delete(some)

    def await_reasoning(self, roots: tuple[str, ...]) -> None:
        """Let points wait for reasoning that an earlier run has excluded from it."""
        where = Filter(under=roots, reasoning=("never",))
        # What stands for no whole part of a file, such as a piece of a text, cannot be found again to reason over.
        ids = [point.id for point in self.store.scroll(where, fields=("parts",)) if point.payload.get("parts")]
        for some in batches(ids, BATCH):
            self.store.update([Point(key, {}, {"reasoning": "later"}) for key in some])

    def _write_batch(self, batch: Sequence[tuple[FileWork, Part]], donors: Donors, coming: _Coming) -> None:
        entries = [part.entry for _, part in batch]
        vectors, failures = coming.take({entry_key(entry) for entry in entries})
        known = donors.of(entries)
        # What was known when the run began and is no longer, or failed before under another name.
        settled = known.keys() | vectors.keys() | failures.keys()
        lost = [part for _, part in batch if entry_key(part.entry) not in settled]
        more, refused = self._embed(lost)
        vectors, failures = vectors | more, failures | refused
        points: list[Point] = []
        written: dict[ContentKey, Point] = {}
        for work, part in batch:
            key = entry_key(part.entry)
            if key in known:
                points.append(part.twin(known[key], self.state))
            elif key in vectors:
                points.append(part.point(vectors[key], self.state))
                self.embedded.add(work.source)
            else:
                self.failures.append(replace(failures[key], source=work.source))
                continue
            self.written.add(work.source)
            written[key] = points[-1]
        self.store.upsert(points)
        donors.settle(entries, written)
        self.points += len(points)
        if self.strict and self.failures:
            raise error_of(self.failures[0])

    def _new(self, parts: Sequence[Part]) -> dict[ContentKey, Part]:
        """The first part with each content that the collection does not have."""
        first: dict[ContentKey, Part] = {}
        for part in parts:
            first.setdefault(entry_key(part.entry), part)
        digests = sorted({part.entry.file_digest for part in parts})
        for some in batches(digests, BATCH):
            for point in self.store.scroll(Filter(digests=tuple(some)), fields=CONTENT_FIELDS):
                first.pop(content_key(point.payload), None)
        return first

    def _embed(self, parts: Sequence[Part]) -> tuple[dict[ContentKey, Vector], dict[ContentKey, Failure]]:
        """Embed each distinct content once."""
        entries = {entry_key(part.entry): part.entry for part in parts}
        if not entries:
            return {}, {}
        items = [entry.item for entry in entries.values()]
        result = self.embedder.encode_corpus(items, reasoning="never", strict=False, return_traces=True)
        self.usage += result.usage
        keys = list(entries)
        failures = {keys[failure.index]: failure for failure in result.failures}
        rows = result.vectors.astype(np.float32)
        return {key: row for key, row in zip(keys, rows, strict=True) if key not in failures}, failures

    def _finish(self, work: FileWork) -> None:
        """Remove points of former content, once there are points of the present one."""
        if work.stale and (work.present or work.source in self.written):
            self.store.delete(work.stale)
            self.written.add(work.source)


@dataclass(frozen=True, slots=True)
class _Coming:
    """Contents in the order in which they are written, and what becomes of them in the same order."""

    keys: deque[ContentKey]
    results: Iterator[Encoded]

    def take(self, wanted: set[ContentKey]) -> tuple[dict[ContentKey, Vector], dict[ContentKey, Failure]]:
        """Wait for the vectors of those of the contents that are still to come."""
        vectors: dict[ContentKey, Vector] = {}
        failures: dict[ContentKey, Failure] = {}
        while self.keys and self.keys[0] in wanted:
            key, one = self.keys.popleft(), next(self.results)
            if one.vector is not None:
                vectors[key] = one.vector
            elif one.failure is not None:
                failures[key] = one.failure
        return vectors, failures
