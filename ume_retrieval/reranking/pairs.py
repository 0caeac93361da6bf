"""`PairReranker`: a model reads the query with each item and says how well they fit."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from time import perf_counter

import numpy as np

from ume_retrieval.chat import Pair
from ume_retrieval.checkpoint import ModelInfo
from ume_retrieval.engines.base import PairScorer
from ume_retrieval.engines.families import reranking_pair
from ume_retrieval.engines.outcomes import attempt
from ume_retrieval.errors import ModelError, Stopped, UmeError
from ume_retrieval.inputs import LoadedItem
from ume_retrieval.media.limits import DEFAULT_LIMITS, Limits
from ume_retrieval.pipeline.loading import Input, ItemLoader, as_sequence
from ume_retrieval.pipeline.stages import Call, Failures, StageItem
from ume_retrieval.reranking.base import Known, Reranker, RerankResult, load_query
from ume_retrieval.results import Usage


class PairReranker(Reranker):
    """Scores each item by itself, so that no score depends on the other items.

    Args:
        scorer: The engine.
        limits: Limits on what is decoded.
        allow_remote: Hosts that addresses in items may be fetched from.
    """

    def __init__(
        self, scorer: PairScorer, *, limits: Limits = DEFAULT_LIMITS, allow_remote: Sequence[str] = ()
    ) -> None:
        self.scorer = scorer
        self._loader = ItemLoader(scorer.spec.budget, limits=limits, allow_remote=allow_remote)
        self._lock = threading.Lock()

    @property
    def info(self) -> ModelInfo:
        """Name and revision of the model."""
        return self.scorer.info

    def rerank(
        self,
        query: Input,
        items: Sequence[Input],
        *,
        known: Known | None = None,  # noqa: ARG002  # pairs are scored without T-CoTs
        stopped: threading.Event | None = None,
    ) -> RerankResult:
        """Score items; see `Reranker.rerank`."""
        since = perf_counter()
        asked = load_query(self._loader, query).shown
        reranking_pair(self.scorer.spec, asked, asked)  # a query that cannot be used raises here, not once an item
        several, _ = as_sequence(items)
        call = Call(Failures(strict=False), len(several))
        made = _Scored(np.full(len(several), np.nan, dtype=np.float32))
        for chunk in self._loader.chunks(several, call):
            if stopped is not None and stopped.is_set():
                raise Stopped
            self._score(asked, chunk.items, made, call.failures)
        usage = Usage(
            items=len(several),
            reranker_calls=int(np.isfinite(made.scores).sum()),
            reranked_tokens=made.tokens,
            seconds={"load": call.stats.seconds["load"], "rerank": perf_counter() - since},
        )
        return RerankResult(made.scores, call.failures.in_order(), usage, tuple(sorted(made.shortened)))

    def _score(self, query: LoadedItem, items: Sequence[StageItem], made: _Scored, failures: Failures) -> None:
        pairs: list[tuple[StageItem, Pair]] = []
        for item in items:
            try:
                pairs.append((item, reranking_pair(self.scorer.spec, query, item.shown)))
            except UmeError as error:
                failures.add(error, index=item.index, source=item.source)

        def ask(some: Sequence[tuple[StageItem, Pair]]) -> Sequence[float | UmeError]:
            scored = self.scorer.score_pairs([pair for _, pair in some])
            made.tokens += scored.tokens
            made.shortened += [some[place][0].index for place in scored.shortened]
            return scored.rows

        with self._lock:
            outcomes = attempt(ask, pairs)
        for (item, _), outcome in zip(pairs, outcomes, strict=True):
            if isinstance(outcome, UmeError):
                failures.add(outcome, index=item.index, source=item.source)
            elif not np.isfinite(outcome):
                broken = ModelError("the reranker's score is not finite", hint="try dtype='float32'")
                failures.add(broken, index=item.index, source=item.source)
            else:
                made.scores[item.index] = outcome


@dataclass(slots=True, eq=False)
class _Scored:
    """Scores of a call so far; see `RerankResult`."""

    scores: np.ndarray[tuple[int], np.dtype[np.float32]]
    tokens: int = 0
    shortened: list[int] = field(default_factory=list)
