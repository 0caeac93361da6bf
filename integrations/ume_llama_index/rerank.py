"""`TCotRerank`: reorder candidates by their T-CoTs. `UmeRerank`: by any reranker of the library."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from llama_index.core.bridge.pydantic import Field
from llama_index.core.callbacks.schema import CBEventType, EventPayload
from llama_index.core.instrumentation.events.rerank import ReRankEndEvent, ReRankStartEvent
from llama_index.core.postprocessor.types import BaseNodePostprocessor
from llama_index.core.schema import NodeWithScore, QueryBundle
from llama_index_instrumentation import get_dispatcher
from pydantic import SkipValidation

from ume_llama_index.embedding import UmeEmbedding
from ume_llama_index.events import LeftOutEvent
from ume_llama_index.inputs import item_of_query
from ume_llama_index.nodes import item_of_node, label_of
from ume_retrieval.chat import Chat
from ume_retrieval.engines.base import Sampling
from ume_retrieval.errors import Failure, InputError, ReasoningError, UmeError
from ume_retrieval.inputs import Item, Modality
from ume_retrieval.pipeline.embedder import ReasoningEmbedder
from ume_retrieval.reranking import Reranker, rank_by_choice
from ume_retrieval.tcot.choice import CHOICE_TOKENS, Described
from ume_retrieval.tcot.grammar import render

dispatcher = get_dispatcher(__name__)


class TCotRerank(BaseNodePostprocessor):
    """Asks a Reasoner repeatedly which of the remaining candidates' T-CoTs matches that of the query best.

    The question is that of the process reward (arXiv 2602.13823, section 3.3): the judge sees T-CoTs, no pixels. Each
    question lists the candidates in another order, derived from their text, so that no position has an advantage. If
    the judge chooses none, the rest keeps the retriever's order. Scores are the retriever's.

    Candidates without a T-CoT are reasoned over first; those that cannot be are ranked behind the others.

    Attributes:
        embedding: Its models reason over the query and over candidates without a T-CoT.
        judge: Models whose Reasoner judges; by default those of `embedding`. The bundled `ume-tiny` cannot judge.
        top_n: Most nodes returned, and most questions.
        window: Number of the retriever's best candidates that are judged.
        target: Modality that is searched for, if known.
    """

    embedding: UmeEmbedding = Field(exclude=True)
    judge: ReasoningEmbedder | None = Field(default=None, exclude=True)
    top_n: int = Field(default=5, ge=1)
    window: int = Field(default=20, ge=2)
    target: Modality | None = None

    @classmethod
    def class_name(cls) -> str:
        """Name in serialised form."""
        return "TCotRerank"

    def _postprocess_nodes(
        self, nodes: list[NodeWithScore], query_bundle: QueryBundle | None = None
    ) -> list[NodeWithScore]:
        if query_bundle is None:
            raise InputError("reranking needs the query", hint="pass query_bundle or query_str")
        if not nodes:
            return []
        judge = self.judge or self.embedding.embedder
        name = judge.info.reasoner.name if judge.info.reasoner else ""
        dispatcher.event(ReRankStartEvent(query=query_bundle, nodes=nodes, top_n=self.top_n, model_name=name))
        asked: dict[str, Any] = {
            EventPayload.NODES: nodes,
            EventPayload.MODEL_NAME: name,
            EventPayload.QUERY_STR: query_bundle.query_str,
            EventPayload.TOP_K: self.top_n,
        }
        with self.callback_manager.event(CBEventType.RERANKING, payload=asked) as event:
            wanted = self._tcot_of_query(item_of_query(query_bundle))
            known = self._tcots(nodes[: self.window])
            candidates = {position: Described(tcot) for position, tcot in known.items()}

            def ask(chat: Chat) -> str:
                return judge.ask([chat], Sampling(max_tokens=CHOICE_TOKENS))[0].text

            ranked = rank_by_choice(ask, Described(wanted), candidates, self.top_n)
            rest = [position for position in range(len(nodes)) if position not in ranked]
            best = [nodes[position] for position in [*ranked, *rest]][: self.top_n]
            event.on_end(payload={EventPayload.NODES: best})
        dispatcher.event(ReRankEndEvent(nodes=best))
        return best

    async def _apostprocess_nodes(
        self, nodes: list[NodeWithScore], query_bundle: QueryBundle | None = None
    ) -> list[NodeWithScore]:
        return await self.embedding.workers.run(self._postprocess_nodes, nodes, query_bundle)

    def _tcot_of_query(self, item: Item) -> str:
        target = self.target or self.embedding.target
        [trace] = self.embedding.embedder.trace([item], "query", target=target).traces
        if trace is None:
            raise ReasoningError("the query has no trace", hint="try another Reasoner")
        return render(trace.tcot)

    def _tcots(self, nodes: Sequence[NodeWithScore]) -> dict[int, str]:
        """Return T-CoTs by position; those missing in the metadata are generated in one batch."""
        known: dict[int, str] = {}
        missing: dict[int, Item] = {}
        failures: list[Failure] = []
        for position, one in enumerate(nodes):
            if tcot := one.node.metadata.get("tcot"):
                known[position] = tcot
                continue
            try:
                missing[position] = item_of_node(one.node)
            except UmeError as error:
                failures.append(Failure.of(error, index=position, source=label_of(one.node)))
        if missing:
            positions = list(missing)
            result = self.embedding.embedder.trace(list(missing.values()), "corpus", strict=False)
            known |= {
                position: render(trace.tcot)
                for position, trace in zip(positions, result.traces, strict=True)
                if trace is not None
            }
            failures += [
                replace(failure, index=(at := positions[failure.index]), source=label_of(nodes[at].node))
                for failure in result.failures
            ]
        if failures:
            dispatcher.event(LeftOutEvent.of(failures))
        return dict(sorted(known.items()))


class UmeRerank(BaseNodePostprocessor):
    """Reorders nodes by a `Reranker`; their scores become its own.

    A node that cannot be read keeps the retriever's score behind the others, and a `LeftOutEvent` names it.

    Attributes:
        reranker: Scores the nodes.
        top_n: Most nodes returned.
    """

    reranker: SkipValidation[Reranker] = Field(exclude=True)
    top_n: int = Field(default=5, ge=1)

    @classmethod
    def class_name(cls) -> str:
        """Name in serialised form."""
        return "UmeRerank"

    def _postprocess_nodes(
        self, nodes: list[NodeWithScore], query_bundle: QueryBundle | None = None
    ) -> list[NodeWithScore]:
        if query_bundle is None:
            raise InputError("reranking needs the query", hint="pass query_bundle or query_str")
        if not nodes:
            return []
        name = self.reranker.info.name
        dispatcher.event(ReRankStartEvent(query=query_bundle, nodes=nodes, top_n=self.top_n, model_name=name))
        items: dict[int, Item] = {}
        failures: list[Failure] = []
        for position, one in enumerate(nodes):
            try:
                items[position] = item_of_node(one.node)
            except UmeError as error:
                failures.append(Failure.of(error, index=position, source=label_of(one.node)))
        result = self.reranker.rerank(item_of_query(query_bundle), list(items.values()))
        positions = list(items)
        for failure in result.failures:
            at = positions[failure.index]
            failures.append(replace(failure, index=at, source=label_of(nodes[at].node)))
        if failures:
            dispatcher.event(LeftOutEvent.of(failures))
        left_out = {failure.index for failure in failures}
        ranked = [place for place in result.order if positions[place] not in left_out]
        best = [NodeWithScore(node=nodes[positions[place]].node, score=float(result.scores[place])) for place in ranked]
        best = [*best, *(nodes[position] for position in sorted(left_out))][: self.top_n]
        dispatcher.event(ReRankEndEvent(nodes=best))
        return best

    async def _apostprocess_nodes(
        self, nodes: list[NodeWithScore], query_bundle: QueryBundle | None = None
    ) -> list[NodeWithScore]:
        return await asyncio.to_thread(self._postprocess_nodes, nodes, query_bundle)
