"""Search: encode the query, rank by both vectors, fuse, and return hits with their evidence; blocking or async.

The search is written once, with `await`. Blocking callers run it on a store whose calls return at once.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Sequence
from dataclasses import dataclass, field
from functools import partial
from inspect import iscoroutinefunction
from typing import Any, Final, TypeVar, Unpack

import numpy as np

from ume_qdrant.searching.fusion import Place, diversify, fuse, group
from ume_qdrant.searching.hits import FIELDS, Hit, SearchResult
from ume_qdrant.searching.params import DEFAULT_PARAMS, SearchOptions, SearchParams
from ume_qdrant.searching.reranking import Candidates
from ume_qdrant.stores.async_store import AsyncStore, run_inline
from ume_qdrant.stores.base import VECTORS, Payload, Store, Vector, VectorName
from ume_qdrant.stores.filters import Filter
from ume_qdrant.stores.schema import meta_of
from ume_retrieval.errors import InputError
from ume_retrieval.gate import SHOWN, DirectView
from ume_retrieval.inputs import Item, Modality
from ume_retrieval.pipeline.embedder import ReasoningEmbedder
from ume_retrieval.pipeline.encode_options import ReasoningMode
from ume_retrieval.results import EncodeResult, Trace, Usage

T = TypeVar("T")

PLACE_FIELDS: Final = ("source", "start_s", "end_s")
"""Payload fields that grouping compares."""


@dataclass(frozen=True, slots=True, eq=False)
class QueryVectors:
    """An encoded query.

    Attributes:
        direct: Compared with the `direct` vectors of the corpus; None leaves them out.
        reasoned: Compared with the `reasoned` vectors of the corpus; None leaves them out.

    Raises:
        InputError: If both are None, or one is not an array.
    """

    direct: Vector | None = None
    reasoned: Vector | None = None

    def __post_init__(self) -> None:
        if self.direct is None and self.reasoned is None:
            raise InputError("a query needs a direct or a reasoned vector")
        if any(not isinstance(vector, np.ndarray) for vector in self.named().values()):
            raise InputError("a query's vectors are arrays", hint="write np.asarray(vector, dtype=np.float32)")

    def named(self) -> dict[VectorName, Vector]:
        """Return the vectors that are not None, by name."""
        both: tuple[tuple[VectorName, Vector | None], ...] = (("direct", self.direct), ("reasoned", self.reasoned))
        return {name: vector for name, vector in both if vector is not None}


def search(
    embedder: ReasoningEmbedder,
    store: Store,
    item: Item | str,
    params: SearchParams = DEFAULT_PARAMS,
    **options: Unpack[SearchOptions],
) -> SearchResult:
    """Find what answers a query.

    Args:
        embedder: The models that the collection was made with.
        store: The collection.
        item: The query; a `str` is text.
        params: Settings.
        **options: Settings by keyword, such as `limit=3`; they override those of `params`. See `SearchParams`.

    Raises:
        CollectionNotFound: If the collection does not exist.
        StoreMismatch: If it was made with other models or prompts.
        InputError: If a setting is invalid, the gate belongs to another Embedder, or `store` is async.
        UmeError: As `ReasoningEmbedder.encode_query` and `Store` do.
    """
    _check(store, awaited=False)

    async def encode(mode: ReasoningMode, target: Modality | None) -> EncodeResult:
        return embedder.encode_query(item, reasoning=mode, target=target, return_traces=True)

    params = params.merge(**options)
    found = run_inline(_search(embedder, _Inline(store), encode, params.first_look))
    if params.rerank is None:
        return found
    asked = Candidates.of(found, params)
    second = params.rerank.rerank(item, list(asked.items.values()), known=asked.known)
    return asked.ordered(second, params.limit)


def search_vectors(
    store: Store, query: QueryVectors, params: SearchParams = DEFAULT_PARAMS, **options: Unpack[SearchOptions]
) -> tuple[Hit, ...]:
    """Find what answers an encoded query.

    Settings that need the query itself have no effect: `reasoning`, `gate`, `mode`, `target` and `rerank`.

    Hits of equal score are ordered by point id, so that results do not depend on the order of writing.
    """
    _check(store, awaited=False)
    return run_inline(_rank(_Inline(store), query, params.merge(**options)))


async def asearch(
    embedder: ReasoningEmbedder,
    store: AsyncStore,
    item: Item | str,
    params: SearchParams = DEFAULT_PARAMS,
    **options: Unpack[SearchOptions],
) -> SearchResult:
    """`search` without blocking the event loop: models run in a thread, both rankings are requested concurrently."""
    _check(store, awaited=True)

    async def encode(mode: ReasoningMode, target: Modality | None) -> EncodeResult:
        return await embedder.aencode_query(item, reasoning=mode, target=target, return_traces=True)

    params = params.merge(**options)
    found = await _search(embedder, store, encode, params.first_look)
    if params.rerank is None:
        return found
    asked = Candidates.of(found, params)
    second = await params.rerank.arerank(item, list(asked.items.values()), known=asked.known)
    return asked.ordered(second, params.limit)


async def asearch_vectors(
    store: AsyncStore, query: QueryVectors, params: SearchParams = DEFAULT_PARAMS, **options: Unpack[SearchOptions]
) -> tuple[Hit, ...]:
    """`search_vectors` without blocking the event loop."""
    _check(store, awaited=True)
    return await _rank(store, query, params.merge(**options))


def direct_view(store: Store, direct: Vector, params: SearchParams = DEFAULT_PARAMS) -> DirectView:
    """Return a gate's view of a query: its best hits before reasoning, among those that `params.where` matches."""
    return run_inline(_direct_view(_Inline(store), direct, params))


