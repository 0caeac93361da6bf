"""What a collection holds: listed by source, exported, deleted."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from ume_qdrant.stores.base import VECTORS, Store, batches
from ume_qdrant.stores.filters import Filter, Kind, ReasoningState
from ume_retrieval.errors import InputError

LOOKED_UP: Final = 500
"""Sources that are looked up at a time."""


@dataclass(frozen=True, slots=True)
class SourceSummary:
    """One file in a collection.

    Attributes:
        source: The file.
        kind: What its points show.
        points: How many it has: segments, pages, or one.
        states: How many of them are in each state of reasoning.
    """

    source: str
    kind: Kind
    points: int
    states: dict[ReasoningState, int]


def list_sources(store: Store, where: Filter | None = None) -> list[SourceSummary]:
    """Every file that has matching points, by name."""
    found: dict[str, tuple[Kind, dict[ReasoningState, int]]] = {}
    for point in store.scroll(where, fields=("source", "kind", "reasoning")):
        _, states = found.setdefault(point.payload["source"], (point.payload["kind"], {}))
        state = point.payload["reasoning"]
        states[state] = states.get(state, 0) + 1
    return [
        SourceSummary(source, kind, sum(states.values()), states) for source, (kind, states) in sorted(found.items())
    ]


def held_sources(store: Store, sources: Iterable[str]) -> set[str]:
    """Those of the sources that have points."""
    return {
        point.payload["source"]
        for some in batches(sorted(set(sources)), LOOKED_UP)
        for point in store.scroll(Filter(sources=tuple(some)), fields=("source",))
    }


def delete_sources(store: Store, sources: Sequence[str]) -> int:
    """Remove all points of these sources and return how many there were. Sources that are not there are no error.

    Raises:
        InputError: When one source stands where several belong.
    """
    if isinstance(sources, str):
        raise InputError("delete_sources takes several sources", hint=f"write delete_sources(store, [{sources!r}])")
    ids = [point.id for point in store.scroll(Filter(sources=tuple(sources)), fields=("source",))]
    store.delete(ids)
    return len(ids)


def export(store: Store, *, vectors: bool = False, where: Filter | None = None) -> Iterator[dict[str, Any]]:
    """Points as JSON values, ordered by id: `id`, the payload's fields, and on request `vectors` by name.

    The vectors are what the engine gives back, of length 1 up to rounding.
    """
    for point in store.scroll(where, vectors=VECTORS if vectors else ()):
        record: dict[str, Any] = {"id": point.id, **point.payload}
        if vectors:
            record["vectors"] = {name: vector.tolist() for name, vector in sorted(point.vectors.items())}
        yield record


def export_jsonl(store: Store, path: str | Path, *, vectors: bool = False, where: Filter | None = None) -> int:
    """Write points to a file, one JSON object a line, and return how many.

    The file appears only when it is whole.
    """
    path = Path(path)
    aside = path.with_name(f".{path.name}.new")
    count = 0
    with aside.open("w", encoding="utf-8") as file:
        for record in export(store, vectors=vectors, where=where):
            file.write(json.dumps(record, ensure_ascii=False) + "\n")
            count += 1
    aside.replace(path)
    return count
