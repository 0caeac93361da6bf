"""Index files and folders; a repeated run only processes changes."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Literal, TypeAlias, get_args

from ume_qdrant.indexing.enrich import enrich, need_reasoner
from ume_qdrant.indexing.plan import Holdings, explore, make_plan, roots_of
from ume_qdrant.indexing.write import Writer
from ume_qdrant.reports import IndexReport, OnProgress, error_of, once_a_source
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
"""When to reason over indexed items: in `enrich`, at once, or never."""


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
    """Bring a collection up to date with files and folders.

    All items get their `direct` vector first, so that the collection can be searched soon; with "always" the `reasoned`
    vectors follow. Each batch is written when it is finished, and ids follow from content, so an interrupted run that
    is repeated ends with the same points as an uninterrupted one.

    - A file with the size and time of its points is not read beyond its first bytes.
    - A file with known content under a new name reuses vectors and traces; no model is called.
    - Points of a file's former content are removed once those of the new content are written.
    - Points of deleted files are removed. A file or folder that exists but is unreadable keeps its points and is listed
      in `failed`. So does a missing root: it is more often an unmounted disk than a deletion.

    Args:
        embedder: The models; its limits apply to reading files too.
        store: The collection; created if it does not exist.
        paths: Files and folders.
        reasoning: "later" leaves reasoning to `enrich`, "always" does it now, "never" excludes new points from it.
        segment_s: Length of a video segment in seconds.
        overlap_s: Overlap of neighbouring segments in seconds.
        follow_symlinks: Whether links to folders are followed.
        prune: Whether points of deleted files below `paths` are removed.
        strict: Raise the first failure. Points written before it are kept.
        batch_size: Points that are embedded and written together, >= 1.
        layout: How a new collection stores its vectors; None is the plain layout, and accepts any existing one.
        relative_to: A folder above all `paths`; files are named relative to it. Such a collection does not reveal
            where the files are, and works where they are elsewhere (see `sources.MEDIA_ROOT`). None uses absolute
            paths.
        on_progress: Called after each step.

    Raises:
        StoreMismatch: If the collection was made with other models or prompts, or has another layout.
        StoreLocked: If another process has the store open and cannot share it.
        InputError: If an argument is invalid.
        UmeError: If strict, the first failure; always, an error of the whole run, such as a lost server.
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
    report = on_progress or (lambda _: None)
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
    reused = writer.written - writer.embedded
    moved = [work for work in plan.work if work.missing and work.source in reused]
    return IndexReport(
        indexed=len(writer.written),
        unchanged=plan.unchanged,
        removed=len(plan.gone) if prune else 0,
        failed=once_a_source(map(naming.of_failure, failures)),
        moved=len(moved),
        points=writer.points,
        usage=usage,
        seconds=time.perf_counter() - started,
    )
