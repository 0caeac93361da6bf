"""Carry out a plan: embed missing content, reuse vectors of known content, write batch by batch."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Final

import numpy as np

from ume_qdrant.indexing.plan import CONTENT_FIELDS, ContentKey, FileKey, FileWork, Part, Plan, content_key, entry_key
from ume_qdrant.reports import OnProgress, Progress, error_of
from ume_qdrant.stores.base import VECTORS, Point, Store, Vector, batches
from ume_qdrant.stores.filters import ANY_TENANT, Filter, ReasoningState
from ume_retrieval.errors import Failure, ItemWarning
from ume_retrieval.media import Entry
from ume_retrieval.pipeline.embedder import ReasoningEmbedder
from ume_retrieval.pipeline.run import Encoded
from ume_retrieval.results import Usage

BATCH: Final = 500
"""Points per update or delete call."""


class VectorReuse:
    """Vectors and traces of points with the same content, for the entries of one run.

    The collection is queried once per file content, before its first entry; points that the run itself writes are
    remembered while further entries have the same content.

    Args:
        store: The collection.
        entries: All entries that the run writes.
    """

    def __init__(self, store: Store, entries: Iterable[Entry]) -> None:
        self._store = store
        self._left = Counter(entry.file_digest for entry in entries)
        self._known: dict[str, dict[ContentKey, Point]] = {}

    def find(self, entries: Iterable[Entry]) -> dict[ContentKey, Point]:
        """Return points with the same content as these entries, with their vectors."""
        wanted = {entry_key(entry): entry.file_digest for entry in entries}
        self._query({digest for digest in wanted.values() if digest not in self._known})
        return {key: self._known[digest][key] for key, digest in wanted.items() if key in self._known[digest]}

    def settle(self, entries: Iterable[Entry], written: Mapping[ContentKey, Point]) -> None:
        """Keep the written points of these entries while other entries can still reuse them."""
        for entry in entries:
            digest, key = entry.file_digest, entry_key(entry)
            self._left[digest] -= 1
            if self._left[digest] == 0:
                self._known.pop(digest, None)
            elif key in written:
                self._known.setdefault(digest, {})[key] = written[key]

    def _query(self, digests: set[str]) -> None:
        for digest in digests:
            self._known[digest] = {}
        if not digests:
            return
        for point in self._store.scroll(Filter(digests=tuple(sorted(digests)), tenant=ANY_TENANT), vectors=VECTORS):
            key = content_key(point.payload)
            known = self._known[point.payload["file_digest"]]
            # Prefer a point that was reasoned over.
            if "direct" in point.vectors and (key not in known or "reasoned" in point.vectors):
                known[key] = point


@dataclass(slots=True)
class Writer:
    """Writes the points of one run.

    Args:
        embedder: The models; only the Embedder is used.
        store: The collection.
        state: State of reasoning of new points.
        strict: Raise the first failure, after the rest of its batch is written.
        report: Called after each batch.

    Attributes:
        written: Files of which points were written or removed.
        embedded: Those of them for which the Embedder was called.
        moved: Those of them that got vectors of other points with the same content.
        failures: Items that could not be embedded.
        points: Number of points written.
        usage: Calls of the Embedder.
        warnings: What is not as it should be about items that were embedded.
    """

    embedder: ReasoningEmbedder
    store: Store
    state: ReasoningState
    strict: bool
    report: OnProgress
    written: set[FileKey] = field(default_factory=set)
    embedded: set[FileKey] = field(default_factory=set)
    moved: set[FileKey] = field(default_factory=set)
    failures: list[Failure] = field(default_factory=list)
    points: int = 0
    usage: Usage = field(default_factory=Usage)
    warnings: dict[ItemWarning, None] = field(default_factory=dict)

    def write(self, plan: Plan, batch_size: int) -> None:
        """Write the missing points, in the plan's order."""
        for some in batches(plan.refreshed, BATCH):
            self.store.update(some)
        for work in plan.work:
            if not work.missing:
                self._finish(work)
        units = [(work, part) for work in plan.work for part in work.missing]
        reuse = VectorReuse(self.store, [part.entry for _, part in units])
        new = self._new([part for _, part in units])
        items = [part.entry.item for part in new.values()]
        done = 0
        # The next items are decoded and embedded while a batch is written.
        with self.embedder.stream_corpus(items, reasoning="never", total=len(items), chunk_items=batch_size) as stream:
            stream_results = _StreamResults(deque(new), iter(stream))
            for batch in batches(units, batch_size):
                self._write_batch(batch, reuse, stream_results)
                for work, part in batch:
                    if part is work.missing[-1]:
                        self._finish(work)
                done += len(batch)
                self.report(Progress("embed", done, len(units), batch[-1][0].source, stream.rates))
            self.usage += stream.usage
            self._warn(stream.warnings)

    def remove(self, ids: Iterable[str]) -> None:
        """Remove points."""
        for some in batches(ids, BATCH):
            self.store.delete(some)

    def await_reasoning(self, where: Filter) -> None:
        """Queue points of files for reasoning that an earlier run has excluded from it."""
        where = replace(where, reasoning=("never",))
        # Points without `parts`, such as pieces of a split text, cannot be found again in their file.
        ids = [point.id for point in self.store.scroll(where, fields=("parts",)) if point.payload.get("parts")]
        for some in batches(ids, BATCH):
            self.store.update([Point(key, {}, {"reasoning": "later"}) for key in some])

    def _write_batch(self, batch: Sequence[tuple[FileWork, Part]], reuse: VectorReuse, results: _StreamResults) -> None:
        entries = [part.entry for _, part in batch]
        vectors, failures = results.take({entry_key(entry) for entry in entries})
        known = reuse.find(entries)
        # Points that have vanished since the run began, or content that failed before under another name.
        settled = known.keys() | vectors.keys() | failures.keys()
        lost = [part for _, part in batch if entry_key(part.entry) not in settled]
        more, refused = self._embed(lost)
        vectors, failures = vectors | more, failures | refused
        points: list[Point] = []
        written: dict[ContentKey, Point] = {}
        for work, part in batch:
            key = entry_key(part.entry)
            if key in known:
                points.append(part.copy_of(known[key], self.state))
                self.moved.add(work.key)
            elif key in vectors:
                points.append(part.point(vectors[key], self.state))
                self.embedded.add(work.key)
            else:
                self.failures.append(replace(failures[key], source=work.source))
                continue
            self.written.add(work.key)
            written[key] = points[-1]
        self.store.upsert(points)
        reuse.settle(entries, written)
        self.points += len(points)
        if self.strict and self.failures:
            raise error_of(self.failures[0])

    def _new(self, parts: Sequence[Part]) -> dict[ContentKey, Part]:
        """Return one part for each content that the collection lacks."""
        first: dict[ContentKey, Part] = {}
        for part in parts:
            first.setdefault(entry_key(part.entry), part)
        digests = sorted({part.entry.file_digest for part in parts})
        for some in batches(digests, BATCH):
            for point in self.store.scroll(Filter(digests=tuple(some), tenant=ANY_TENANT), fields=CONTENT_FIELDS):
                first.pop(content_key(point.payload), None)
        return first

    def _embed(self, parts: Sequence[Part]) -> tuple[dict[ContentKey, Vector], dict[ContentKey, Failure]]:
        """Embed each content once."""
        entries = {entry_key(part.entry): part.entry for part in parts}
        if not entries:
            return {}, {}
        items = [entry.item for entry in entries.values()]
        result = self.embedder.encode_corpus(items, reasoning="never", strict=False, return_traces=True)
        self.usage += result.usage
        self._warn(result.warnings)
        keys = list(entries)
        failures = {keys[failure.index]: failure for failure in result.failures}
        rows = result.vectors.astype(np.float32)
        return {key: row for key, row in zip(keys, rows, strict=True) if key not in failures}, failures

    def _warn(self, warnings: Iterable[ItemWarning]) -> None:
        self.warnings |= dict.fromkeys(warnings)

    def _finish(self, work: FileWork) -> None:
        """Remove points of former content once points of the current content exist."""
        if work.stale and (work.present or work.key in self.written):
            self.store.delete(work.stale)
            self.written.add(work.key)


@dataclass(frozen=True, slots=True)
class _StreamResults:
    """Contents in the order in which they are written, and their results in the same order."""

    keys: deque[ContentKey]
    results: Iterator[Encoded]

    def take(self, wanted: set[ContentKey]) -> tuple[dict[ContentKey, Vector], dict[ContentKey, Failure]]:
        """Wait for the results of those of the wanted contents that are next."""
        vectors: dict[ContentKey, Vector] = {}
        failures: dict[ContentKey, Failure] = {}
        while self.keys and self.keys[0] in wanted:
            key, one = self.keys.popleft(), next(self.results)
            if one.vector is not None:
                vectors[key] = one.vector
            elif one.failure is not None:
                failures[key] = one.failure
        return vectors, failures