def embedder_identity(embedder: ReasoningEmbedder) -> str:
    """Return name and revision of an Embedder, as a gate records them."""
    info = embedder.embedder.info
    return f"{info.name}@{info.revision}"


def _check(store: Any, *, awaited: bool) -> None:
    """Raise for an object that is not a store, or a store of the other kind."""
    asked = getattr(store, "search", None)
    if asked is None or not hasattr(store, "collection"):
        raise InputError(
            f"a {type(store).__name__} is not a store", hint="use open_store, or wrap a Qdrant client in ClientStore"
        )
    if iscoroutinefunction(asked) and not awaited:
        raise InputError("an async store is searched with asearch", hint="use asearch, or open_store")
    if awaited and not iscoroutinefunction(asked):
        raise InputError("asearch needs an async store", hint="use search, or open_async_store")


class _Inline(AsyncStore):
    """A blocking store whose calls are made at once, for `run_inline`."""


async def _together(store: AsyncStore, calls: Iterable[Callable[[], Coroutine[Any, Any, T]]]) -> list[T]:
    """Make calls concurrently; one after the other if they block."""
    if isinstance(store, _Inline):
        return [await call() for call in calls]
    return list(await asyncio.gather(*(call() for call in calls)))


async def _search(
    embedder: ReasoningEmbedder,
    store: AsyncStore,
    encode: Callable[[ReasoningMode, Modality | None], Awaitable[EncodeResult]],
    params: SearchParams,
) -> SearchResult:
    """Check the collection, encode the query as far as that can change the result, and rank."""
    gate, mode = (params.gate if params.reasoning == "auto" else None), params.mode
    if gate is not None:
        gate.check(embedder_identity(embedder))
    reason = params.reasoning != "never" and mode != "direct"
    meta = await store.meta()
    meta.check(meta_of(embedder, reasoned=reason), store.collection)
    if mode == "fused" and not meta.reasoner:
        reason = False
    usage = Usage()
    trace: Trace | None = None
    direct: Vector | None = None
    reasoned: Vector | None = None
    if mode != "reasoned" or not reason or gate is not None:
        encoded = await encode("never", params.target)
        direct, usage = encoded.vectors.astype(np.float32), usage + encoded.usage
    if reason and gate is not None and direct is not None:
        reason = gate.needs_reasoning(await _direct_view(store, direct, params))
        usage = usage + Usage(spared=int(not reason))
    if reason:
        encoded = await encode("always", params.target)
        reasoned, usage = encoded.vectors.astype(np.float32), usage + encoded.usage
        trace = encoded.traces[0]
    query = QueryVectors(
        direct=None if mode == "reasoned" else direct,
        reasoned=None if mode == "direct" else direct if reasoned is None else reasoned,
    )
    return SearchResult(await _rank(store, query, params), trace, usage)


