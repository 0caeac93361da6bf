"""Indexing: folders in, points out; what is there already is not done again."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Literal, TypeAlias, get_args

from ume_qdrant.indexing.discover import explore, roots_of
from ume_qdrant.indexing.enrich import enrich, need_reasoner
from ume_qdrant.indexing.plan import Holdings, make_plan
from ume_qdrant.indexing.write import Writer
from ume_qdrant.reports import IndexReport, OnProgress, Progress, error_of, once_a_source
from ume_qdrant.stores.base import Store
from ume_qdrant.stores.filters import Filter
from ume_qdrant.stores.layout import Layout
from ume_qdrant.stores.schema import meta_of
from ume_qdrant.stores.sources import Naming
from ume_retrieval.errors import InputError
from ume_retrieval.media import display_name
from ume_retrieval.media.segments import OVERLAP_S, SEGMENT_S, check_segments
from ume_retrieval.pipeline.embedder import ReasoningEmbedder
from ume_retrieval.pipeline.loading import CHUNK_ITEMS

IndexReasoning: TypeAlias = Literal["later", "always", "never"]
"""Reason over what is indexed when `enrich` is called, at once, or not at all."""


def index(
    embedder: ReasoningEmbedder,
    store: Store,
    paths: str | Path | Sequence[str | Path],
    *,
    reasoning: IndexReasoning = "later",
    segment_s: float = SEGMENT_S,
    overlap_s: float = OVERLAP_S,
    follow_symlinks: bool = False,
    prune: bool = True,
    strict: bool = False,
    batch_size: int = CHUNK_ITEMS,
    layout: Layout | None = None,
    relative_to: str | Path | None = None,
    on_progress: OnProgress | None = None,
) -> IndexReport:
    """Make a collection hold what files and folders hold.

    Everything gets its `direct` vector first, so that the collection can be searched soon; with "always" the `reasoned`
    vectors follow. Each batch is written when it is finished, and every point's id follows from its content: a run that
    is killed and started again ends with the same points as one that was not.

    - A file whose size and time are those of its points is not read (its first bytes are looked at).
    - A file with known bytes under a new name takes over vectors and traces: no model is asked.
    - Points of a file's former content go when those of the new content are written.
    - A file that is gone loses its points. A file or folder that is there but cannot be read keeps them, and is
      named in `failed`; so does a root that is missing as a whole: more often an unmounted disc than a deletion.

    Args:
        embedder: The models; its limits hold for discovery too.
        store: The collection; made when it is not there.
        paths: Files and folders.
        reasoning: "later" leaves reasoning to `enrich`, "always" does it now, "never" excludes new points from it.
        segment_s: Length of a video segment in seconds.
        overlap_s: Overlap of neighbouring segments in seconds.
        follow_symlinks: Whether links to folders are followed.
        prune: Whether points of files that are gone are removed; only below `paths`.
        strict: Raise the first failure. What was written until then stays.
        batch_size: Points that are embedded and written together, >= 1.
        layout: How a new collection keeps its vectors; None is plain, and takes an existing one as it is.
        relative_to: A folder above all `paths`, from which on files are named, so that a collection and what is made of
            it tell nothing of what lies above, and also work where the files are elsewhere (see `sources.MEDIA_ROOT`).
            None names them by absolute paths.
        on_progress: Called after each step.

    Raises:
        StoreMismatch: When the collection was made with other models or prompts, or has another layout.
        StoreLocked: When another process holds the store.
        InputError: When an argument cannot be used.
        UmeError: If strict, the first failure; always, what strikes the run as a whole, such as a lost server.
    """
    started = time.perf_counter()
    if reasoning not in get_args(IndexReasoning):
        raise InputError(f"unknown reasoning {reasoning!r}", hint="use 'later', 'always' or 'never'")
    if batch_size < 1:
        raise InputError(f"batch_size is {batch_size}", hint="use 1 or more")
    if reasoning == "always":
        need_reasoner(embedder)
    check_segments(segment_s, overlap_s)
    roots = roots_of(paths)
    naming = Naming.below(relative_to, roots)
    report = on_progress or _silent
    store.create(meta_of(embedder, reasoned=False), layout)
    store.meta().check(meta_of(embedder, reasoned=reasoning == "always"), store.collection)

    naming.check(store)
    under = tuple(naming.of(display_name(root)) for root in roots)
    holdings = Holdings(store, under, (segment_s, overlap_s))
    found = explore(
        roots,
        holdings,
        limits=embedder.limits,
        follow_symlinks=follow_symlinks,
        leave_out=store.folders,
        naming=naming,
        on_progress=report,
    )
    plan = make_plan(holdings, found)
    if strict and plan.failures:
        raise error_of(plan.failures[0])
    writer = Writer(embedder, store, "never" if reasoning == "never" else "later", strict=strict, report=report)
    writer.write(plan, batch_size)
    if prune:
        writer.remove(plan)
    failures, usage = [*plan.failures, *writer.failures], writer.usage
    if reasoning != "never":
        writer.await_reasoning(under)
    if reasoning == "always":
        reasoned = enrich(
            embedder,
            store,
            where=Filter(under=under),
            batch_size=batch_size,
            strict=strict,
            relative_to=relative_to,
            on_progress=report,
        )
        failures += reasoned.failed
        usage += reasoned.usage
    store.optimize()
    without_models = writer.written - writer.embedded
    taken_over = [work for work in plan.work if work.missing and work.source in without_models]
    return IndexReport(
        indexed=len(writer.written),
        unchanged=plan.unchanged,
        removed=len(plan.gone) if prune else 0,
        failed=once_a_source(map(naming.of_failure, failures)),
        moved=len(taken_over),
        points=writer.points,
        usage=usage,
        seconds=time.perf_counter() - started,
    )


def _silent(_: Progress) -> None:
    """Nobody listens."""
