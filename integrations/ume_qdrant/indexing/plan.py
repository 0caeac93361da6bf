"""Explore folders, compare them with a collection, and plan the points to write before any model is called."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeAlias

from ume_qdrant.indexing.labels import Label, Labels
from ume_qdrant.reports import OnProgress, Progress
from ume_qdrant.stores.base import Payload, Point, Store, Vector
from ume_qdrant.stores.filters import ANY_TENANT, Filter, ReasoningState
from ume_qdrant.stores.metadata import META_FIELD, Metadata
from ume_qdrant.stores.schema import MAX_TEXT, clean, point_id, within
from ume_qdrant.stores.sources import Naming, is_relative
from ume_retrieval.errors import Failure, InputError, UmeError
from ume_retrieval.media import Entry, FoundFile, Limits, display_name, entries, walk
from ume_retrieval.media.files import is_remote

CONTENT_FIELDS = ("file_digest", "kind", "start_s", "end_s", "page")
"""Payload fields that identify the content of a point."""

REASONING_FIELDS = ("trace", "reasoner", "prompt_version", "reasoning_error", "text")
"""Payload fields that reasoning writes."""

Cut: TypeAlias = tuple[float, float]
"""Length and overlap of video segments, in seconds."""

ContentKey: TypeAlias = tuple[str, str, float | None, float | None, int | None]
"""Identity of an entry's content, independent of file names: digest, kind, start, end, page."""


FileKey: TypeAlias = tuple[str, str | None]
"""Name of a file or document, and its tenant, or None in a collection without tenants."""


def entry_id(entry: Entry, tenant: str | None = None) -> str:
    """Return the id of an entry's point."""
    source, digest = entry.source, entry.file_digest
    return point_id(source, digest, start_s=entry.start_s, end_s=entry.end_s, page=entry.page, tenant=tenant)


def entry_key(entry: Entry) -> ContentKey:
    """Return the content key of an entry."""
    return entry.file_digest, entry.kind, entry.start_s, entry.end_s, entry.page


def content_key(payload: Payload) -> ContentKey:
    """Return the content key of a point from its `CONTENT_FIELDS`."""
    place = (payload.get("start_s"), payload.get("end_s"), payload.get("page"))
    return payload["file_digest"], payload["kind"], *place


@dataclass(frozen=True, slots=True)
class Part:
    """An entry as a part of its file.

    Attributes:
        entry: The entry.
        parts: Number of points of the file; fewer in the store mean that indexing is incomplete.
        cut: How videos are cut.
        meta: The user's metadata.
        tenant: The tenant that owns the point, or None in a collection without tenants.
    """

    entry: Entry
    parts: int
    cut: Cut
    meta: Metadata = field(default_factory=dict)
    tenant: str | None = None

    @property
    def id(self) -> str:
        """Id of the point."""
        return entry_id(self.entry, self.tenant)

    @property
    def key(self) -> ContentKey:
        """Identity of the content."""
        return entry_key(self.entry)

    def changing(self) -> tuple[str, ...]:
        """Names of payload fields that may change while the content stays."""
        return ("size", "mtime_ns", "parts", "cut")

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
            META_FIELD: self.meta or None,
        }
        return {name: value for name, value in fields.items() if value is not None}

    def point(self, vector: Vector, state: ReasoningState) -> Point:
        """Return a new point with its direct vector."""
        return Point(self.id, {"direct": vector}, self.payload(state))

    def copy_of(self, donor: Point, state: ReasoningState) -> Point:
        """Return a point with the vectors and the trace, but not the metadata, of a point with the same content."""
        if "reasoned" in donor.vectors:
            kept: ReasoningState = "done"
        else:
            kept = "failed" if donor.payload["reasoning"] == "failed" and state != "never" else state
        inherited = {name: donor.payload[name] for name in REASONING_FIELDS if name in donor.payload}
        payload = {**self.payload(kept), **(inherited if kept in {"done", "failed"} else {}), "reasoning": kept}
        return Point(self.id, dict(donor.vectors), payload)


