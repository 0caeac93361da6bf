"""How a search goes: which vectors of the query are needed, what the store is asked, how its answers become hits.

The plans are generators (`ume_qdrant.stores.steps`): `search.py` runs them with blocking calls or with awaited ones.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Literal, TypeAlias, TypeVar, get_args

import numpy as np

from ume_qdrant.searching.fusion import Grouping, Place, diversify, fuse, group
from ume_qdrant.searching.hits import FIELDS, Hit, SearchResult
from ume_qdrant.stores.base import USUAL, Payload, Point, Scored, Vector, VectorName
from ume_qdrant.stores.filters import Filter
from ume_qdrant.stores.layout import Effort
from ume_qdrant.stores.schema import CollectionMeta, meta_of
from ume_retrieval.errors import InputError
from ume_retrieval.gate import SHOWN, DirectView, Gate
from ume_retrieval.inputs import Item, Modality
from ume_retrieval.pipeline.embedder import ReasoningEmbedder
from ume_retrieval.pipeline.encode_options import ReasoningMode
from ume_retrieval.results import EncodeResult, Trace, Usage

T = TypeVar("T")

Mode: TypeAlias = Literal["fused", "direct", "reasoned"]
"""Which vectors of the corpus are compared: both, or one kind alone."""

QueryReasoning: TypeAlias = ReasoningMode | Literal["auto"]
"""Whether the Reasoner is asked about a query: always, never, or where a gate finds that it pays."""

REASONED_WEIGHT: Final = 0.5
"""Default share of the reasoned score in a fused one."""

CANDIDATES: Final = 100
"""Least points that each ranking contributes to fusion."""

PLACE_FIELDS: Final = ("source", "start_s", "end_s")
"""Payload fields that tell where a point lies, for grouping."""


@dataclass(frozen=True, slots=True, eq=False)
class QueryVectors:
    """A query, encoded.

    Attributes:
        direct: Compared with the corpus' `direct` vectors; None leaves them out.
        reasoned: Compared with the corpus' `reasoned` vectors; None leaves them out.

    Raises:
        InputError: When there is neither, or one is no array.
    """

    direct: Vector | None = None
    reasoned: Vector | None = None

    def __post_init__(self) -> None:
        if self.direct is None and self.reasoned is None:
            raise InputError("a query needs a direct or a reasoned vector")
        if any(not isinstance(vector, np.ndarray) for vector in self.named().values()):
            raise InputError("a query's vectors are arrays", hint="write np.asarray(vector, dtype=np.float32)")

    def named(self) -> dict[VectorName, Vector]:
        """The vectors that there are, by name."""
        both: tuple[tuple[VectorName, Vector | None], ...] = (("direct", self.direct), ("reasoned", self.reasoned))
        return {name: vector for name, vector in both if vector is not None}


@dataclass(frozen=True, slots=True)
class Wish:
    """What hits are wanted; see `ume_qdrant.search` for each.

    Raises:
        InputError: When a number is out of range or a choice is unknown.
    """

    limit: int = 10
    where: Filter | None = None
    group_by: Grouping = "point"
    diversity: float = 0.0
    weight: float = REASONED_WEIGHT
    candidates: int | None = None
    effort: Effort = USUAL

    def __post_init__(self) -> None:
        if self.limit < 1 or not 0 <= self.weight <= 1 or not 0 <= self.diversity <= 1:
            raise InputError(
                f"limit {self.limit}, weight {self.weight}, diversity {self.diversity}: out of range",
                hint="limit is at least 1, weight and diversity lie between 0 and 1",
            )
        if self.where is not None and not isinstance(self.where, Filter):
            raise InputError(
                f"where takes a Filter of ume_qdrant, not a {type(self.where).__name__}",
                hint="write Filter(kinds=…, under=…)",
            )
        object.__setattr__(self, "where", self.where and self.where.from_here())
        if self.group_by not in get_args(Grouping):
            raise InputError(f"unknown group_by {self.group_by!r}", hint="use 'point', 'moment' or 'source'")

    @property
    def depth(self) -> int:
        """Points that each ranking contributes."""
        return max(CANDIDATES, 10 * self.limit) if self.candidates is None else max(self.candidates, self.limit)

    @property
    def is_plain(self) -> bool:
        """Whether the store's own order is final, so that a single ranking needs no more than the hits themselves."""
        return self.candidates is None and self.group_by == "point" and not self.diversity


