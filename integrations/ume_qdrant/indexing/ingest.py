"""Index files and folders; a repeated run only processes changes."""

from __future__ import annotations

import os
import time
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Final, Literal, TypeAlias, get_args

from ume_qdrant.indexing.enrich import ReasonWriter, enrich, need_reasoner, reason_now
from ume_qdrant.indexing.labels import FileMetadata, Labels
from ume_qdrant.indexing.objects import StoredObject, at_hand, below, is_address, listed, places_of, renamed
from ume_qdrant.indexing.plan import Explored, FileKey, Holdings, explore, make_plan, parts_of, roots_of
from ume_qdrant.indexing.write import Writer
from ume_qdrant.reports import IndexReport, OnProgress, Progress, error_of, once_a_source
from ume_qdrant.stores.base import Store, bounded
from ume_qdrant.stores.filters import ANY_TENANT, Filter, ReasoningState
from ume_qdrant.stores.layout import Layout
from ume_qdrant.stores.schema import meta_of
from ume_qdrant.stores.sources import Naming
from ume_retrieval.errors import Failure, InputError, ItemWarning, UmeError
from ume_retrieval.media import FoundFile, Limits, display_name
from ume_retrieval.media.files import is_remote
from ume_retrieval.media.segments import OVERLAP_S, SEGMENT_S, check_segments
from ume_retrieval.pipeline.embedder import ReasoningEmbedder
from ume_retrieval.pipeline.loading import CHUNK_ITEMS

OBJECTS: Final = 256
"""Objects that are fetched before they are written."""

OBJECT_BYTES: Final = 1_000_000_000
"""Their bytes at which a group of objects ends; the temporary folder needs this much and one object more."""

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
    metadata: FileMetadata | None = None,
    remote: bool = False,
    on_progress: OnProgress | None = None,
) -> IndexReport:
    """Bring a collection up to date with files and folders.

    All items get their `direct` vector first, so that the collection can be searched soon; with "always" the `reasoned`
    vectors follow. Each batch is written when it is finished, and ids follow from content, so an interrupted run that
    is repeated ends with the same points as an uninterrupted one.

    - A file with the size and time of its points is not read beyond its first bytes.
    - A file with known content under a new name reuses vectors and traces, but not metadata; no model is called.
    - Metadata that have changed are written without reading the file; metadata that are no longer given are removed.
    - Points of a file's former content are removed once those of the new content are written.
    - Points of deleted files are removed. A file or folder that exists but is unreadable keeps its points and is listed
      in `failed`. So does a missing root: it is more often an unmounted disk than a deletion.

    Args:
        embedder: The models; its limits apply to reading files too.
        store: The collection; created if it does not exist.
        paths: Files and folders; with `remote` also addresses of object stores, such as "s3://bucket/photos".
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
        metadata: Metadata of your own for hits and filters. A mapping is for all files. A function gets each file's
            absolute path or address, and returns a mapping or None. A path names a CSV, JSON or JSONL file with a row
            for each file (see `tables.read_table`), named relative to the folder in `paths`; "sidecars" reads such
            files in the folders themselves: `ume-metadata.csv`, `.json` or `.jsonl`. Rows that are broken or name no
            file are listed in `failed`. None keeps the metadata that points have; {} removes them.
        remote: Whether addresses are fetched, each object once, into a temporary folder. Keys come from the
            environment.
        on_progress: Called after each step.

    Raises:
        TenantRequired: If the collection has tenants and `metadata` names none; raised before anything is embedded.
        StoreMismatch: If the collection was made with other models or prompts, or has another layout.
        StoreLocked: If another process has the store open and cannot share it.
        InputError: If an argument is invalid.
        UmeError: If strict, the first failure; always, an error of the whole run, such as a lost server.
    """
    started = time.perf_counter()
    check_segments(segment_s, overlap_s)
    roots = roots_of(paths)
    places = [place for place in places_of(roots) if is_address(place)] if remote else []
    local = [root for root in roots if not (remote and is_remote(root))]
    naming = Naming.below(relative_to, local)
    report = on_progress or (lambda _: None)
    state = prepare(embedder, store, reasoning, layout, batch_size)
    labels = Labels(metadata, store.layout().tenant, [*map(str, local), *places])
    naming.check(store)

    under = tuple(naming.of(display_name(root)) for root in local)
    holdings = Holdings(store, (*under, *map(below, places)), (segment_s, overlap_s), labels.tenant_key)
    found = explore(
        local,
        holdings,
        limits=embedder.limits,
        follow_symlinks=follow_symlinks,
        leave_out=store.folders,
        naming=naming,
        labels=labels,
        on_progress=report,
    )
    plan = make_plan(holdings, found)
    if strict and plan.failures:
        raise error_of(plan.failures[0])
    writer = Writer(embedder, store, state, strict=strict, report=report)
    writer.write(plan, batch_size)
    warnings = _warnings(found, writer, {})
    there = found.keys()
    reasoned = ReasonWriter(embedder, store, strict=strict)
    for fetched, copies in _objects(places, holdings, labels, embedder.limits, report):
        some = make_plan(holdings, fetched)
        if strict and some.failures:
            raise error_of(some.failures[0])
        writer.write(some, batch_size)
        if reasoning == "always":  # while the copies are here
            reason_now(reasoned, parts_of(holdings, fetched), batch_size)
        for failures in (some.failures, writer.failures, reasoned.failures):
            failures[:] = [_named(failure, copies) for failure in failures]
        warnings |= _warnings(fetched, writer, copies)
        plan.unchanged += some.unchanged
        plan.relabelled += some.relabelled
        plan.failures += some.failures
        there |= fetched.keys()
    failures = [*plan.failures, *writer.failures, *reasoned.failures]
    gone = deleted_files(holdings, there, failures, labels.tenants) if prune else {}
    writer.remove(key for ids in gone.values() for key in ids)
    usage = writer.usage + reasoned.usage
    # None is the only one of a collection without tenants, which may be read as a whole.
    tenants = (len(labels.tenants) == 1 and next(iter(labels.tenants))) or ANY_TENANT
    if reasoning != "never":
        writer.await_reasoning(Filter(under=(*under, *map(below, places)), tenant=tenants))
    if reasoning == "always" and under:
        enriched = enrich(
            embedder,
            store,
            where=Filter(under=under, tenant=tenants),
            batch_size=batch_size,
            strict=strict,
            relative_to=relative_to,
            on_progress=report,
        )
        failures += enriched.failed
        usage += enriched.usage
    store.optimize()
    failures += labels.failures()
    if strict and failures:
        raise error_of(failures[0])
    return IndexReport(
        indexed=len(writer.written),
        unchanged=plan.unchanged,
        removed=len(gone),
        failed=once_a_source(map(naming.of_failure, failures)),
        moved=len(writer.moved - writer.embedded),
        relabelled=plan.relabelled,
        points=writer.points,
        usage=usage,
        seconds=time.perf_counter() - started,
        warnings=tuple(sorted(set(map(naming.of_warning, warnings)), key=lambda one: (one.source, one.message))),
    )


