"""The second look: candidates of a search in the order of a reranker."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from ume_qdrant.searching.hits import SearchResult
from ume_qdrant.searching.params import SearchParams
from ume_retrieval.errors import Failure, UmeError
from ume_retrieval.inputs import Item
from ume_retrieval.reranking import Known, RerankResult


@dataclass(frozen=True, slots=True, eq=False)
class Candidates:
    """What a reranker is asked about a search.

    Attributes:
        found: The search.
        items: Media of its hits, by the hit's place; those of a hit may be gone.
        known: T-CoTs of the query and of `items`.
        failures: Hits without media, by their place.
    """

    found: SearchResult
    items: dict[int, Item]
    known: Known
    failures: tuple[Failure, ...]

    @classmethod
    def of(cls, found: SearchResult, params: SearchParams) -> Candidates:
        """Collect the media of the hits of a search."""
        items: dict[int, Item] = {}
        failures: list[Failure] = []
        for place, hit in enumerate(found.hits):
            try:
                items[place] = hit.item
            except UmeError as error:
                failures.append(Failure.of(error, index=place, source=hit.source))
        query = None if found.query_trace is None else found.query_trace.tcot
        known = Known(query, tuple(found.hits[place].trace for place in items), params.target)
        return cls(found, items, known, tuple(failures))

    def ordered(self, second: RerankResult, limit: int) -> SearchResult:
        """Return the search with its hits ordered by the scores of `items`; hits without a score come last.

        Args:
            second: The reranker's result for `items`.
            limit: Most hits that are kept.
        """
        places, hits = list(self.items), list(self.found.hits)
        failures = [*self.failures]
        for failure in second.failures:
            place = places[failure.index]
            failures.append(replace(failure, index=place, source=hits[place].source))
        scores = {place: float(score) for place, score in zip(places, second.scores, strict=True)}
        scored = [place for place in (places[one] for one in second.order) if not math.isnan(scores[place])]
        rest = [place for place in range(len(hits)) if place not in {*scored}]
        ordered = [replace(hits[place], rerank_score=scores[place]) for place in scored]
        return replace(
            self.found,
            hits=(*ordered, *(hits[place] for place in rest))[:limit],
            usage=self.found.usage + replace(second.usage, items=0),
            failures=tuple(sorted(failures, key=lambda failure: failure.index)),
        )