@dataclass(frozen=True, slots=True)
class AskMeta:
    """What was the collection made with?"""


@dataclass(frozen=True, slots=True)
class AskEncoding:
    """What are the query's vector and trace?"""

    item: Item | str
    reasoning: ReasoningMode
    target: Modality | None


@dataclass(frozen=True, slots=True, eq=False)
class AskNearest:
    """Which points are nearest?"""

    name: VectorName
    vector: Vector
    limit: int
    where: Filter | None
    effort: Effort
    fields: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class AskPoints:
    """What do these points hold?"""

    ids: tuple[str, ...]
    vectors: tuple[VectorName, ...] = ()
    fields: tuple[str, ...] = ()


Question: TypeAlias = AskMeta | AskEncoding | AskNearest | AskPoints
Plan: TypeAlias = Generator[Sequence[Question], Any, T]
"""Asks several questions at a time, which may be answered in any order, and gets the list of their answers."""


def plan_search(
    embedder: ReasoningEmbedder,
    collection: str,
    item: Item | str,
    wish: Wish,
    *,
    reasoning: QueryReasoning,
    mode: Mode,
    target: Modality | None,
    gate: Gate | None,
) -> Plan[SearchResult]:
    """Check the collection, encode the query as far as that can change something, and rank."""
    if mode not in get_args(Mode) or reasoning not in {*get_args(ReasoningMode), "auto"}:
        raise InputError(
            f"unknown mode {mode!r} or reasoning {reasoning!r}",
            hint="mode is 'fused', 'direct' or 'reasoned', reasoning is 'always', 'never' or 'auto'",
        )
    if reasoning == "auto":
        if gate is None:
            raise InputError("reasoning='auto' needs a gate", hint="make one with `ume gate` or calibrate_gate")
        gate.check(embedder_identity(embedder))
    reason = reasoning != "never" and mode != "direct"
    meta: CollectionMeta
    [meta] = yield [AskMeta()]
    meta.check(meta_of(embedder, reasoned=reason), collection)
    if mode == "fused" and not meta.reasoner:
        reason = False
    usage = Usage()
    trace: Trace | None = None
    direct: Vector | None = None
    reasoned: Vector | None = None
    encoded: EncodeResult
    if mode != "reasoned" or not reason or reasoning == "auto":
        [encoded] = yield [AskEncoding(item, "never", target)]
        direct, usage = encoded.vectors.astype(np.float32), usage + encoded.usage
    if reason and gate is not None and direct is not None and reasoning == "auto":
        view = yield from plan_look(direct, wish)
        reason = gate.needs_reasoning(view)
        usage = usage + Usage(spared=int(not reason))
    if reason:
        [encoded] = yield [AskEncoding(item, "always", target)]
        reasoned, usage = encoded.vectors.astype(np.float32), usage + encoded.usage
        trace = encoded.traces[0]
    query = QueryVectors(
        direct=None if mode == "reasoned" else direct,
        reasoned=None if mode == "direct" else direct if reasoned is None else reasoned,
    )
    hits = yield from plan_ranking(query, wish)
    return SearchResult(hits, trace, usage)


def embedder_identity(embedder: ReasoningEmbedder) -> str:
    """Name and revision of an Embedder, as a gate knows it."""
    info = embedder.embedder.info
    return f"{info.name}@{info.revision}"


def plan_look(direct: Vector, wish: Wish) -> Plan[DirectView]:
    """What a query shows before it is reasoned over: its best hits among both kinds of vectors."""
    names: tuple[VectorName, ...] = ("direct", "reasoned")
    answers: list[list[Scored]] = yield [AskNearest(name, direct, SHOWN, wish.where, wish.effort) for name in names]
    hits, hits_reasoned = (tuple((hit.id, hit.score) for hit in answer) for answer in answers)
    return DirectView(direct, hits, hits_reasoned)