def _objects(
    places: Sequence[str], holdings: Holdings, labels: Labels, limits: Limits, on_progress: OnProgress
) -> Iterator[tuple[Explored, dict[str, Path]]]:
    """List object stores and fetch new and changed objects, some at a time; they are deleted before the next ones.

    Yields:
        What was found, and the copies of objects by source.
    """
    done = 0
    found = (one for place in places for one in listed([place], limits=limits, follow_symlinks=False, leave_out=()))
    for group in bounded(found, OBJECTS, OBJECT_BYTES, lambda one: getattr(one, "size", 0)):
        explored, paths = Explored(), dict[str, Path]()
        with ExitStack() as copies:
            for one in group:
                if isinstance(one, StoredObject):
                    try:
                        label = labels.of(one.address)
                        # An unknown time proves nothing: such an object is fetched and compared by its content.
                        if one.mtime_ns and holdings.is_current(one.source, one.size, one.mtime_ns, label.tenant):
                            explored.skip(one.source, label)
                        else:
                            copy = copies.enter_context(at_hand(one, limits))
                            if isinstance(copy, FoundFile):
                                paths[one.source] = copy.path
                            explored.open(copy, label, holdings.cut, limits)
                    except UmeError as error:
                        explored.fail(error, one.source)
                elif isinstance(one, Failure):
                    explored.failures.append(one)
                done += 1
                on_progress(Progress("discover", done, None, one.source))
            yield explored, paths


def _warnings(found: Explored, writer: Writer, copies: Mapping[str, Path]) -> set[ItemWarning]:
    """Return the warnings of opening and of decoding, each once, which name objects instead of their copies."""
    entries = (entry for parts in found.entries.values() for entry in parts)
    opened = (ItemWarning(entry.source, words) for entry in entries for words in entry.warnings)
    given = {*opened, *writer.warnings}
    writer.warnings.clear()
    for source, copy in copies.items():
        name = display_name(copy)
        given = {
            ItemWarning(source, renamed(one.message, copy, source)) if name in one.message else one for one in given
        }
    return given


def _named(failure: Failure, copies: Mapping[str, Path]) -> Failure:
    """Return a failure that names the object instead of its copy."""
    copy = copies.get(failure.source)
    return failure if copy is None else replace(failure, message=renamed(failure.message, copy, failure.source))


def prepare(
    embedder: ReasoningEmbedder, store: Store, reasoning: IndexReasoning, layout: Layout | None, batch_size: int
) -> ReasoningState:
    """Check the arguments of an index run, create the collection unless it exists, and return the state of new points.

    Raises:
        InputError: If an argument is invalid, or a Reasoner is needed and missing.
        StoreMismatch: If the collection was made with other models or prompts, or has another layout.
    """
    if reasoning not in get_args(IndexReasoning):
        raise InputError(f"unknown reasoning {reasoning!r}", hint="use 'later', 'always' or 'never'")
    if batch_size < 1:
        raise InputError(f"batch_size is {batch_size}", hint="use 1 or more")
    if reasoning == "always":
        need_reasoner(embedder)
    store.create(meta_of(embedder, reasoned=False), layout)
    store.meta().check(meta_of(embedder, reasoned=reasoning == "always"), store.collection)
    return "never" if reasoning == "never" else "later"


def deleted_files(
    holdings: Holdings, found: Collection[FileKey], failures: Iterable[Failure], tenants: Collection[str | None]
) -> dict[FileKey, tuple[str, ...]]:
    """Return the ids of the points of each deleted file.

    A file counts as deleted if it has points but was neither found nor covered by a failure of its own or of a folder
    above it: an unreadable file is not a deleted one.

    Args:
        holdings: The points.
        found: Files that were found.
        failures: What could not be read.
        tenants: Only points of these tenants are considered.
    """
    failed = {failure.source for failure in failures}
    return {
        file: tuple(point.id for point in holdings.points(*file))
        for file in holdings.files()
        if file not in found and file[1] in tenants and not any(_is_above(name, file[0]) for name in failed)
    }


def _is_above(name: str, source: str) -> bool:
    return name in {source, os.curdir} or source.startswith(name.rstrip(os.sep) + os.sep)
