"""What has become of a run's files, counted as outcomes come in, and what is cleared away when all are there."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field

from ume_qdrant.reports import IndexReport, OnProgress, Progress, error_of, once_a_source
from ume_qdrant.stores.base import Store, batches
from ume_qdrant.stores.filters import Filter
from ume_ray.sources import below
from ume_ray.units import Outcome
from ume_retrieval.errors import Failure
from ume_retrieval.results import Usage

DELETED_AT_ONCE = 500


@dataclass(slots=True)
class Tally:
    """What has become of the files so far.

    Attributes:
        on_progress: Told of every point that is settled, or None.
        keep_sources: Whether to remember the name of every file, so that those that are gone can be told.
        seen: Names of all files, when they are kept.
        written: Files of which points were written.
        cleared: Files of which points of former content were removed.
        embedded: Those of them for which the Embedder was asked.
        stale: Files that have points of former content.
        failures: What was left out.
        unchanged: Files that needed nothing.
        points: Points written.
        settled: Points that were written, completed or left out.
        usage: What the models were asked.
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

    def add(self, outcome: Outcome) -> None:
        """Count one outcome.

        Raises:
            UmeError: What has struck the run as a whole.
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
            case "stopped" if outcome.failure is not None:
                raise error_of(outcome.failure)
        if outcome.event in ("embedded", "taken over", "reasoned", "failed"):
            self.settled += 1
            if self.on_progress is not None:
                self.on_progress(
                    Progress("reason" if outcome.event == "reasoned" else "embed", self.settled, None, outcome.source)
                )

    def report(self, removed: int, seconds: float) -> IndexReport:
        """The same figures as of one process."""
        return IndexReport(
            indexed=len(self.written | self.cleared),
            unchanged=self.unchanged,
            removed=removed,
            failed=once_a_source(self.failures),
            moved=len(self.written - self.embedded),
            points=self.points,
            usage=self.usage,
            seconds=seconds,
        )


def clear_away(collection: Store, places: Sequence[str], tally: Tally, *, prune: bool) -> int:
    """Remove points of former content, and of files that are gone.

    A file's former points go when it has points of its present content. A file is gone when it is held but was neither
    found nor named in a failure, itself or a folder above it.

    Args:
        collection: The collection.
        places: What was listed.
        tally: Of the whole run; it has kept sources when `prune` is set.
        prune: Whether to look for files that are gone.

    Returns:
        How many files were gone.
    """
    for source, outcome in tally.stale.items():
        if outcome.present or source in tally.written:
            collection.delete(outcome.stale)
            tally.cleared.add(source)
    gone = _gone(collection, places, tally) if prune else {}
    for some in batches([key for keys in gone.values() for key in keys], DELETED_AT_ONCE):
        collection.delete(some)
    return len(gone)


def _gone(collection: Store, places: Sequence[str], tally: Tally) -> dict[str, list[str]]:
    unreadable = tuple(failure.source.rstrip(os.sep) + os.sep for failure in tally.failures)
    gone: dict[str, list[str]] = {}
    for point in collection.scroll(Filter(under=tuple(below(place) for place in places)), fields=("source",)):
        source = point.payload["source"]
        if source not in tally.seen and not source.startswith(unreadable):
            gone.setdefault(source, []).append(point.id)
    return gone
