"""What has to be done so that a collection holds what the folders hold; decided before any model is asked."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ume_qdrant.indexing.points import Cut, Part, entry_id
from ume_qdrant.stores.base import Point, Store
from ume_qdrant.stores.filters import Filter
from ume_retrieval.errors import Failure
from ume_retrieval.media import Entry

FIELDS = ("source", "kind", "file_digest", "size", "mtime_ns", "parts", "cut", "reasoning")


class Holdings:
    """What a collection holds of some files or folders, by source.

    Args:
        store: The collection.
        roots: Files or folders, as sources are written.
        cut: How videos are to be cut.
    """

    def __init__(self, store: Store, roots: Sequence[str], cut: Cut) -> None:
        self.cut = cut
        self._points: dict[str, list[Point]] = {}
        for point in store.scroll(Filter(under=tuple(roots)), fields=FIELDS):
            self._points.setdefault(point.payload["source"], []).append(point)

    def sources(self) -> list[str]:
        """Every source, by name."""
        return sorted(self._points)

    def points(self, source: str) -> list[Point]:
        """Points of a source, without vectors."""
        return self._points.get(source, [])

    def is_current(self, source: str, size: int, mtime_ns: int) -> bool:
        """Whether all points of a file of this size and time are there, so that it need not be read."""
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
    """What files and folders hold.

    Attributes:
        entries: Parts of each file that was opened, by source.
        current: Files that were passed over because all of their points are there.
        failures: What could not be opened.
    """

    entries: dict[str, list[Entry]] = field(default_factory=dict)
    current: set[str] = field(default_factory=set)
    failures: list[Failure] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class FileWork:
    """One file that the collection lacks, wholly or in part.

    Attributes:
        source: The file.
        missing: Parts that the collection lacks.
        stale: Ids of points of its former content or cut; they go when the missing parts are written.
        present: Whether the collection has some of its parts already.
    """

    source: str
    missing: tuple[Part, ...]
    stale: tuple[str, ...]
    present: bool


@dataclass(slots=True)
class Plan:
    """What has to be done.

    Attributes:
        work: Files to index, by name.
        unchanged: Files that need no model.
        refreshed: Payload fields to set on points that stay as they are.
        gone: Ids of the points of each file that is no longer there.
        failures: What could not be discovered.
    """

    work: list[FileWork] = field(default_factory=list)
    unchanged: int = 0
    refreshed: list[Point] = field(default_factory=list)
    gone: dict[str, tuple[str, ...]] = field(default_factory=dict)
    failures: list[Failure] = field(default_factory=list)


def make_plan(holdings: Holdings, found: Explored) -> Plan:
    """Compare what was found with what is held.

    A file is gone when it is held but was neither found nor named in a failure, itself or a folder above it: what
    cannot be looked at is not taken for deleted.
    """
    plan = Plan(unchanged=len(found.current), failures=list(found.failures))
    failed_parts = Counter(failure.source for failure in found.failures)
    for source, entries in sorted(found.entries.items()):
        parts = len(entries) + failed_parts[source]
        _plan_file(plan, holdings.points(source), source, [Part(entry, parts, holdings.cut) for entry in entries])
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
    """Fields in which a point of the same content differs: the file was touched, or other parts of it could be read."""
    wanted = part.payload(held["reasoning"])
    return {name: wanted[name] for name in ("size", "mtime_ns", "parts", "cut") if wanted.get(name) != held.get(name)}


def _is_above(name: str, source: str) -> bool:
    return name in {source, os.curdir} or source.startswith(name.rstrip(os.sep) + os.sep)
