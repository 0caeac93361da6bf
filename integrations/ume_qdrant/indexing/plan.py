"""Explore folders, compare them with a collection, and plan the points to write before any model is called."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeAlias

from ume_qdrant.reports import OnProgress, Progress
from ume_qdrant.stores.base import Point, Store, Vector
from ume_qdrant.stores.filters import ANY_TENANT, Filter, ReasoningState
from ume_qdrant.stores.schema import MAX_TEXT, clean, point_id, within
from ume_qdrant.stores.sources import Naming, is_relative
from ume_retrieval.errors import Failure, InputError, UmeError
from ume_retrieval.media import Entry, FoundFile, Limits, display_name, entries, walk
from ume_retrieval.media.files import is_remote

FIELDS = ("source", "kind", "file_digest", "size", "mtime_ns", "parts", "cut", "reasoning")

REASONING_FIELDS = ("trace", "reasoner", "prompt_version", "reasoning_error", "text")
"""Payload fields that reasoning writes."""

Cut: TypeAlias = tuple[float, float]
"""Length and overlap of video segments, in seconds."""

ContentKey: TypeAlias = tuple[str, str, float | None, float | None, int | None]
"""Identity of an entry's content, independent of file names: digest, kind, start, end, page."""


def entry_id(entry: Entry) -> str:
    """Return the id of an entry's point."""
    return point_id(entry.source, entry.file_digest, start_s=entry.start_s, end_s=entry.end_s, page=entry.page)


def entry_key(entry: Entry) -> ContentKey:
    """Return the content key of an entry."""
    return entry.file_digest, entry.kind, entry.start_s, entry.end_s, entry.page


@dataclass(frozen=True, slots=True)
class Part:
    """An entry as a part of its file.

    Attributes:
        entry: The entry.
        parts: Number of points of the file; fewer in the store mean that indexing is incomplete.
        cut: How videos are cut.
    """

    entry: Entry
    parts: int
    cut: Cut

    def payload(self, state: ReasoningState) -> dict[str, Any]:
        """Return the point's fields, without None, which only some engines keep."""
        entry = self.entry
        fields = {
            "source": entry.source,
            "doc_id": entry.source,
            # "." matches files with relative names, and no points of other writers.
            "within": [*within(entry.source), *([os.curdir] if is_relative(entry.source) else [])],
            "kind": entry.kind,
            "start_s": entry.start_s,
            "end_s": entry.end_s,
            "page": entry.page,
            "parts": self.parts,
            "cut": list(self.cut) if entry.kind == "video" else None,
            "file_digest": entry.file_digest,
            "size": entry.size,
            "mtime_ns": entry.mtime_ns,
            "text": clean((entry.item.text or "")[:MAX_TEXT]),
            "reasoning": state,
            "reasoning_error": "",
        }
        return {name: value for name, value in fields.items() if value is not None}

    def point(self, vector: Vector, state: ReasoningState) -> Point:
        """Return a new point with its direct vector."""
        return Point(entry_id(self.entry), {"direct": vector}, self.payload(state))

    def copy_of(self, donor: Point, state: ReasoningState) -> Point:
        """Return a point with the vectors and the trace of a point with the same content."""
        if "reasoned" in donor.vectors:
            kept: ReasoningState = "done"
        else:
            kept = "failed" if donor.payload["reasoning"] == "failed" and state != "never" else state
        inherited = {name: donor.payload[name] for name in REASONING_FIELDS if name in donor.payload}
        payload = {**self.payload(kept), **(inherited if kept in {"done", "failed"} else {}), "reasoning": kept}
        return Point(entry_id(self.entry), dict(donor.vectors), payload)


class Holdings:
    """The points of some files or folders in a collection, by source.

    Args:
        store: The collection.
        roots: Files or folders, named as sources are.
        cut: How videos are cut now.
    """

    def __init__(self, store: Store, roots: Sequence[str], cut: Cut) -> None:
        self.cut = cut
        self._points: dict[str, list[Point]] = {}
        for point in store.scroll(Filter(under=tuple(roots), tenant=ANY_TENANT), fields=FIELDS):
            self._points.setdefault(point.payload["source"], []).append(point)

    def sources(self) -> list[str]:
        """List the sources by name."""
        return sorted(self._points)

    def points(self, source: str) -> list[Point]:
        """Return the points of a source, without vectors."""
        return self._points.get(source, [])

    def is_current(self, source: str, size: int, mtime_ns: int) -> bool:
        """Return whether all points of a file with this size and time exist, so that it need not be read."""
        points = self.points(source)
        digests = {point.payload["file_digest"] for point in points}
        return (
            len(digests) == 1
            and all(len(points) == point.payload["parts"] for point in points)
            and all((point.payload["size"], point.payload["mtime_ns"]) == (size, mtime_ns) for point in points)
            and all(tuple(point.payload.get("cut", self.cut)) == self.cut for point in points)
        )


@dataclass(slots=True)
class Explored:
    """Contents of files and folders.

    Attributes:
        entries: Parts of each file that was opened, by source.
        current: Files that were skipped because all of their points exist.
        failures: Files that could not be opened.
    """

    entries: dict[str, list[Entry]] = field(default_factory=dict)
    current: set[str] = field(default_factory=set)
    failures: list[Failure] = field(default_factory=list)