FIELDS = ("source", *CONTENT_FIELDS, "size", "mtime_ns", "parts", "cut", "reasoning", META_FIELD)


class Holdings:
    """The points of some files or folders in a collection, by file.

    Args:
        store: The collection.
        roots: Files or folders, named as sources are.
        cut: How videos are cut now.
        tenant_key: Name of the metadata that holds a point's tenant, or None.
    """

    def __init__(self, store: Store, roots: Sequence[str], cut: Cut, tenant_key: str | None = None) -> None:
        self.cut = cut
        self._points: dict[FileKey, list[Point]] = {}
        for point in store.scroll(Filter(under=tuple(roots), tenant=ANY_TENANT), fields=FIELDS):
            tenant = None if tenant_key is None else point.payload.get(META_FIELD, {}).get(tenant_key)
            self._points.setdefault((point.payload["source"], tenant), []).append(point)

    def files(self) -> list[FileKey]:
        """List the files by name."""
        return sorted(self._points, key=lambda file: (file[0], file[1] or ""))

    def points(self, source: str, tenant: str | None = None) -> list[Point]:
        """Return the points of a file, without vectors."""
        return self._points.get((source, tenant), [])

    def is_current(self, source: str, size: int, mtime_ns: int, tenant: str | None = None) -> bool:
        """Return whether all points of a file with this size and time exist, so that it need not be read."""
        points = self.points(source, tenant)
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
        labels: Metadata and tenant of each file; a missing one keeps what its points have.
        failures: Files that could not be opened.
    """

    entries: dict[str, list[Entry]] = field(default_factory=dict)
    current: set[str] = field(default_factory=set)
    labels: dict[str, Label] = field(default_factory=dict)
    failures: list[Failure] = field(default_factory=list)

    def label(self, source: str) -> Label:
        """Return the label of a file."""
        return self.labels.get(source, Label())

    def look(self, found: FoundFile, path: str, holdings: Holdings, labels: Labels, limits: Limits) -> None:
        """Add a file: its label, and its entries unless all of its points exist."""
        try:
            label = labels.of(path)
            if holdings.is_current(found.source, found.size, found.mtime_ns, label.tenant):
                self.skip(found.source, label)
            else:
                self.open(found, label, holdings.cut, limits)
        except UmeError as error:
            self.fail(error, found.source)

    def skip(self, source: str, label: Label) -> None:
        """Add a file of which all points exist."""
        self.labels[source] = label
        self.current.add(source)

    def open(self, found: FoundFile | Failure, label: Label, cut: Cut, limits: Limits) -> None:
        """Add the entries of a file.

        Raises:
            MediaError: If it cannot be used.
        """
        if isinstance(found, Failure):
            self.failures.append(found)
            return
        segment_s, overlap_s = cut
        self.entries[found.source] = entries(found, limits=limits, segment_s=segment_s, overlap_s=overlap_s)
        self.labels[found.source] = label

    def fail(self, error: UmeError, source: str) -> None:
        """Add a file that cannot be used."""
        self.failures.append(Failure.of(error, index=len(self.failures), source=source))

    def keys(self) -> set[FileKey]:
        """Return the files that were found and are usable."""
        return {(source, self.label(source).tenant) for source in (*self.entries, *self.current)}


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
    labels: Labels,
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
        labels: Metadata of the files.
        on_progress: Called for each file.
    """
    explored = Explored()
    own = tuple(display_name(folder) + os.sep for folder in leave_out)
    done = 0
    for found in walk(roots, limits=limits, follow_symlinks=follow_symlinks):
        if found.source.startswith(own):
            continue
        if isinstance(found, FoundFile):
            explored.look(replace(found, source=naming.of(found.source)), str(found.path), holdings, labels, limits)
        else:
            labels.note(found.source)
            explored.failures.append(naming.of_failure(found))
        done += 1
        on_progress(Progress("discover", done, None, naming.of(found.source)))
    return explored


