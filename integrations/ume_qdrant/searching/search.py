"""Search: a query as vectors, both rankings fused, and hits with their reasons; blocking or awaited."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from inspect import iscoroutinefunction
from typing import Any

from ume_qdrant.searching.fusion import Grouping
from ume_qdrant.searching.hits import Hit, SearchResult
from ume_qdrant.searching.search_plan import (
    REASONED_WEIGHT,
    AskEncoding,
    AskMeta,
    AskNearest,
    AskPoints,
    Mode,
    QueryReasoning,
    QueryVectors,
    Question,
    Wish,
    plan_ranking,
    plan_search,
)
from ume_qdrant.stores.async_store import AsyncStore
from ume_qdrant.stores.base import USUAL, Store
from ume_qdrant.stores.filters import Filter
from ume_qdrant.stores.layout import Effort
from ume_qdrant.stores.steps import arun, run
from ume_retrieval.errors import InputError
from ume_retrieval.gate import Gate
from ume_retrieval.inputs import Item, Modality
from ume_retrieval.pipeline.embedder import ReasoningEmbedder

__all__ = ["REASONED_WEIGHT", "Mode", "QueryVectors", "asearch", "asearch_vectors", "search", "search_vectors"]


def search(
    embedder: ReasoningEmbedder,
    store: Store,
    item: Item | str,
    *,
    limit: int = 10,
    reasoning: QueryReasoning = "always",
    gate: Gate | None = None,
    mode: Mode = "fused",
    target: Modality | None = None,
    where: Filter | None = None,
    group_by: Grouping = "point",
    diversity: float = 0.0,
    weight: float = REASONED_WEIGHT,
    candidates: int | None = None,
    effort: Effort = USUAL,
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
        reasoning: "always" reasons over the query, "never" embeds it as it is (faster), "auto" asks the gate.
        gate: Decides for `reasoning="auto"`, from what the direct search shows.
        mode: "fused", "direct" (no reasoning on either side) or "reasoned" (finds only what was reasoned over).
        target: What is looked for, when that is known; a text query for a video has a prompt of its own.
        where: Which points count.
        group_by: One hit a point, a moment or a source.
        diversity: Weight of unlikeness among the hits (maximal marginal relevance), 0..1.
        weight: Share of the reasoned score in a fused one, 0..1.
        candidates: Points that each ranking contributes; by default ten times `limit`, at least 100.
        effort: How hard the store looks.

    Raises:
        CollectionNotFound: When there is no such collection.
        StoreMismatch: When it was made with other models or prompts.
        InputError: When `reasoning` is "auto" without a gate, the gate knows another Embedder, or `store` is awaited.
        UmeError: As `ReasoningEmbedder.encode_query` and `Store` do.
    """
    _check(store, awaited=False)
    wish = Wish(limit, where, group_by, diversity, weight, candidates, effort)
    plan = plan_search(embedder, store.collection, item, wish, reasoning=reasoning, mode=mode, target=target, gate=gate)
    return run(plan, answer_with(store, embedder))


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
    effort: Effort = USUAL,
) -> tuple[Hit, ...]:
    """Find what answers a query that is encoded already. Arguments are those of `search`.

    Hits of equal score are ordered by point id, so that results do not depend on the order of writing.
    """
    _check(store, awaited=False)
    wish = Wish(limit, where, group_by, diversity, weight, candidates, effort)
    return run(plan_ranking(query, wish), answer_with(store, None))


async def asearch(
    embedder: ReasoningEmbedder,
    store: AsyncStore,
    item: Item | str,
    *,
    limit: int = 10,
    reasoning: QueryReasoning = "always",
    gate: Gate | None = None,
    mode: Mode = "fused",
    target: Modality | None = None,
    where: Filter | None = None,
    group_by: Grouping = "point",
    diversity: float = 0.0,
    weight: float = REASONED_WEIGHT,
    candidates: int | None = None,
    effort: Effort = USUAL,
) -> SearchResult:
    """`search` without blocking the event loop: the models work in a thread, both rankings are asked for at once."""
    _check(store, awaited=True)
    wish = Wish(limit, where, group_by, diversity, weight, candidates, effort)
    plan = plan_search(embedder, store.collection, item, wish, reasoning=reasoning, mode=mode, target=target, gate=gate)
    return await arun(plan, lambda questions: _answers(questions, store, embedder))


async def asearch_vectors(
    store: AsyncStore,
    query: QueryVectors,
    *,
    limit: int = 10,
    where: Filter | None = None,
    group_by: Grouping = "point",
    diversity: float = 0.0,
    weight: float = REASONED_WEIGHT,
    candidates: int | None = None,
    effort: Effort = USUAL,
) -> tuple[Hit, ...]:
    """`search_vectors` without blocking the event loop."""
    _check(store, awaited=True)
    wish = Wish(limit, where, group_by, diversity, weight, candidates, effort)
    return await arun(plan_ranking(query, wish), lambda questions: _answers(questions, store, None))


def _check(store: Any, *, awaited: bool) -> None:
    """Refuse what is no store, or is one of the other kind, whose answers would fail somewhere deeper."""
    asked = getattr(store, "search", None)
    if asked is None or not hasattr(store, "collection"):
        raise InputError(
            f"a {type(store).__name__} is no store", hint="use open_store, or wrap a Qdrant client in ClientStore"
        )
    if iscoroutinefunction(asked) and not awaited:
        raise InputError("an async store is searched with asearch", hint="use asearch, or open_store")
    if awaited and not iscoroutinefunction(asked):
        raise InputError("asearch needs an async store", hint="use search, or open_async_store")


def answer_with(store: Store, embedder: ReasoningEmbedder | None) -> Callable[[Sequence[Question]], list[Any]]:
    """Answers a plan's questions with blocking calls."""
    return lambda questions: [_answer(question, store, embedder) for question in questions]


def _answer(question: Question, store: Store, embedder: ReasoningEmbedder | None) -> Any:
    match question:
        case AskMeta():
            return store.meta()
        case AskNearest(name, vector, limit, where, effort, fields):
            return store.search(name, vector, limit=limit, where=where, effort=effort, fields=fields)
        case AskPoints(ids, vectors, fields):
            return store.retrieve(ids, vectors=vectors, fields=fields)
        case AskEncoding(item, reasoning, target):
            return _models(embedder).encode_query(item, reasoning=reasoning, target=target, return_traces=True)


async def _answers(questions: Sequence[Question], store: AsyncStore, embedder: ReasoningEmbedder | None) -> list[Any]:
    return await asyncio.gather(*(_aanswer(question, store, embedder) for question in questions))


async def _aanswer(question: Question, store: AsyncStore, embedder: ReasoningEmbedder | None) -> Any:
    match question:
        case AskMeta():
            return await store.meta()
        case AskNearest(name, vector, limit, where, effort, fields):
            return await store.search(name, vector, limit=limit, where=where, effort=effort, fields=fields)
        case AskPoints(ids, vectors, fields):
            return await store.retrieve(ids, vectors=vectors, fields=fields)
        case AskEncoding(item, reasoning, target):
            encode = _models(embedder).aencode_query
            return await encode(item, reasoning=reasoning, target=target, return_traces=True)


def _models(embedder: ReasoningEmbedder | None) -> ReasoningEmbedder:
    if embedder is None:
        raise InputError("a query that is not encoded yet needs models", hint="use search, or encode it first")
    return embedder
