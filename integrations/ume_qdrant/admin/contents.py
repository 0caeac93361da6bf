"""List, export and delete the contents of a collection."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

from ume_qdrant.stores.base import VECTORS, Point, Store, batches
from ume_qdrant.stores.filters import Filter, Kind, ReasoningState
from ume_qdrant.stores.sources import DOCUMENT_FIELD, source_path
from ume_retrieval.errors import InputError
from ume_retrieval.util.files import atomic_path

LOOKED_UP: Final = 500
"""Sources per query."""


KEPT_NAME: Final = re.compile(r"[0-9a-f-]{36}-[0-9a-f]{16}\.[a-z0-9]{2,5}")
"""Names of files that `index_documents` keeps: the id of the point, the beginning of a digest, the format."""


@dataclass(frozen=True, slots=True)
class SourceSummary:
    """One file in a collection.

    Attributes:
        source: The file.
        kind: Kind of its media.
        points: Number of its points: segments, pages, or one.
        states: Number of points in each state of reasoning.
    """

    source: str
    kind: Kind
    points: int
    states: dict[ReasoningState, int]


def list_sources(store: Store, where: Filter | None = None) -> list[SourceSummary]:
    """Return every file that has matching points, by name."""
    found: dict[str, tuple[Kind, dict[ReasoningState, int]]] = {}
    for point in store.scroll(where, fields=("source", "kind", "reasoning")):
        _, states = found.setdefault(point.payload["source"], (point.payload["kind"], {}))
        state = point.payload["reasoning"]
        states[state] = states.get(state, 0) + 1
    return [
        SourceSummary(source, kind, sum(states.values()), states) for source, (kind, states) in sorted(found.items())
    ]


def held_sources(store: Store, sources: Iterable[str], where: Filter | None = None) -> set[str]:
    """Return those of the sources that have matching points."""
    return {
        point.payload["source"]
        for some in batches(sorted(set(sources)), LOOKED_UP)
        for point in store.scroll(replace(where or Filter(), sources=tuple(some)), fields=("source",))
    }


def delete(store: Store, ids: Iterable[str] | None = None, *, where: Filter | None = None) -> int:
    """Remove documents by id, points by filter, or the points of documents that a filter selects.

    Args:
        store: The collection.
        ids: Ids of documents as the caller gave them, or sources of files: `hit.id`. Unknown ids are ignored.
        where: Which points to remove.

    Returns:
        Number of points removed. Media that `index_documents` kept for them are removed too.

    Raises:
        InputError: If `ids` is a single string, or neither `ids` nor `where` is given.
    """
    if isinstance(ids, str):
        raise InputError("delete takes several ids", hint=f"write delete(store, [{ids!r}])")
    if ids is None and where is None:
        raise InputError("nothing says what to delete", hint="give ids or where; drop() deletes the collection")
    if ids is None:
        return _delete(store, where or Filter())
    allowed = None if where is None or where.doc_ids is None else set(where.doc_ids)
    named = [name for name in dict.fromkeys(ids) if allowed is None or name in allowed]
    return sum(_delete(store, replace(where or Filter(), doc_ids=tuple(some))) for some in batches(named, LOOKED_UP))


def delete_sources(store: Store, sources: Sequence[str], where: Filter | None = None) -> int:
    """Remove the points of these sources and return their number; unknown sources are ignored.

    Args:
        store: The collection.
        sources: Names of the sources.
        where: Which of their points; needs a tenant where the collection has tenants.

    Raises:
        InputError: If `sources` is a single string.
    """
    if isinstance(sources, str):
        raise InputError("delete_sources takes several sources", hint=f"write delete_sources(store, [{sources!r}])")
    return _delete(store, replace(where or Filter(), sources=tuple(sources)))


def _delete(store: Store, where: Filter) -> int:
    points = list(store.scroll(where, fields=("doc_id", DOCUMENT_FIELD)))
    for some in batches(points, LOOKED_UP):
        store.delete([point.id for point in some])
    owners = {point.payload["doc_id"] for point in points if _kept(point)}
    # Other parts of the same documents may still need the files.
    left = (
        point
        for some in batches(sorted(owners), LOOKED_UP)
        for point in store.scroll(Filter(doc_ids=tuple(some), tenant=where.tenant), fields=(DOCUMENT_FIELD,))
    )
    forget_media(points, keep=[source_path(name) for point in left for name in _kept(point)])
    return len(points)


def forget_media(points: Iterable[Point], *, keep: Iterable[Path] = ()) -> None:
    """Delete the files that `index_documents` kept for points that no longer exist.

    Args:
        points: The former points.
        keep: Files that other points need.
    """
    needed = set(keep)
    for path in (source_path(name) for point in points for name in _kept(point)):
        # The name shows that the file is a kept one, whatever else has written to the collection.
        if path not in needed and KEPT_NAME.fullmatch(path.name):
            path.unlink(missing_ok=True)


def _kept(point: Point) -> Sequence[str]:
    document = point.payload.get(DOCUMENT_FIELD)
    return document.get("kept", ()) if isinstance(document, dict) else ()


def export(store: Store, *, vectors: bool = False, where: Filter | None = None) -> Iterator[dict[str, Any]]:
    """Yield points as JSON values, ordered by id: `id`, the payload's fields, and optionally `vectors` by name.

    The vectors are those of the engine, of length 1 up to rounding.
    """
    for point in store.scroll(where, vectors=VECTORS if vectors else ()):
        record: dict[str, Any] = {"id": point.id, **point.payload}
        if vectors:
            record["vectors"] = {name: vector.tolist() for name, vector in sorted(point.vectors.items())}
        yield record


def export_jsonl(store: Store, path: str | Path, *, vectors: bool = False, where: Filter | None = None) -> int:
    """Write points to a file atomically, one JSON object per line, and return their number.

    Raises:
        InputError: If the file cannot be written.
    """
    count = 0
    with atomic_path(path, what="the export") as part, part.open("w", encoding="utf-8") as file:
        for record in export(store, vectors=vectors, where=where):
            file.write(json.dumps(record, ensure_ascii=False) + "\n")
            count += 1
    return count
