"""Copy a collection to another store or layout."""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass
from typing import Any

from ume_qdrant.reports import OnProgress, Progress
from ume_qdrant.stores.base import VECTORS, Store, batches
from ume_qdrant.stores.filters import EVERYTHING
from ume_qdrant.stores.layout import Layout
from ume_retrieval.errors import InputError, StoreError


@dataclass(frozen=True, slots=True)
class MigrationReport:
    """Result of `migrate`. `copied` and `unchanged` add up to the points of the source.

    Attributes:
        copied: Points that were written.
        unchanged: Points that the target already had with the same payload.
        others: Points of the target that the source lacks; they are kept.
        seconds: Wall-clock time.
    """

    copied: int
    unchanged: int
    others: int
    seconds: float

    def to_dict(self) -> dict[str, Any]:
        """Return JSON values."""
        return {**asdict(self), "seconds": round(self.seconds, 3)}


def migrate(
    source: Store,
    target: Store,
    *,
    layout: Layout | None = None,
    batch_size: int = 256,
    on_progress: OnProgress | None = None,
) -> MigrationReport:
    """Copy all points with vectors, payloads and traces, and the metadata. No model is called.

    A stopped run can be repeated: points that the target has with the same payload are not sent again, changed ones
    are. Ids stay the same, so `index` and `enrich` continue on the target.

    Args:
        source: The collection to copy; only read.
        target: The copy; created if it does not exist.
        layout: How a new target stores its vectors; None uses the layout of the source.
        batch_size: Points that are compared and written together, >= 1.
        on_progress: Called after each batch.

    Raises:
        CollectionNotFound: If the source does not exist.
        StoreMismatch: If the target was made with other models, or has another layout than `layout`.
        StoreUnsupported: If the target's engine does not support the layout.
        StoreError: If a store cannot be reached, or the target lacks points in the end.

    Example:
        >>> import tempfile
        >>> from qdrant_client import QdrantClient
        >>> from ume_qdrant import ClientStore, CollectionMeta, open_store
        >>> source = open_store(tempfile.mkdtemp(), "films")
        >>> source.create(CollectionMeta("model", "1", "family", 4))
        >>> migrate(source, ClientStore(QdrantClient(":memory:"), "films")).copied
        0
    """
    started = time.perf_counter()
    if batch_size < 1:
        raise InputError(f"batch_size is {batch_size}", hint="use 1 or more")
    if (source.location, source.collection) == (target.location, target.collection):
        raise InputError("source and target are the same collection", hint="give the target another name or place")
    meta = source.meta()
    total = source.count(EVERYTHING)
    target.create(meta, layout if layout is not None or target.exists() else source.layout())
    held = target.meta()
    held.check(meta, target.collection)
    if meta.reasoner and not held.reasoner:
        target.set_metadata(meta)
    copied = done = 0
    for batch in batches(source.scroll(EVERYTHING), batch_size):
        there = {point.id: point.payload for point in target.retrieve([point.id for point in batch])}
        lacking = [point.id for point in batch if there.get(point.id) != point.payload]
        if lacking:
            target.upsert(source.retrieve(lacking, vectors=VECTORS))
        copied += len(lacking)
        done += len(batch)
        if on_progress is not None:
            on_progress(Progress("migrate", done, total, batch[-1].payload.get("source", "")))
    others = target.count(EVERYTHING) - done
    if others < 0:
        raise StoreError(
            f"{target.location} holds {target.count(EVERYTHING)} of {done} points of collection {source.collection!r}",
            hint="something else removes points from the target; stop it and run this again",
        )
    target.optimize()
    return MigrationReport(copied, done - copied, others, time.perf_counter() - started)
