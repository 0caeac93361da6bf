"""Rerankers: a second, more careful look at the first results of a search.

`Reranker` is the protocol. `PairReranker` scores each item with the query by a model that was trained for it;
`TCotReranker` asks a Reasoner which T-CoT fits that of the query.
"""

from ume_retrieval.reranking.base import Known, Reranker, RerankResult
from ume_retrieval.reranking.pairs import PairReranker
from ume_retrieval.reranking.tcot import TCotReranker, rank_by_choice

__all__ = ["Known", "PairReranker", "RerankResult", "Reranker", "TCotReranker", "rank_by_choice"]
