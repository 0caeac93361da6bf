"""From two rankings to one: fusion of scores, grouping, and maximal marginal relevance. Pure functions on numbers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np

from ume_qdrant.stores.base import Vector
from ume_retrieval.errors import InputError
from ume_retrieval.vectors import fuse as fuse_similarities

Grouping: TypeAlias = Literal["point", "moment", "source"]
"""What a hit stands for: every point; a moment (overlapping segments of one video are one hit); or a source."""


def fuse(direct: Mapping[str, float], reasoned: Mapping[str, float], weight: float) -> dict[str, float]:
    """Fuse cosine similarities by point id, as `ume_retrieval.vectors.fuse` does.

    Args:
        direct: Cosine by point id; every point has one.
        reasoned: Cosine by point id; missing ones are estimated.
        weight: Weight of the reasoned score, 0..1.

    Returns:
        Score by point id, for every id in `direct`.

    Example:
        >>> fuse({"a": 0.25, "b": 0.5}, {"a": 0.75}, 0.5)
        {'a': 0.5, 'b': 0.75}
    """
    first, second = np.array([list(direct.values()), [reasoned.get(key, np.nan) for key in direct]], dtype=np.float64)
    return dict(zip(direct, fuse_similarities(first, second, weight).tolist(), strict=True))


@dataclass(frozen=True, slots=True)
class Place:
    """Where a point lies.

    Attributes:
        source: Its file.
        start_s: First second, or None.
        end_s: Last second, or None.
    """

    source: str
    start_s: float | None = None
    end_s: float | None = None

    def overlaps(self, other: Place) -> bool:
        """Whether both show seconds of one file that they share."""
        if self.source != other.source or None in (self.start_s, self.end_s, other.start_s, other.end_s):
            return False
        return self.start_s < other.end_s and other.start_s < self.end_s  # type: ignore[operator]  # no None here


def group(ranked: Sequence[str], places: Mapping[str, Place], by: Grouping) -> list[str]:
    """Keep the best point of each group, in order.

    Example:
        >>> places = {"a": Place("v", 0, 4), "b": Place("v", 3, 7), "c": Place("v", 6, 10)}
        >>> group(["a", "b", "c"], places, "moment"), group(["a", "b", "c"], places, "source")
        (['a', 'c'], ['a'])
    """
    if by == "point":
        return list(ranked)
    kept: list[str] = []
    of_source: dict[str, list[Place]] = {}
    for key in ranked:
        place = places[key]
        better = of_source.setdefault(place.source, [])
        if (by == "source" and better) or any(place.overlaps(other) for other in better):
            continue
        better.append(place)
        kept.append(key)
    return kept


def diversify(
    ranked: Sequence[str],
    scores: Mapping[str, float],
    vectors: Mapping[str, Vector],
    *,
    diversity: float,
    limit: int,
) -> list[str]:
    """Maximal marginal relevance: each next hit is relevant and unlike those before it (Carbonell and Goldstein, 1998).

    Args:
        ranked: Point ids, best first.
        scores: Relevance by id.
        vectors: Unit vectors by id, for likeness.
        diversity: Weight of unlikeness, 0..1; 0 keeps the ranking, 1 ignores relevance after the first.
        limit: Most ids to return.

    Example:
        >>> scores = {"a": 0.9, "b": 0.89, "c": 0.5}
        >>> vectors = {"a": np.array([1.0, 0.0]), "b": np.array([1.0, 0.0]), "c": np.array([0.0, 1.0])}
        >>> diversify(["a", "b", "c"], scores, vectors, diversity=0.5, limit=2)
        ['a', 'c']
    """
    if not 0 <= diversity <= 1:
        raise InputError(f"diversity lies between 0 and 1, got {diversity}")
    if not ranked:
        return []
    matrix = np.stack([vectors[key] for key in ranked])
    relevance = np.array([scores[key] for key in ranked])
    likeness = np.full(len(ranked), -np.inf)
    chosen = [0]
    while len(chosen) < min(limit, len(ranked)):
        likeness = np.maximum(likeness, matrix @ matrix[chosen[-1]])
        marginal = (1 - diversity) * relevance - diversity * likeness
        marginal[chosen] = -np.inf
        chosen.append(int(np.argmax(marginal)))
    return [ranked[index] for index in chosen]