async def _direct_view(store: AsyncStore, direct: Vector, params: SearchParams) -> DirectView:
    looks = [
        partial(store.search, name, direct, limit=SHOWN, where=params.where, effort=params.effort, fields=())
        for name in VECTORS
    ]
    hits, hits_reasoned = (tuple((hit.id, hit.score) for hit in answer) for answer in await _together(store, looks))
    return DirectView(direct, hits, hits_reasoned)


async def _rank(store: AsyncStore, query: QueryVectors, params: SearchParams) -> tuple[Hit, ...]:
    """Request candidates until the list is full; fuse, group and diversify them."""
    # Traces are long: candidates are read without them, unless nearly all of them become hits.
    at_once = params.is_plain and len(query.named()) == 1
    grouped = params.group_by != "point"
    wanted = FIELDS if at_once else PLACE_FIELDS if grouped else ()
    # One more than the limit shows whether the last place is tied.
    depth = params.limit + 1 if at_once else params.depth
    while True:
        found = await _candidates(store, query, depth, params, wanted)
        ranked = sorted(found.scores, key=lambda key: (-found.scores[key], key))
        tied = depth < params.depth and len({found.scores[key] for key in ranked[params.limit - 1 :]}) == 1
        if grouped:
            ranked = group(ranked, {key: _place(found.payloads[key]) for key in ranked}, params.group_by)
        if found.exhausted or (len(ranked) >= params.limit and not tied):
            break
        depth = max(4 * depth, params.depth)  # grouping has merged so many that the list is not full
    if params.diversity > 0:
        name: VectorName = "reasoned" if query.direct is None else "direct"
        points = await store.retrieve(ranked, vectors=(name,), fields=())
        vectors = {point.id: point.vectors[name] for point in points if name in point.vectors}
        ranked = [key for key in ranked if key in vectors]
        ranked = diversify(ranked, found.scores, vectors, diversity=params.diversity, limit=params.limit)
    payloads = found.payloads if at_once else await _payloads(store, ranked, params.limit)
    shown = [key for key in ranked if key in payloads]
    return tuple(Hit.of(key, found.scores[key], payloads[key]) for key in shown[: params.limit])


async def _payloads(store: AsyncStore, ranked: Sequence[str], limit: int) -> dict[str, Payload]:
    """Read the payloads of the first `limit` points that still exist."""
    payloads: dict[str, Payload] = {}
    rest = list(ranked)
    while rest and len(payloads) < limit:
        lacking = limit - len(payloads)
        some, rest = rest[:lacking], rest[lacking:]
        payloads |= {point.id: point.payload for point in await store.retrieve(some, fields=FIELDS)}
    return payloads


@dataclass(slots=True)
class _Candidates:
    scores: dict[str, float] = field(default_factory=dict)
    payloads: dict[str, Payload] = field(default_factory=dict)
    exhausted: bool = True


async def _candidates(
    store: AsyncStore, query: QueryVectors, depth: int, params: SearchParams, wanted: tuple[str, ...]
) -> _Candidates:
    """Search with each vector, and score every candidate by both."""
    queries = query.named()
    found = _Candidates()
    scores: dict[VectorName, dict[str, float]] = {}
    effort = params.effort
    looks = [
        partial(store.search, name, vector, limit=depth, where=params.where, effort=effort, fields=wanted)
        for name, vector in queries.items()
    ]
    for name, hits in zip(queries, await _together(store, looks), strict=True):
        scores[name] = {hit.id: hit.score for hit in hits}
        found.payloads |= {hit.id: hit.payload for hit in hits}
        found.exhausted = found.exhausted and len(hits) < depth
    if len(queries) == 1:
        [found.scores] = scores.values()
        return found
    missing = {name: tuple(key for key in found.payloads if key not in scores[name]) for name in queries}
    missing = {name: ids for name, ids in missing.items() if ids}
    tenant = None if params.where is None else params.where.tenant

    def chosen(ids: tuple[str, ...]) -> Filter:
        return Filter(ids=ids, tenant=tenant)

    looks = [
        partial(store.search, name, queries[name], limit=len(ids), where=chosen(ids), effort=effort, fields=())
        for name, ids in missing.items()
    ]
    for name, hits in zip(missing, await _together(store, looks), strict=True):
        scores[name] |= {hit.id: hit.score for hit in hits}
    found.scores = fuse(scores["direct"], scores["reasoned"], params.weight)
    return found


def _place(payload: Payload) -> Place:
    return Place(payload["source"], payload.get("start_s"), payload.get("end_s"))