def roots_of(paths: str | Path | Sequence[str | Path]) -> list[str | Path]:
    """Return absolute paths without "..", with links kept. Addresses are kept too, to be refused by name.

    Raises:
        InputError: If `paths` is empty.
    """
    given = [paths] if isinstance(paths, (str, Path)) else list(paths)
    if not given:
        raise InputError("there is nothing to index", hint="give at least one file or folder")
    # Path.absolute keeps "..", and Path.resolve would name files by the targets of links.
    return [path if is_remote(path) else Path(os.path.abspath(path)) for path in given]  # noqa: PTH100


def explore(
    roots: Sequence[str | Path],
    holdings: Holdings,
    *,
    limits: Limits,
    follow_symlinks: bool,
    leave_out: Sequence[Path],
    naming: Naming,
    on_progress: OnProgress,
) -> Explored:
    """List the files; those of unchanged size and time are not read beyond their first bytes.

    Args:
        roots: Files and folders, absolute.
        holdings: What the collection has of them.
        limits: Limits on the cost of a file.
        follow_symlinks: Follow links out of the given folders.
        leave_out: Folders to skip.
        naming: How files are named.
        on_progress: Called for each file.
    """
    explored = Explored()
    own = tuple(display_name(folder) + os.sep for folder in leave_out)
    done = 0
    for found in walk(roots, limits=limits, follow_symlinks=follow_symlinks):
        if found.source.startswith(own):
            continue
        if isinstance(found, FoundFile):
            named = replace(found, source=naming.of(found.source))
            _explore_file(named, holdings, explored, limits)
        else:
            explored.failures.append(naming.of_failure(found))
        done += 1
        on_progress(Progress("discover", done, None, naming.of(found.source)))
    return explored


def _explore_file(found: FoundFile, holdings: Holdings, explored: Explored, limits: Limits) -> None:
    if holdings.is_current(found.source, found.size, found.mtime_ns):
        explored.current.add(found.source)
        return
    segment_s, overlap_s = holdings.cut
    try:
        explored.entries[found.source] = entries(found, limits=limits, segment_s=segment_s, overlap_s=overlap_s)
    except UmeError as error:
        explored.failures.append(Failure.of(error, index=len(explored.failures), source=found.source))


@dataclass(frozen=True, slots=True)
class FileWork:
    """One file that is not fully in the collection.

    Attributes:
        source: The file.
        missing: Parts that the collection lacks.
        stale: Ids of points of its former content or cut; removed once the missing parts are written.
        present: Whether the collection has some of its parts.
    """

    source: str
    missing: tuple[Part, ...]
    stale: tuple[str, ...]
    present: bool


@dataclass(slots=True)
class Plan:
    """The work of an index run.

    Attributes:
        work: Files to index, by name.
        unchanged: Number of files that need no model.
        refreshed: Payload fields to set on existing points.
        gone: Ids of the points of each deleted file.
        failures: Files that could not be opened.
    """

    work: list[FileWork] = field(default_factory=list)
    unchanged: int = 0
    refreshed: list[Point] = field(default_factory=list)
    gone: dict[str, tuple[str, ...]] = field(default_factory=dict)
    failures: list[Failure] = field(default_factory=list)


def make_plan(holdings: Holdings, found: Explored) -> Plan:
    """Compare the files with the collection.

    A file counts as deleted if it has points but was neither found nor covered by a failure of its own or of a folder
    above it: an unreadable file is not a deleted one.
    """
    plan = Plan(unchanged=len(found.current), failures=list(found.failures))
    failed_parts = Counter(failure.source for failure in found.failures)
    for source, parts in sorted(found.entries.items()):
        count = len(parts) + failed_parts[source]
        _plan_file(plan, holdings.points(source), source, [Part(entry, count, holdings.cut) for entry in parts])
    for source in holdings.sources():
        seen = source in found.entries or source in found.current
        if not seen and not any(_is_above(name, source) for name in failed_parts):
            plan.gone[source] = tuple(point.id for point in holdings.points(source))
    return plan


def _plan_file(plan: Plan, held: Sequence[Point], source: str, parts: Sequence[Part]) -> None:
    wanted = {entry_id(part.entry): part for part in parts}
    present = {point.id: point for point in held if point.id in wanted}
    stale = tuple(point.id for point in held if point.id not in wanted)
    missing = tuple(part for key, part in wanted.items() if key not in present)
    for key, point in present.items():
        changes = _changes(point.payload, wanted[key])
        if changes:
            plan.refreshed.append(Point(key, {}, changes))
    if missing or stale:
        plan.work.append(FileWork(source, missing, stale, bool(present)))
    else:
        plan.unchanged += 1


def _changes(held: Mapping[str, Any], part: Part) -> dict[str, Any]:
    """Return the fields that differ for the same content: the file was touched, or other parts of it were readable."""
    wanted = part.payload(held["reasoning"])
    return {name: wanted[name] for name in ("size", "mtime_ns", "parts", "cut") if wanted.get(name) != held.get(name)}


def _is_above(name: str, source: str) -> bool:
    return name in {source, os.curdir} or source.startswith(name.rstrip(os.sep) + os.sep)
