"""Calibrate a gate on queries that are searched with and without reasoning."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

from ume_qdrant.admin.contents import held_sources
from ume_qdrant.searching.params import SearchParams
from ume_qdrant.searching.search import QueryVectors, direct_view, embedder_identity, search_vectors
from ume_qdrant.stores.base import Store
from ume_qdrant.stores.filters import Filter
from ume_retrieval.errors import InputError
from ume_retrieval.gate import Gate, calibrate
from ume_retrieval.inputs import Item
from ume_retrieval.pipeline.embedder import ReasoningEmbedder
from ume_retrieval.pipeline.encode_options import ReasoningMode

TOGETHER: Final = 64
"""Queries per call of the models."""

BOTH: Final[tuple[ReasoningMode, ...]] = ("never", "always")


def calibrate_gate(
    embedder: ReasoningEmbedder,
    store: Store,
    queries: Sequence[Item | str],
    *,
    answers: Sequence[str] | None = None,
    max_loss: float = 0.005,
    where: Filter | None = None,
    on_progress: Callable[[int, int], None] | None = None,
) -> Gate:
    """Search every query with and without reasoning, and learn when reasoning was worth its tokens.

    Args:
        embedder: The models that the collection was made with.
        store: The collection, reasoned over.
        queries: Representative queries, 50 or more.
        answers: The source that answers each query. Without them, a query does not need reasoning if both searches
            rank the same point first.
        max_loss: Largest share of queries for which the gate may skip reasoning although it gives a better result.
        where: Which points are searched; needs a tenant where the collection has tenants.
        on_progress: Called with (queries done, all queries).

    Raises:
        InputError: If there are too few queries, not one answer per query, or an answer that the collection lacks.
        UmeError: As `search` does.
    """
    if answers is not None and len(answers) != len(queries):
        raise InputError(f"{len(queries)} queries and {len(answers)} answers", hint="give one answer a query")
    missing = set(answers or ()) - held_sources(store, answers or (), where)
    if missing:
        # No search can find them, so the gate would learn that reasoning never helps.
        raise InputError(
            f"{len(missing)} answers are no source of {store.collection!r}, such as {min(missing)!r}",
            hint="name files as hits do",
        )
    params = SearchParams(limit=1, where=where)
    views, spare = [], []
    for start in range(0, len(queries), TOGETHER):
        some = queries[start : start + TOGETHER]
        pairs = zip(*(embedder.encode_query(some, reasoning=mode) for mode in BOTH), strict=True)
        for index, (direct, reasoned) in enumerate(pairs, start):
            views.append(direct_view(store, direct, params))
            plain, thought = (search_vectors(store, QueryVectors(direct, one), params) for one in (direct, reasoned))
            if answers is None:
                spare.append([hit.point_id for hit in plain] == [hit.point_id for hit in thought])
            else:
                right, right_reasoned = (any(hit.source == answers[index] for hit in hits) for hits in (plain, thought))
                spare.append(right or not right_reasoned)
            if on_progress is not None:
                on_progress(index + 1, len(queries))
    return calibrate(views, spare, embedder=embedder_identity(embedder), max_loss=max_loss)
