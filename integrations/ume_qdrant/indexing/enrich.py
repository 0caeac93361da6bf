"""Reason over points that were indexed without it; resumable."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final

from ume_qdrant.indexing.locate import Locator, Queued
from ume_qdrant.indexing.plan import CONTENT_FIELDS, Part
from ume_qdrant.reports import EnrichReport, OnProgress, Progress, error_of, once_a_source
from ume_qdrant.stores.base import Point, Store, Vector, batches
from ume_qdrant.stores.filters import EVERYTHING, Filter, ReasoningState, for_all_tenants
from ume_qdrant.stores.schema import MAX_TEXT, clean, meta_of, to_payload
from ume_qdrant.stores.sources import DOCUMENT_FIELD
from ume_retrieval.errors import Failure, InputError, ServerError
from ume_retrieval.inputs import Item
from ume_retrieval.pipeline.embedder import ReasoningEmbedder
from ume_retrieval.pipeline.loading import CHUNK_ITEMS
from ume_retrieval.pipeline.run import Encoded
from ume_retrieval.results import PipelineInfo, Trace, Usage

BUDGETED_ITEMS: Final = 16
"""Points per batch under a budget; small, so that the cost of a T-CoT is known early."""

VECTORS_READ: Final = 256
"""Points whose vectors are read per call."""

WAITING: Final = frozenset({"later", "never"})
"""States of reasoning in which a point has neither a `reasoned` vector nor failed to get one."""


def enrich(
    embedder: ReasoningEmbedder,
    store: Store,
    *,
    where: Filter | None = None,
    retry_failed: bool = False,
    budget: int | None = None,
    strict: bool = False,
    batch_size: int = CHUNK_ITEMS,
    relative_to: str | Path | None = None,
    remote: bool = False,
    on_progress: OnProgress | None = None,
) -> EnrichReport:
    """Add `reasoned` vectors and traces to points that are queued for reasoning.

    Files are read again, so they must still be where they were indexed. Each batch is written when it is finished, and
    every trace is cached before it is used, so an interrupted run resumes where it stopped.

    A point that cannot be reasoned over (an unusable reply, an input that a model refuses) is marked as failed and
    skipped until `retry_failed`. A point stays queued if its file has changed or is unreachable, or if the failure is
    temporary or the server's (such as a wrong key).

    Args:
        embedder: The models that the collection was made with, including a Reasoner.
        store: The collection.
        where: Which points to process, of all tenants unless it chooses one; its `reasoning` is ignored.
        retry_failed: Also process points that are marked as failed.
        budget: Approximate number of tokens that the Reasoner may write. The most ambiguous files come first, the rest
            stays queued. None processes all.
        strict: Raise the first failure. Points written before it are kept.
        batch_size: Points that are reasoned over and written together, >= 1.
        relative_to: Folder of files with relative names; None uses `sources.MEDIA_ROOT`, or the working folder.
        remote: Whether addresses of object stores are fetched again, into a temporary folder.
        on_progress: Called after each batch.

    Raises:
        CollectionNotFound: If the collection does not exist.
        StoreMismatch: If it was made with other models or prompts.
        InputError: If the embedder lacks a Reasoner.
        UmeError: If strict, the first failure; always, an error of the whole run.
    """
    started = time.perf_counter()
    need_reasoner(embedder)
    if batch_size < 1 or (budget is not None and budget < 1):
        raise InputError(f"batch_size is {batch_size}, budget {budget}", hint="use 1 or more of each")
    held, wanted = store.meta(), meta_of(embedder, reasoned=True)
    held.check(wanted, store.collection)
    states: tuple[ReasoningState, ...] = ("later", "failed") if retry_failed else ("later",)
    waiting = replace(for_all_tenants(where), reasoning=states)
    pending: dict[str, list[Point]] = {}
    for point in store.scroll(waiting, fields=(*CONTENT_FIELDS, "source", "cut", DOCUMENT_FIELD)):
        pending.setdefault(point.payload["source"], []).append(point)
    if pending and not held.reasoner:
        store.set_metadata(wanted)
    total = sum(map(len, pending.values()))
    run = ReasonWriter(embedder, store, strict=strict)
    locator = Locator(store, embedder.limits, relative_to, remote, run.fail)
    # The next items are located, decoded, reasoned over and embedded while a batch is written.
    ahead: deque[Queued] = deque()
    order = dict(sorted(pending.items())) if budget is None else prioritise_ambiguous(store, pending)
    items = _items(locator.locate(order), ahead)
    if budget is not None:
        items = affordable(items, budget, lambda: stream.usage)
        batch_size = min(batch_size, BUDGETED_ITEMS)
    with locator, embedder.stream_corpus(items, total=total, chunk_items=batch_size) as stream:
        results = ((ahead.popleft(), one) for one in stream)
        for batch in batches(results, batch_size):
            run.write(batch)
            locator.release([queued.source for queued, _ in batch])
            if on_progress is not None:
                on_progress(Progress("reason", run.settled, total, batch[-1][0].source, stream.rates))
        run.usage += stream.usage
    return EnrichReport(
        enriched=run.enriched,
        remaining=store.count(replace(waiting, reasoning=("later",))),
        failed=once_a_source(run.failures),
        usage=run.usage,
        seconds=time.perf_counter() - started,
    )


def reason_now(writer: ReasonWriter, parts: Sequence[tuple[str, Part]], batch_size: int) -> None:
    """Reason over those of the parts, each with its name in reports, whose points exist and wait for it.

    Points that are excluded from reasoning are included; those that have failed are not tried again.
    """
    states = {
        point.id: point.payload["reasoning"]
        for some in batches([part.id for _, part in parts], VECTORS_READ)
        for point in writer.store.retrieve(some, fields=("reasoning",))
    }
    queued = [Queued(part.id, name, part.entry.item) for name, part in parts if states.get(part.id) in WAITING]
    if not queued:
        return
    if not writer.store.meta().reasoner:
        writer.store.set_metadata(meta_of(writer.embedder, reasoned=True))
    items = [one.item for one in queued]
    with writer.embedder.stream_corpus(items, total=len(items), chunk_items=batch_size) as stream:
        for batch in batches(zip(queued, stream, strict=True), batch_size):
            writer.write(batch)
        writer.usage += stream.usage


def need_reasoner(embedder: ReasoningEmbedder) -> None:
    """Raise unless the embedder has a Reasoner.

    Raises:
        InputError: With a hint how to load one.
    """
    if embedder.reasoner is None:
        raise InputError(
            f"{embedder.info.embedder.name} was loaded without a Reasoner",
            hint="load one with from_pretrained(..., reasoner=...), or index with reasoning='never'",
        )


@dataclass(slots=True)
class ReasonWriter:
    """Writes and counts the results of reasoning.

    Args:
        embedder: The models.
        store: The collection.
        strict: Raise the first failure, after its batch is written.

    Attributes:
        enriched: Points that got a `reasoned` vector.
        settled: Points that got one or failed.
        failures: Points that got none.
        usage: Cost of the models.
    """

    embedder: ReasoningEmbedder
    store: Store
    strict: bool
    enriched: int = 0
    settled: int = 0
    failures: list[Failure] = field(default_factory=list)
    usage: Usage = field(default_factory=Usage)

    def write(self, batch: Sequence[tuple[Queued, Encoded]]) -> None:
        """Write the results of a batch."""
        updates: list[Point] = []
        for queued, one in batch:
            if one.vector is not None and one.trace is not None:
                text = one.trace.tcot.answer if queued.item.text is None else None
                updates.append(reasoned_update(queued.id, one.vector, one.trace, self.embedder.info, text=text))
                self.enriched += 1
            elif one.failure is not None:
                updates.append(refused_update(queued.id, one.failure))
                self.failures.append(replace(one.failure, source=queued.source))
        self.store.update(updates)
        self.settled += len(batch)
        self._stop_if_strict()

    def fail(self, failure: Failure) -> None:
        """Count a point whose media are not there."""
        self.failures.append(failure)
        self.settled += 1
        self._stop_if_strict()

    def _stop_if_strict(self) -> None:
        if self.strict and self.failures:
            raise error_of(self.failures[0])


def refused_update(key: str, failure: Failure) -> Point:
    """Return the update of an existing point after a failure: marked as failed if permanent, else empty.

    A refusal by a server, such as for a wrong key, is not permanent.

    Args:
        key: The point's id.
        failure: Why it has no trace.
    """
    if failure.retryable or failure.error == ServerError.code:
        return Point(key)
    return Point(key, {}, {"reasoning": "failed", "reasoning_error": failure.error})


def reasoned_update(key: str, vector: Vector, trace: Trace, info: PipelineInfo, *, text: str | None = None) -> Point:
    """Return the update of an existing point after reasoning.

    Args:
        key: The point's id.
        vector: Its `reasoned` vector.
        trace: The Reasoner's trace.
        info: The models.
        text: New value of the `text` field, for tools that show this field of media; None keeps it.
    """
    reasoner = f"{info.reasoner.name}@{info.reasoner.revision}" if info.reasoner else ""
    payload = {
        "reasoning": "done",
        "reasoning_error": "",
        "trace": to_payload(trace),
        "reasoner": reasoner,
        "prompt_version": info.prompt_version or "",
    }
    if text is not None:
        payload["text"] = clean(text[:MAX_TEXT])
    return Point(key, {"reasoned": vector}, payload)


def _items(found: Iterable[Queued], ahead: deque[Queued]) -> Iterator[Item]:
    """Yield the items of points, and queue the points in `ahead` for their results."""
    for queued in found:
        ahead.append(queued)
        yield queued.item


def prioritise_ambiguous(store: Store, pending: Mapping[str, list[Point]]) -> dict[str, list[Point]]:
    """Order files by their most ambiguous point: the one with the nearest neighbour by direct vectors.

    Args:
        store: The collection; searched once per point.
        pending: Points by file.
    """
    nearest: dict[str, float] = {}
    ids = [point.id for points in pending.values() for point in points]
    for batch in batches(ids, VECTORS_READ):
        for point in store.retrieve(batch, vectors=("direct",), fields=()):
            near = store.search("direct", point.vectors["direct"], limit=2, where=EVERYTHING, fields=())
            nearest[point.id] = max((hit.score for hit in near if hit.id != point.id), default=-1.0)
    ambiguity = {source: max(nearest.get(point.id, -1.0) for point in points) for source, points in pending.items()}
    return {source: pending[source] for source in sorted(pending, key=lambda source: (-ambiguity[source], source))}


def affordable(items: Iterable[Item], tokens: int, usage: Callable[[], Usage]) -> Iterator[Item]:
    """Yield items in order until the budget of tokens is used.

    Items that have been yielded but not answered count with the mean length of the T-CoTs so far, so the budget is
    exceeded by little more than the first items.

    Args:
        items: The items.
        tokens: Tokens that the Reasoner may write.
        usage: Returns its usage so far.
    """
    for drawn, item in enumerate(items):
        now = usage()
        waiting = max(0, drawn - now.reasoner_calls - now.cached_traces)
        mean = now.completion_tokens / max(1, now.reasoner_calls)
        if now.completion_tokens + waiting * mean >= tokens:
            return
        yield item
