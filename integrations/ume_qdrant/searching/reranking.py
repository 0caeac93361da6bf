"""The second look: candidates of a search in the order of a reranker."""

from __future__ import annotations

import math
from dataclasses import replace

from ume_qdrant.searching.hits import SearchResult
from ume_qdrant.searching.params import SearchParams
from ume_retrieval.inputs import Item
from ume_retrieval.reranking import Known, RerankResult


def candidates_of(found: SearchResult, params: SearchParams) -> tuple[list[Item], Known]:
    """Return the media of the hits, and the T-CoTs that are known of query and hits."""
    query = None if found.query_trace is None else found.query_trace.tcot
    return [hit.item for hit in found.hits], Known(query, tuple(hit.trace for hit in found.hits), params.target)


def reranked(found: SearchResult, second: RerankResult, limit: int) -> SearchResult:
    """Order the hits of a search by a reranker's scores.

    Args:
        found: The first search.
        second: Scores of its hits.
        limit: Most hits that are kept.
    """
    scores = [float(score) for score in second.scores]
    hits = [
        replace(found.hits[place], rerank_score=None if math.isnan(scores[place]) else scores[place])
        for place in second.order
    ]
    failures = tuple(replace(one, source=found.hits[one.index].source) for one in second.failures)
    usage = found.usage + replace(second.usage, items=0)
    return replace(found, hits=tuple(hits[:limit]), usage=usage, failures=failures)
