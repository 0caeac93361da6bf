"""Run `ume_qdrant.index` on a Ray cluster."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, get_args

from ume_qdrant.indexing.ingest import IndexReasoning
from ume_qdrant.indexing.labels import tenant_value
from ume_qdrant.indexing.objects import below, is_address, places_of
from ume_qdrant.reports import IndexReport, OnProgress, Progress, error_of, once_a_source
from ume_qdrant.stores.base import Store, batches
from ume_qdrant.stores.filters import ANY_TENANT, Filter
from ume_qdrant.stores.layout import Layout
from ume_qdrant.stores.metadata import Metadata, clean_metadata
from ume_qdrant.stores.sources import Naming
from ume_ray.cluster import connected, own_error, quiet_data
from ume_ray.models import Description, Models, no_reasoner
from ume_ray.stages import Compare, Decode, Embed, Job, List, Reason, Write, folders_left_out
from ume_ray.stores import StoreAddress, share
from ume_ray.units import COLUMN, Outcome, batch_of, rows_of
from ume_ray.workers import WorkerPools
from ume_retrieval.errors import Failure, InputError, ItemWarning
from ume_retrieval.media.segments import OVERLAP_S, SEGMENT_S, check_segments
from ume_retrieval.results import Usage

DELETED_AT_ONCE = 500


def index(
    models: Models,
    store: StoreAddress,
    paths: str | Path | Sequence[str | Path],
    *,
    reasoning: IndexReasoning = "later",
    segment_s: float = SEGMENT_S,
    overlap_s: float = OVERLAP_S,
    follow_symlinks: bool = False,
    prune: bool = True,
    strict: bool = False,
    layout: Layout | None = None,
    workers: WorkerPools | None = None,
    address: str | None = None,
    metadata: Metadata | Callable[[str], Metadata | None] | None = None,
    on_progress: OnProgress | None = None,
) -> IndexReport:
    """Index files and folders with the workers of a Ray cluster.

    Ray Data runs listing, reading and decoding (tasks), reasoning and embedding (actors with a model each) and writing;
    it schedules them, applies backpressure and repeats the work of lost workers. Point ids, payloads and vectors are
    those of `ume_qdrant.index`, and so are the rules: a file whose points are complete is not read, a second run writes
    nothing and calls no model, a killed run resumes.

    Differences: with "always", points get both vectors in one pass, and existing points of the given files without
    reasoning are completed too, so the same call enriches after "later". Two new files with the same bytes may both be
    embedded. The report's `moved` only counts points that were in the collection before.

    Args:
        models: Loads the models in the workers.
        store: The collection; a directory must be on this machine.
        paths: Files and folders, under the same path on every machine, and addresses of object stores
            ("s3://bucket/films").
        reasoning: As in `ume_qdrant.index`.
        segment_s: Length of a video segment in seconds.
        overlap_s: Overlap of neighbouring segments in seconds.
        follow_symlinks: Whether links to folders are followed.
        prune: Whether to remove points of deleted files; keeps the name of every file in memory.
        strict: Raise the first failure after everything else is written.
        layout: How a new collection stores its vectors.
        workers: Sizes of the worker pools; None fits them to the cluster.
        address: The cluster, see `ume_ray.cluster.connected`.
        metadata: Metadata of the files, as in `ume_qdrant.index`: a mapping for all, or a function that can be pickled;
            tables are read by `ume_qdrant.index` only. Where the collection has tenants, a mapping that names one.
        on_progress: Called after each written batch.

    Raises:
        StoreMismatch: When the collection was made with other models or prompts, or has another layout.
        InputError: When an argument is invalid, or the pools do not fit the cluster.
        WorkersLost: When the cluster is lost, or workers die repeatedly at the same work.
        MissingExtra: When Ray is not installed.
        UmeError: If strict, the first failure; always, a failure of the whole run, such as a lost server.
    """
    started = time.perf_counter()
    if reasoning not in get_args(IndexReasoning):
        raise InputError(f"unknown reasoning {reasoning!r}", hint="use 'later', 'always' or 'never'")
    if reasoning == "always" and models.reasoner is None:
        raise no_reasoner()
    check_segments(segment_s, overlap_s)
    if metadata is not None and not isinstance(metadata, Mapping) and not callable(metadata):
        raise InputError("on Ray, metadata are a mapping or a function", hint="use ume_qdrant.index for tables")
    places = places_of(paths)
    if not store.on_server:
        # Actors have their own working folder.
        store = replace(store, location=str(Path(store.location).absolute()))
    store.open().close()  # fails early if the address is wrong
    with connected(address), quiet_data():
        import ray

        resources: dict[str, float] = ray.cluster_resources()  # type: ignore[no-untyped-call]  # Ray's
        always = reasoning == "always"
        sized = workers or WorkerPools.for_cluster(resources, reasoning=always)
        sized.check(resources, reasoning=always)
        shared = share(store)
        collection = shared.store()
        try:
            # Loads the models once, with the resources of an Embedder's actor.
            task: Any = ray.remote(_describe)
            alike = task.options(num_cpus=sized.cpus, num_gpus=sized.embedder_gpus)
            described: Description = ray.get(alike.remote(models, always))
            collection.create(described.plain_meta, layout)
            held = collection.meta()
            held.check(described.meta, store.collection)
            Naming().check(collection)
            if always and not held.reasoner:
                collection.set_metadata(described.meta)
            tenant_key = collection.layout().tenant
            tenant = tenant_value(tenant_key, clean_metadata(metadata) if isinstance(metadata, Mapping) else {})
            job = Job(
                models=models,
                described=described,
                shared=shared,
                reasoning=reasoning,
                cut=(segment_s, overlap_s),
                follow_symlinks=follow_symlinks,
                leave_out=folders_left_out(collection),
                items_a_call=sized.items_a_call,
                metadata=metadata,
                tenant_key=tenant_key,
            )
            stats = IndexStats(on_progress, keep_sources=prune)
            for outcome in _outcomes(job, places, sized):
                stats.add(outcome)
            removed = clear_away(collection, places, stats, prune=prune, tenant=tenant)
            collection.optimize()
        except ray.exceptions.RayError as error:
            raise own_error(error) from error
        finally:
            shared.close()
    if strict and stats.failures:
        raise error_of(stats.failures[0])
    return stats.report(removed, time.perf_counter() - started)


def _describe(models: Models, reasoned: bool) -> Description:  # noqa: FBT001  # Ray hands over positions
    return models.describe(reasoned=reasoned)


def _outcomes(job: Job, places: Sequence[str], sized: WorkerPools) -> Iterator[Outcome]:
    """Run the Ray Data operators; yield outcomes as they arrive."""
    from ray.data import TaskPoolStrategy, from_items

    # Folders are walked together, so that a file in two of them is listed once.
    local = tuple(place for place in places if not is_address(place))
    groups = (*([local] if local else []), *((place,) for place in places if is_address(place)))
    # Listing waits for disks, so it reserves no CPU; it is one task per group.
    flow: Any = from_items([{COLUMN: seed} for seed in batch_of([number] for number in range(len(groups)))[COLUMN]])
    flow = flow.map_batches(List(job, groups), batch_size=1, num_cpus=0)
    flow = flow.repartition(target_num_rows_per_block=sized.files_a_task)
    # Reserves another share of a CPU than decoding: otherwise Ray would fuse the two operators; see Compare.
    flow = flow.map_batches(Compare(job), batch_size=None, num_cpus=0.5)
    flow = flow.map_batches(Decode(job), batch_size=None, num_cpus=1)
    if job.reasoning == "always":
        flow = flow.map_batches(Reason, fn_constructor_args=(job,), **sized.reasoner_options())
    flow = flow.map_batches(Embed, fn_constructor_args=(job,), **sized.embedder_options())
    # Writers wait for the store, so they reserve no CPU; tasks of a process share its connection.
    at_once = TaskPoolStrategy(size=sized.writers if job.shared.address.on_server else 1)
    flow = flow.map_batches(Write(job), compute=at_once, batch_size=None, num_cpus=0)
    for batch in flow.iter_batches(batch_size=None):
        yield from rows_of(batch)


@dataclass(slots=True)
class IndexStats:
    """Counts of a run, from the outcomes so far; sets hold names of files.

    Attributes:
        on_progress: Called for every point that is settled, or None.
        keep_sources: Whether to keep all names in `seen`, to detect deleted files.
        cleared: Files whose points of previous content were removed.
        stale: Files with points of previous content.
        settled: Number of points that were written, completed or failed.
    """

    on_progress: OnProgress | None
    keep_sources: bool
    seen: set[str] = field(default_factory=set)
    written: set[str] = field(default_factory=set)
    cleared: set[str] = field(default_factory=set)
    embedded: set[str] = field(default_factory=set)
    stale: dict[str, Outcome] = field(default_factory=dict)
    failures: list[Failure] = field(default_factory=list)
    unchanged: int = 0
    points: int = 0
    settled: int = 0
    usage: Usage = field(default_factory=Usage)
    warnings: set[ItemWarning] = field(default_factory=set)

    def add(self, outcome: Outcome) -> None:
        """Count one outcome.

        Raises:
            UmeError: When the run as a whole failed.
        """
        if self.keep_sources and outcome.source:
            self.seen.add(outcome.source)
        match outcome.event:
            case "unchanged":
                self.unchanged += 1
            case "embedded" | "taken over":
                self.points += 1
                self.written.add(outcome.source)
                if outcome.event == "embedded":
                    self.embedded.add(outcome.source)
            case "failed" if outcome.failure is not None:
                self.failures.append(outcome.failure)
            case "stale":
                self.stale[outcome.source] = outcome
            case "spent" if outcome.usage is not None:
                self.usage += outcome.usage
            case "warned" if outcome.warning is not None:
                self.warnings.add(outcome.warning)
            case "stopped" if outcome.failure is not None:
                raise error_of(outcome.failure)
        if outcome.event in ("embedded", "taken over", "reasoned", "failed"):
            self.settled += 1
            if self.on_progress is not None:
                self.on_progress(
                    Progress("reason" if outcome.event == "reasoned" else "embed", self.settled, None, outcome.source)
                )

    def report(self, removed: int, seconds: float) -> IndexReport:
        """Return the report of the run."""
        return IndexReport(
            indexed=len(self.written | self.cleared),
            unchanged=self.unchanged,
            removed=removed,
            failed=once_a_source(self.failures),
            moved=len(self.written - self.embedded),
            points=self.points,
            usage=self.usage,
            seconds=seconds,
            warnings=tuple(sorted(self.warnings, key=lambda one: (one.source, one.message))),
        )


def clear_away(
    collection: Store, places: Sequence[str], stats: IndexStats, *, prune: bool, tenant: str | None = None
) -> int:
    """Remove points of previous content, and of deleted files.

    Points of previous content are removed once the file has points of its current content. A file is deleted if it has
    points but was neither found nor failed, itself or as part of a folder.

    Returns:
        Number of deleted files; 0 without `prune`, which needs `keep_sources`.
    """
    for source, outcome in stats.stale.items():
        if outcome.present or source in stats.written:
            collection.delete(outcome.stale)
            stats.cleared.add(source)
    gone = _gone(collection, places, stats, tenant) if prune else {}
    for some in batches([key for keys in gone.values() for key in keys], DELETED_AT_ONCE):
        collection.delete(some)
    return len(gone)


def _gone(collection: Store, places: Sequence[str], stats: IndexStats, tenant: str | None) -> dict[str, list[str]]:
    unreadable = tuple(failure.source.rstrip(os.sep) + os.sep for failure in stats.failures)
    gone: dict[str, list[str]] = {}
    for point in collection.scroll(
        Filter(under=tuple(below(place) for place in places), tenant=tenant or ANY_TENANT), fields=("source",)
    ):
        source = point.payload["source"]
        if source not in stats.seen and not source.startswith(unreadable):
            gone.setdefault(source, []).append(point.id)
    return gone
