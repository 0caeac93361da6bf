"""Runs the operators one after the other in this process, in the order in which Ray Data runs them, without Ray."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

from ume_qdrant import IndexReport
from ume_qdrant.indexing.objects import places_of
from ume_ray import Models, StoreAddress
from ume_ray.ingest import IndexStats, clear_away
from ume_ray.stages import Compare, Decode, Embed, Job, List, Reason, Write, folders_left_out
from ume_ray.stores import Shared
from ume_ray.units import Outcome, batch_of, rows_of
from ume_retrieval.media import OVERLAP_S, SEGMENT_S

CUT = (SEGMENT_S, OVERLAP_S)


def operators(job: Job, places: tuple[str, ...]) -> list[Callable[[Any], Any]]:
    stages: list[Callable[[Any], Any]] = [List(job, (places,)), Compare(job), Decode(job)]
    if job.reasoning == "always":
        stages.append(Reason(job))
    return [*stages, Embed(job), Write(job)]


def through(stage: Callable[[Any], Any], batches: Iterable[Any]) -> Iterator[Any]:
    for batch in batches:
        yield from stage(batch)


def here(
    models: Models, address: StoreAddress, paths: Any, reasoning: Any = "later", *, prune: bool = True
) -> IndexReport:
    """`ume_ray.index`, its operators in this process."""
    places = places_of(paths)
    described = models.describe(reasoned=reasoning == "always")
    shared = Shared(address)
    store = shared.store()
    store.create(described.plain_meta)
    if described.meta.reasoner:
        store.set_metadata(described.meta)
    job = Job(models, described, shared, reasoning, CUT, False, folders_left_out(store), 4)
    batches: Any = [batch_of([[0]])]
    for stage in operators(job, places):
        batches = through(stage, batches)
    stats = IndexStats(None, keep_sources=prune)
    for batch in batches:
        for row in rows_of(batch):
            assert isinstance(row, Outcome)
            stats.add(row)
    removed = clear_away(store, places, stats, prune=prune)
    store.close()
    return stats.report(removed, 0.0)