def plan_ranking(query: QueryVectors, wish: Wish) -> Plan[tuple[Hit, ...]]:
    """Ask for candidates until the list is full, fuse, group, and pass over twins."""
    # Traces are long: candidates come without them, unless nearly all of them are hits.
    at_once = wish.is_plain and len(query.named()) == 1
    grouped = wish.group_by != "point"
    fields = FIELDS if at_once else PLACE_FIELDS if grouped else ()
    # One more than is wanted shows whether the last place is shared.
    depth = wish.limit + 1 if at_once else wish.depth
    while True:
        found = yield from _candidates(query, depth, wish, fields)
        ranked = sorted(found.scores, key=lambda key: (-found.scores[key], key))
        shared = depth < wish.depth and len({found.scores[key] for key in ranked[wish.limit - 1 :]}) == 1
        if grouped:
            ranked = group(ranked, {key: _place(found.payloads[key]) for key in ranked}, wish.group_by)
        if found.exhausted or (len(ranked) >= wish.limit and not shared):
            break
        depth = max(4 * depth, wish.depth)  # grouping has folded so many that the rest does not fill the list
    if wish.diversity > 0:
        name: VectorName = "reasoned" if query.direct is None else "direct"
        points: list[Point]
        [points] = yield [AskPoints(tuple(ranked), vectors=(name,))]
        vectors = {point.id: point.vectors[name] for point in points if name in point.vectors}
        ranked = [key for key in ranked if key in vectors]
        ranked = diversify(ranked, found.scores, vectors, diversity=wish.diversity, limit=wish.limit)
    payloads = found.payloads if at_once else (yield from _payloads(ranked, wish.limit))
    shown = [key for key in ranked if key in payloads]
    return tuple(Hit.of(key, found.scores[key], payloads[key]) for key in shown[: wish.limit])


def _payloads(ranked: Sequence[str], limit: int) -> Plan[dict[str, Payload]]:
    """What hits are made of, of the first points that are still there."""
    payloads: dict[str, Payload] = {}
    rest = list(ranked)
    while rest and len(payloads) < limit:
        lacking = limit - len(payloads)
        some, rest = rest[:lacking], rest[lacking:]
        points: list[Point]
        [points] = yield [AskPoints(tuple(some), fields=FIELDS)]
        payloads |= {point.id: point.payload for point in points}
    return payloads


@dataclass(slots=True)
class _Found:
    scores: dict[str, float] = field(default_factory=dict)
    payloads: dict[str, Payload] = field(default_factory=dict)
    exhausted: bool = True


def _candidates(query: QueryVectors, depth: int, wish: Wish, fields: tuple[str, ...]) -> Plan[_Found]:
    queries = query.named()
    found = _Found()
    scores: dict[VectorName, dict[str, float]] = {}
    answers: list[list[Scored]] = yield [
        AskNearest(name, vector, depth, wish.where, wish.effort, fields) for name, vector in queries.items()
    ]
    for name, hits in zip(queries, answers, strict=True):
        scores[name] = {hit.id: hit.score for hit in hits}
        found.payloads |= {hit.id: hit.payload for hit in hits}
        found.exhausted = found.exhausted and len(hits) < depth
    if len(queries) == 1:
        [found.scores] = scores.values()
        return found
    missing = {name: tuple(key for key in found.payloads if key not in scores[name]) for name in queries}
    missing = {name: ids for name, ids in missing.items() if ids}
    answers = yield [
        AskNearest(name, queries[name], len(ids), Filter(ids=ids), wish.effort) for name, ids in missing.items()
    ]
    for name, hits in zip(missing, answers, strict=True):
        scores[name] |= {hit.id: hit.score for hit in hits}
    found.scores = fuse(scores["direct"], scores["reasoned"], wish.weight)
    return found


def _place(payload: Payload) -> Place:
    return Place(payload["source"], payload.get("start_s"), payload.get("end_s"))
