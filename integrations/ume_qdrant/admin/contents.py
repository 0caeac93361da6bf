"""List, export and delete the contents of a collection."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

from ume_qdrant.stores.base import VECTORS, Store, batches
from ume_qdrant.stores.filters import Filter, Kind, ReasoningState
from ume_retrieval.errors import InputError
from ume_retrieval.util.files import atomic_path

LOOKED_UP: Final = 500
"""Sources per query."""


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
    ids = [point.id for point in store.scroll(replace(where or Filter(), sources=tuple(sources)), fields=("source",))]
    store.delete(ids)
    return len(ids)


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
