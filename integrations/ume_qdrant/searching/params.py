"""Settings of a search: one value that Python calls, adapters and the command line share."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import Final, Literal, TypeAlias, TypedDict, Unpack, get_args

from ume_qdrant.searching.fusion import Grouping
from ume_qdrant.stores.filters import Filter
from ume_qdrant.stores.layout import DEFAULT_EFFORT, SearchEffort
from ume_retrieval.errors import InputError
from ume_retrieval.gate import Gate
from ume_retrieval.inputs import Modality
from ume_retrieval.pipeline.encode_options import ReasoningMode
from ume_retrieval.reranking import Reranker

Mode: TypeAlias = Literal["fused", "direct", "reasoned"]
"""Which vectors of the corpus are compared: both, or one kind."""

QueryReasoning: TypeAlias = ReasoningMode | Literal["auto"]
"""Whether the Reasoner is asked about a query: always, never, or if a gate expects a benefit."""

REASONED_WEIGHT: Final = 0.5
"""Default share of the reasoned score in a fused one."""

RERANK_CANDIDATES: Final = 20
"""Points that a reranker looks at unless another number is given."""

CANDIDATES: Final = 100
"""Fewest points that each ranking contributes to fusion."""


class SearchOptions(TypedDict, total=False):
    """Keywords of `search` and `asearch`: the attributes of `SearchParams`."""

    limit: int
    reasoning: QueryReasoning
    gate: Gate | None
    mode: Mode
    target: Modality | None
    where: Filter | None
    group_by: Grouping
    diversity: float
    weight: float
    candidates: int | None
    effort: SearchEffort
    rerank: Reranker | None
    rerank_candidates: int


@dataclass(frozen=True, slots=True)
class SearchParams:
    """Settings of a search.

    `mode` selects vectors of the corpus, `reasoning` those of the query: a query that is not reasoned over is compared
    with both kinds as it is. While nothing in a collection has been reasoned over, queries are not either, because it
    could not change a score.

    Attributes:
        limit: Most hits, >= 1.
        reasoning: "always" reasons over the query, "never" embeds it as it is (faster), "auto" asks the gate.
        gate: Decides for `reasoning="auto"`, from the hits of the direct query.
        mode: "fused", "direct" (no reasoning on either side) or "reasoned" (finds only what was reasoned over).
        target: Modality that is searched for, if known; a text query for a video has its own prompt.
        where: Which points count.
        group_by: One hit per point, moment or source.
        diversity: Weight of dissimilarity among the hits (maximal marginal relevance), 0..1.
        weight: Share of the reasoned score in a fused one, 0..1.
        candidates: Points that each ranking contributes; None is ten times `limit`, at least 100.
        effort: How thoroughly the store searches.
        rerank: Takes a second look at the best candidates and orders them; `search_vectors` ignores it.
        rerank_candidates: Points that it looks at, >= 1; at least `limit`.

    Raises:
        InputError: If a number is out of range, a choice is unknown, or `reasoning="auto"` lacks a gate.

    Example:
        >>> SearchParams(limit=3).merge(mode="direct", diversity=0.5).limit
        3
    """

    limit: int = 10
    reasoning: QueryReasoning = "always"
    gate: Gate | None = None
    mode: Mode = "fused"
    target: Modality | None = None
    where: Filter | None = None
    group_by: Grouping = "point"
    diversity: float = 0.0
    weight: float = REASONED_WEIGHT
    candidates: int | None = None
    effort: SearchEffort = DEFAULT_EFFORT
    rerank: Reranker | None = None
    rerank_candidates: int = RERANK_CANDIDATES

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
        if self.rerank_candidates < 1 or not isinstance(self.rerank, Reranker | None):
            raise InputError(
                "rerank takes a Reranker, and rerank_candidates 1 or more",
                hint="write rerank=Reranker.from_pretrained(name)",
            )
        object.__setattr__(self, "where", self.where and self.where.from_here())
        if self.group_by not in get_args(Grouping):
            raise InputError(f"unknown group_by {self.group_by!r}", hint="use 'point', 'moment' or 'source'")
        if self.mode not in get_args(Mode) or self.reasoning not in {*get_args(ReasoningMode), "auto"}:
            raise InputError(
                f"unknown mode {self.mode!r} or reasoning {self.reasoning!r}",
                hint="mode is 'fused', 'direct' or 'reasoned', reasoning is 'always', 'never' or 'auto'",
            )
        if self.reasoning == "auto" and self.gate is None:
            raise InputError("reasoning='auto' needs a gate", hint="make one with `ume gate` or calibrate_gate")

    def merge(self, **options: Unpack[SearchOptions]) -> SearchParams:
        """Return a copy with some values replaced.

        Raises:
            InputError: If an option is unknown.
        """
        known = [one.name for one in fields(self)]
        if unknown := options.keys() - known:
            raise InputError(
                f"search takes no {', '.join(sorted(unknown))}", hint=f"it takes {', '.join(known)} (limit is how many)"
            )
        return replace(self, **options)

    @property
    def depth(self) -> int:
        """Points that each ranking contributes."""
        return max(CANDIDATES, 10 * self.limit) if self.candidates is None else max(self.candidates, self.limit)

    @property
    def first_look(self) -> SearchParams:
        """The settings of the search that finds what is reranked; these ones without a reranker."""
        return self if self.rerank is None else replace(self, limit=max(self.limit, self.rerank_candidates))

    @property
    def is_plain(self) -> bool:
        """Whether the store's order is final, so that a single ranking only has to return the hits themselves."""
        return self.candidates is None and self.group_by == "point" and not self.diversity


DEFAULT_PARAMS: Final = SearchParams()
