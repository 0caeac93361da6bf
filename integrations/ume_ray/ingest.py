"""`ume_qdrant.index` on a Ray cluster: the same points, made by as many workers as there are."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

from ume_qdrant.indexing.ingest import IndexReasoning
from ume_qdrant.reports import IndexReport, OnProgress, error_of
from ume_qdrant.stores.layout import Layout
from ume_qdrant.stores.sources import Naming
from ume_ray.cluster import connected, quiet_data
from ume_ray.compare import Compare
from ume_ray.failures import own_error
from ume_ray.models import Description, Models, no_reasoner
from ume_ray.sources import is_address, places_of
from ume_ray.stages import Decode, Embed, Job, List, Reason, Write, folders_left_out
from ume_ray.stores import StoreAddress, share
from ume_ray.tally import Tally, clear_away
from ume_ray.units import COLUMN, Outcome, batch_of, rows_of
from ume_ray.workers import Workers
from ume_retrieval.errors import InputError
from ume_retrieval.media.segments import OVERLAP_S, SEGMENT_S, check_segments


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
    workers: Workers | None = None,
    address: str | None = None,
    on_progress: OnProgress | None = None,
) -> IndexReport:
    """Make a collection hold what files and folders hold, with the workers of a Ray cluster.

    Ray Data carries listing, reading and decoding (tasks), reasoning and embedding (actors with a model each) and
    writing; it schedules them, holds the fast ones back and begins again what a lost worker had. Point ids, payloads
    and vectors are those of `ume_qdrant.index`, whose rules hold here too: a file whose points are all there is not
    read, a second run writes nothing and asks no model, a run that was killed goes on.

    What differs: with "always", points get both vectors in one pass, and points of the given files that wait for
    reasoning are completed too, so the same call enriches what "later" has left. Two files of the same bytes that are
    new in one run may both be embedded. The report's `moved` counts what was in the collection before.

    Args:
        models: How workers load the pair.
        store: The collection; a directory must be on this machine.
        paths: Files and folders that every machine sees under the same path, and addresses of object stores
            ("s3://bucket/films").
        reasoning: As in `ume_qdrant.index`.
        segment_s: Length of a video segment in seconds.
        overlap_s: Overlap of neighbouring segments in seconds.
        follow_symlinks: Whether links to folders are followed.
        prune: Whether points of files that are gone are removed; needs memory here for the name of every file.
        strict: Raise the first failure when all is written.
        layout: How a new collection keeps its vectors.
        workers: Sizes of the pools; None fits them to the cluster.
        address: The cluster, see `ume_ray.cluster.connected`.
        on_progress: Called after each batch that is written.

    Raises:
        StoreMismatch: When the collection was made with other models or prompts, or has another layout.
        InputError: When an argument cannot be used, or the cluster has no room for the pools.
        WorkersLost: When the cluster is lost, or workers die again and again at the same work.
        MissingExtra: When Ray is not installed.
        UmeError: If strict, the first failure; always, what strikes the run as a whole, such as a lost server.
    """
    started = time.perf_counter()
    if reasoning not in get_args(IndexReasoning):
        raise InputError(f"unknown reasoning {reasoning!r}", hint="use 'later', 'always' or 'never'")
    if reasoning == "always" and models.reasoner is None:
        raise no_reasoner()
    check_segments(segment_s, overlap_s)
    places = places_of(paths)
    if not store.on_server:
        # Actors have a working folder of their own.
        store = replace(store, location=str(Path(store.location).absolute()))
    store.open().close()  # what is wrong with the address shows before anything is started
    with connected(address), quiet_data():
        import ray

        resources: dict[str, float] = ray.cluster_resources()  # type: ignore[no-untyped-call]  # Ray's
        always = reasoning == "always"
        sized = workers or Workers.for_cluster(resources, reasoning=always)
        sized.check(resources, reasoning=always)
        shared = share(store)
        collection = shared.store()
        try:
            # Where a model is loaded: the Embedder's share of a machine, as its actors will have.
            task: Any = ray.remote(_describe)
            alike = task.options(num_cpus=sized.cpus, num_gpus=sized.embedder_gpus)
            described: Description = ray.get(alike.remote(models, always))
            collection.create(described.plain_meta, layout)
            held = collection.meta()
            held.check(described.meta, store.collection)
            Naming().check(collection)
            if always and not held.reasoner:
                collection.set_metadata(described.meta)
            job = Job(
                models=models,
                described=described,
                shared=shared,
                reasoning=reasoning,
                cut=(segment_s, overlap_s),
                follow_symlinks=follow_symlinks,
                leave_out=folders_left_out(collection),
                items_a_call=sized.items_a_call,
            )
            tally = Tally(on_progress, keep_sources=prune)
            for outcome in _outcomes(job, places, sized):
                tally.add(outcome)
            removed = clear_away(collection, places, tally, prune=prune)
            collection.optimize()
        except ray.exceptions.RayError as error:
            raise own_error(error) from error
        finally:
            shared.let_go()
    if strict and tally.failures:
        raise error_of(tally.failures[0])
    return tally.report(removed, time.perf_counter() - started)


def _describe(models: Models, reasoned: bool) -> Description:  # noqa: FBT001  # Ray hands over positions
    return models.describe(reasoned=reasoned)


def _outcomes(job: Job, places: Sequence[str], sized: Workers) -> Iterator[Outcome]:
    """The run as Ray Data operators; outcomes come while it goes on."""
    from ray.data import TaskPoolStrategy, from_items

    # Folders are walked together, so that a file that two of them hold comes once.
    local = tuple(place for place in places if not is_address(place))
    groups = (*([local] if local else []), *((place,) for place in places if is_address(place)))
    # A listing waits for disks: it takes no CPU, and, unlike comparing, it is one task a group.
    flow: Any = from_items([{COLUMN: seed} for seed in batch_of([number] for number in range(len(groups)))[COLUMN]])
    flow = flow.map_batches(List(job, groups), batch_size=1, num_cpus=0)
    flow = flow.repartition(target_num_rows_per_block=sized.files_a_task)
    # Another share of a CPU than decoding has: alike, Ray would make one operator of the two; see Compare.
    flow = flow.map_batches(Compare(job), batch_size=None, num_cpus=0.5)
    flow = flow.map_batches(Decode(job), batch_size=None, num_cpus=1)
    if job.reasoning == "always":
        flow = flow.map_batches(Reason, fn_constructor_args=(job,), **sized.reasoner_options())
    flow = flow.map_batches(Embed, fn_constructor_args=(job,), **sized.embedder_options())
    # Writers wait for the store most of the time, so they take no CPU; tasks of a process share its connection.
    at_once = TaskPoolStrategy(size=sized.writers if job.shared.address.on_server else 1)
    flow = flow.map_batches(Write(job), compute=at_once, batch_size=None, num_cpus=0)
    for batch in flow.iter_batches(batch_size=None):
        yield from rows_of(batch)
