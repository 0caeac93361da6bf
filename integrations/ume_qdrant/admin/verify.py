"""Check a collection on disk: its files against their seal, and every point."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import asdict, dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

import numpy as np

from ume_qdrant.admin.salvage import salvage
from ume_qdrant.reports import OnProgress, Progress
from ume_qdrant.stores.base import Point, Store
from ume_qdrant.stores.edge import EdgeStore
from ume_qdrant.stores.edge_engine import finish_replacement
from ume_qdrant.stores.seal import Seal, copy_collection
from ume_qdrant.stores.sharing import exclusive
from ume_retrieval.errors import StoreError, StoreUnsupported

NORM_ERROR: Final = 1e-3
"""Most deviation from 1 of the length of a stored vector."""

MISSING_REASONED: Final = "it has no reasoned vector, although it was reasoned over"

MOST_NAMED: Final = 1000
"""Most names of each kind in a report; the numbers count all."""


@dataclass(frozen=True, slots=True)
class VerifyReport:
    """Result of `verify`.

    Attributes:
        sealed: Whether the collection was closed cleanly; without a seal, files cannot be compared.
        files: Number of files that were compared.
        damaged: Files that are missing or not as they were written.
        points: Number of points; None if they cannot be read.
        expected: Number of points when the collection was closed; None without a seal.
        faulty: Points that cannot be used, by id, with the reason.
        incomplete: Sources that have fewer points than parts; `index` completes them.
        reason: Why the points cannot be read, or "".
    """

    sealed: bool
    files: int
    damaged: tuple[str, ...] = ()
    points: int | None = None
    expected: int | None = None
    faulty: dict[str, str] = field(default_factory=dict)
    incomplete: tuple[str, ...] = ()
    reason: str = ""

    @property
    def intact(self) -> bool:
        """Whether nothing is damaged; incomplete sources may be work that was stopped."""
        return not (self.damaged or self.faulty or self.reason) and self.expected in {None, self.points}

    def to_dict(self) -> dict[str, Any]:
        """Return JSON values."""
        return {"intact": self.intact, **asdict(self), "damaged": list(self.damaged)}


def verify(store: Store, *, on_progress: OnProgress | None = None) -> VerifyReport:
    """Read all files and all points of a collection on disk, and change nothing.

    Points are read from a copy, in a process of its own, because the engine writes to its files even to read, and
    damaged ones can end its process. The copy needs as much space as the collection.

    Args:
        store: The collection; not in use anywhere.
        on_progress: Called after each page of points.

    Raises:
        CollectionNotFound: If the collection does not exist.
        StoreLocked: If a process has it open.
        StoreUnsupported: If the store is a server, which checks its files itself.
    """
    folder = edge_folder(store)
    with exclusive(folder):
        finish_replacement(folder)
        seal = Seal.read(folder)
        damaged = seal.damaged(folder, by_time=False) if seal else []
        report = VerifyReport(seal is not None, len(seal.files) if seal else 0, tuple(damaged))
        if damaged:
            return report
        try:
            dimension = store.meta().dimension
        except StoreError as error:
            return VerifyReport(report.sealed, report.files, reason=error.message)
        with TemporaryDirectory(prefix=".verify-", dir=folder) as copy:
            copy_collection(folder, Path(copy))
            faulty: dict[str, str] = {}
            sources: Counter[str] = Counter()
            parts: dict[str, int] = {}
            count, reason = 0, ""
            try:
                for page in salvage(Path(copy)):
                    for point in page:
                        count += 1
                        why = fault(point, dimension) or (MISSING_REASONED if lacks_reasoning(point) else "")
                        if why and len(faulty) < MOST_NAMED:
                            faulty[point.id] = why
                        if isinstance(parted := point.payload.get("parts"), int):
                            sources[str(point.payload.get("source"))] += 1
                            parts[str(point.payload.get("source"))] = parted
                    if on_progress is not None:
                        on_progress(Progress("verify", count, seal.points if seal else None, ""))
            except StoreError as error:
                reason = error.message
    incomplete = sorted(name for name, number in parts.items() if sources[name] < number)[:MOST_NAMED]
    return VerifyReport(
        report.sealed,
        report.files,
        points=count,
        expected=seal.points if seal else None,
        faulty=faulty,
        incomplete=tuple(incomplete),
        reason=reason,
    )


def fault(point: Point, dimension: int) -> str:
    """Return why a stored point cannot be used, or "".

    Example:
        >>> vector = np.asarray([0.6, 0.8], dtype=np.float32)
        >>> fault(Point("a", {"direct": vector}, {"source": "x", "kind": "text"}), 2)
        ''
        >>> fault(Point("a", {"direct": 2 * vector}, {"source": "x", "kind": "text"}), 2)
        'its direct vector does not have length 1'
    """
    if not isinstance(point.payload.get("source"), str) or not isinstance(point.payload.get("kind"), str):
        return "its payload lacks its source"
    if "direct" not in point.vectors:
        return "it has no direct vector"
    for name, vector in point.vectors.items():
        if vector.shape != (dimension,):
            return f"its {name} vector has another dimension"
        length = float(np.linalg.norm(vector.astype(np.float64)))
        if not math.isclose(length, 1, abs_tol=NORM_ERROR) and length != 0:
            return f"its {name} vector does not have length 1"
    return ""


def lacks_reasoning(point: Point) -> bool:
    """Return whether a point's payload announces a `reasoned` vector that is missing."""
    return point.payload.get("reasoning") == "done" and "reasoned" not in point.vectors


def edge_folder(store: Store) -> Path:
    """Return the folder of an existing collection on disk.

    Raises:
        CollectionNotFound: If the collection does not exist.
        StoreUnsupported: If the store is not on disk.
    """
    edge = edge_store(store)
    if not edge.exists():
        edge.meta()  # raises CollectionNotFound with the names that exist
    return edge.folder


def edge_store(store: Store) -> EdgeStore:
    """Return the store if it is on disk.

    Raises:
        StoreUnsupported: If it is not.
    """
    if not isinstance(store, EdgeStore):
        raise StoreUnsupported(
            "a server looks after its own files", hint="use its snapshots and its logs; see Qdrant's documentation"
        )
    return store
