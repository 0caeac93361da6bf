"""Which points to reason over first when not all can be: those that look most like others.

An item with a near twin is told apart by details that a direct vector may miss; one that stands alone is found anyway.
Measured on Shapes (`benchmarks/corpus_budget.py`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Final

from ume_qdrant.store import Point, Store
from ume_retrieval.inputs import Item
from ume_retrieval.results import Usage

PAGE: Final = 256


def crowded_first(store: Store, pending: Mapping[str, list[Point]]) -> dict[str, list[Point]]:
    """Order files by their most crowded point: the one whose direct vector has the nearest neighbour.

    Args:
        store: Where the points are; asked for one search a point.
        pending: Points by file.
    """
    nearest: dict[str, float] = {}
    ids = [point.id for points in pending.values() for point in points]
    for start in range(0, len(ids), PAGE):
        for point in store.retrieve(ids[start : start + PAGE], vectors=("direct",), fields=()):
            near = store.search("direct", point.vectors["direct"], limit=2, fields=())
            nearest[point.id] = max((hit.score for hit in near if hit.id != point.id), default=-1.0)
    crowding = {source: max(nearest.get(point.id, -1.0) for point in points) for source, points in pending.items()}
    return {source: pending[source] for source in sorted(pending, key=lambda source: (-crowding[source], source))}


def affordable(items: Iterable[Item], tokens: int, usage: Callable[[], Usage]) -> Iterator[Item]:
    """Items in order, until their T-CoTs will have taken `tokens` tokens.

    Items on their way to the Reasoner count with the mean length of its T-CoTs so far, so a budget is overdrawn by
    little more than the first items.

    Args:
        items: What may be reasoned over.
        tokens: What the Reasoner may write.
        usage: What it has written by now.
    """
    for drawn, item in enumerate(items):
        now = usage()
        waiting = max(0, drawn - now.reasoner_calls - now.cached_traces)
        mean = now.completion_tokens / max(1, now.reasoner_calls)
        if now.completion_tokens + waiting * mean >= tokens:
            return
        yield item
