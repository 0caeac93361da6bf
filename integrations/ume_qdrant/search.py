"""Search: a query as vectors, both rankings fused, and hits with their reasons."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal, TypeAlias, get_args

import numpy as np

from ume_qdrant.filters import Filter
from ume_qdrant.fusion import Grouping, Place, diversify, fuse, group
from ume_qdrant.hits import Hit, SearchResult
from ume_qdrant.schema import meta_of
from ume_qdrant.store import Payload, Store, Vector, VectorName
from ume_retrieval.errors import InputError
from ume_retrieval.inputs import Item, Modality
from ume_retrieval.pipeline import ReasoningEmbedder, ReasoningMode
from ume_retrieval.results import Trace, Usage

Mode: TypeAlias = Literal["fused", "direct", "reasoned"]
"""Which vectors of the corpus are compared: both, or one kind alone."""

REASONED_WEIGHT: Final = 0.5
"""Default share of the reasoned score in a fused one."""

CANDIDATES: Final = 100
"""Least points that each ranking contributes to fusion."""


@dataclass(frozen=True, slots=True, eq=False)
class QueryVectors:
    """A query, encoded.

    Attributes:
        direct: Compared with the corpus' `direct` vectors; None leaves them out.
        reasoned: Compared with the corpus' `reasoned` vectors; None leaves them out.

    Raises:
        InputError: When there is neither.
    """

    direct: Vector | None = None
    reasoned: Vector | None = None

    def __post_init__(self) -> None:
        if self.direct is None and self.reasoned is None:
            raise InputError("a query needs a direct or a reasoned vector")


def search(
    embedder: ReasoningEmbedder,
    store: Store,
    item: Item | str,
    *,
    limit: int = 10,
    reasoning: ReasoningMode = "always",
    mode: Mode = "fused",
    target: Modality | None = None,
    where: Filter | None = None,
    group_by: Grouping = "point",
    diversity: float = 0.0,
    weight: float = REASONED_WEIGHT,
    candidates: int | None = None,
) -> SearchResult:
    """Find what answers a query.

    `mode` chooses the vectors of the corpus, `reasoning` those of the query: a query that is not reasoned over is
    compared with both kinds as it is. In a collection where nothing has been reasoned over yet, the query is not
    either: it could change no score.

    Args:
        embedder: The models that the collection was made with.
        store: The collection.
        item: What to search with; a `str` is text.
        limit: Most hits.
        reasoning: "always" reasons over the query, "never" embeds it as it is (faster).
        mode: "fused", "direct" (no reasoning on either side) or "reasoned" (finds only what was reasoned over).
        target: What is looked for, when that is known; a text query for a video has a prompt of its own.
        where: Which points count.
        group_by: One hit a point, a moment or a source.
        diversity: Weight of unlikeness among the hits, 0..1.
        weight: Share of the reasoned score in a fused one, 0..1.
        candidates: Points that each ranking contributes; by default ten times `limit`, at least 100.

    Raises:
        CollectionNotFound: When there is no such collection.
        StoreMismatch: When it was made with other models or prompts.
        UmeError: As `ReasoningEmbedder.encode_query` and `Store` do.
    """
    if mode not in get_args(Mode) or reasoning not in get_args(ReasoningMode):
        raise InputError(
            f"unknown mode {mode!r} or reasoning {reasoning!r}",
            hint="mode is 'fused', 'direct' or 'reasoned', reasoning is 'always' or 'never'",
        )
    reason = reasoning == "always" and mode != "direct"
    meta = store.meta()
    meta.check(meta_of(embedder, reasoned=reason), store.collection)
    if mode == "fused" and not meta.reasoner:
        reason = False
    usage = Usage()
    trace: Trace | None = None
    direct: Vector | None = None
    reasoned: Vector | None = None
    if mode != "reasoned" or not reason:
        plain = embedder.encode_query(item, reasoning="never", target=target, return_traces=True)
        direct, usage = plain.vectors.astype(np.float32), usage + plain.usage
    if reason:
        thought = embedder.encode_query(item, reasoning=reasoning, target=target, return_traces=True)
        reasoned, usage = thought.vectors.astype(np.float32), usage + thought.usage
        trace = thought.traces[0]
    query = QueryVectors(
        direct=None if mode == "reasoned" else direct,
        reasoned=None if mode == "direct" else direct if reasoned is None else reasoned,
    )
    hits = search_vectors(
        store,
        query,
        limit=limit,
        where=where,
        group_by=group_by,
        diversity=diversity,
        weight=weight,
        candidates=candidates,
    )
    return SearchResult(hits, trace, usage)


def search_vectors(
    store: Store,
    query: QueryVectors,
    *,
    limit: int = 10,
    where: Filter | None = None,
    group_by: Grouping = "point",
    diversity: float = 0.0,
    weight: float = REASONED_WEIGHT,
    candidates: int | None = None,
) -> tuple[Hit, ...]:
    """Find what answers a query that is encoded already. Arguments are those of `search`.

    Hits of equal score are ordered by point id, so that results do not depend on the order of writing.
    """
    if limit < 1 or not 0 <= weight <= 1 or not 0 <= diversity <= 1:
        raise InputError(
            f"limit {limit}, weight {weight}, diversity {diversity}: out of range",
            hint="limit is at least 1, weight and diversity lie between 0 and 1",
        )
    if group_by not in get_args(Grouping):
        raise InputError(f"unknown group_by {group_by!r}", hint="use 'point', 'moment' or 'source'")
    depth = max(CANDIDATES, 10 * limit) if candidates is None else max(candidates, limit)
    while True:
        found = _candidates(store, query, depth, where, weight)
        ranked = sorted(found.scores, key=lambda key: (-found.scores[key], key))
        ranked = group(ranked, {key: _place(found.payloads[key]) for key in ranked}, group_by)
        if len(ranked) >= limit or found.exhausted:
            break
        depth *= 4  # grouping has folded so many that the rest does not fill the list
    if diversity > 0:
        name: VectorName = "reasoned" if query.direct is None else "direct"
        vectors = {point.id: point.vectors[name] for point in store.retrieve(ranked, vectors=(name,))}
        ranked = [key for key in ranked if key in vectors]
        ranked = diversify(ranked, found.scores, vectors, diversity=diversity, limit=limit)
    return tuple(Hit.of(key, found.scores[key], found.payloads[key]) for key in ranked[:limit])


@dataclass(frozen=True, slots=True)
class _Found:
    scores: dict[str, float]
    payloads: dict[str, Payload]
    exhausted: bool


def _candidates(store: Store, query: QueryVectors, depth: int, where: Filter | None, weight: float) -> _Found:
    scores: dict[VectorName, dict[str, float]] = {}
    payloads: dict[str, Payload] = {}
    exhausted = True
    queries: dict[VectorName, Vector] = {name: vector for name, vector in _named(query) if vector is not None}
    for name, vector in queries.items():
        hits = store.search(name, vector, limit=depth, where=where)
        scores[name] = {hit.id: hit.score for hit in hits}
        payloads |= {hit.id: hit.payload for hit in hits}
        exhausted = exhausted and len(hits) < depth
    if len(queries) == 1:
        [only] = scores.values()
        return _Found(only, payloads, exhausted)
    for name, vector in queries.items():
        missing = tuple(key for key in payloads if key not in scores[name])
        if missing:
            hits = store.search(name, vector, limit=len(missing), where=Filter(ids=missing))
            scores[name] |= {hit.id: hit.score for hit in hits}
    return _Found(fuse(scores["direct"], scores["reasoned"], weight), payloads, exhausted)


def _named(query: QueryVectors) -> Sequence[tuple[VectorName, Vector | None]]:
    return (("direct", query.direct), ("reasoned", query.reasoned))


def _place(payload: Payload) -> Place:
    return Place(payload["source"], payload.get("start_s"), payload.get("end_s"))