@dataclass(frozen=True, slots=True)
class FileWork:
    """One file that is not fully in the collection.

    Attributes:
        source: The file.
        missing: Parts that the collection lacks.
        stale: Ids of points of its former content or cut; removed once the missing parts are written.
        present: Whether the collection has some of its parts.
        tenant: Its tenant, or None in a collection without tenants.
    """

    source: str
    missing: tuple[Part, ...]
    stale: tuple[str, ...]
    present: bool
    tenant: str | None = None

    @property
    def key(self) -> FileKey:
        """Its name and tenant."""
        return self.source, self.tenant


@dataclass(slots=True)
class Plan:
    """The work of an index run.

    Attributes:
        work: Files to index, by name.
        unchanged: Number of files that need no model.
        relabelled: Those of them that get other metadata.
        refreshed: Payload fields to set on existing points.
        failures: Files that could not be opened.
    """

    work: list[FileWork] = field(default_factory=list)
    unchanged: int = 0
    relabelled: int = 0
    refreshed: list[Point] = field(default_factory=list)
    failures: list[Failure] = field(default_factory=list)

    def add(self, source: str, held: Sequence[Point], parts: Sequence[Part], tenant: str | None = None) -> None:
        """Add the work on a file or document, given its points in the collection and the parts that it has now."""
        wanted = {part.id: part for part in parts}
        same = {
            point.id: point
            for point in held
            if point.id in wanted and content_key(point.payload) == wanted[point.id].key
        }
        stale = tuple(point.id for point in held if point.id not in wanted)
        missing = tuple(part for key, part in wanted.items() if key not in same)
        changed = [Point(key, {}, _changes(point.payload, wanted[key])) for key, point in same.items()]
        self._refresh(changed)
        if missing or stale:
            self.work.append(FileWork(source, missing, stale, bool(same), tenant))
        else:
            self._keep(changed)

    def keep(self, held: Sequence[Point], label: Label) -> None:
        """Count a file that need not be read; its points get its metadata."""
        known = [(point.id, point.payload.get(META_FIELD, {})) for point in held]
        changed = [Point(key, {}, {META_FIELD: label.meta}) for key, meta in known if label.meta not in (None, meta)]
        self._refresh(changed)
        self._keep(changed)

    def _refresh(self, changed: Sequence[Point]) -> None:
        self.refreshed += [point for point in changed if point.payload]

    def _keep(self, changed: Sequence[Point]) -> None:
        self.unchanged += 1
        self.relabelled += any(META_FIELD in point.payload for point in changed)


def make_plan(holdings: Holdings, found: Explored) -> Plan:
    """Compare the files that were found with the collection."""
    plan = Plan(failures=list(found.failures))
    for source in sorted(found.current):
        label = found.label(source)
        plan.keep(holdings.points(source, label.tenant), label)
    rows: dict[str, list[Part]] = {source: [] for source in sorted(found.entries)}
    for source, part in parts_of(holdings, found):
        rows[source].append(part)
    for source, parts in rows.items():
        tenant = found.label(source).tenant
        plan.add(source, holdings.points(source, tenant), parts, tenant)
    return plan


def parts_of(holdings: Holdings, found: Explored) -> list[tuple[str, Part]]:
    """Return the parts of the files that were opened, each with the file's name."""
    failed = Counter(failure.source for failure in found.failures)
    parts: list[tuple[str, Part]] = []
    for source, rows in sorted(found.entries.items()):
        label = found.label(source)
        meta = label.merged(holdings.points(source, label.tenant))
        count = len(rows) + failed[source]
        parts += [(source, Part(entry, count, holdings.cut, meta, label.tenant)) for entry in rows]
    return parts


def _changes(held: Payload, part: Part) -> dict[str, Any]:
    """Return the fields that differ for the same content: other metadata, a touched file, other readable parts."""
    wanted = part.payload(held["reasoning"])
    changes = {name: wanted[name] for name in part.changing() if wanted.get(name) != held.get(name)}
    meta = wanted.get(META_FIELD, {})
    return changes if held.get(META_FIELD, {}) == meta else {**changes, META_FIELD: meta}
