"""`TCotRerank`: the process reward's question over retrieved nodes; `UmeRerank`: any reranker."""

from __future__ import annotations

import random
import re
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from llama_index.core.callbacks import CallbackManager, CBEventType, LlamaDebugHandler
from llama_index.core.instrumentation.events.rerank import ReRankEndEvent, ReRankStartEvent
from llama_index.core.schema import ImageNode, NodeWithScore, QueryBundle, TextNode
from llama_world import embedding, listening
from small_media import GREEN, RED, picture

from ume_llama_index import LeftOutEvent, MediaQuery, TCotRerank, UmeRerank
from ume_retrieval import InputError, ReasoningEmbedder
from ume_retrieval.chat import Chat, Pair, TextPart
from ume_retrieval.checkpoint import ModelInfo, RerankerSpec
from ume_retrieval.engines.base import PairScores
from ume_retrieval.reranking import PairReranker
from ume_retrieval.testing import FakeReasoner, fake_embedder
from ume_training.egrl import Question, WordsDiscriminator
from ume_training.egrl.process import choice_prompt


def prompt_of(chat: Chat) -> str:
    [part] = chat[0].parts
    assert isinstance(part, TextPart)
    return part.text


def by_words(chat: Chat) -> str:
    """Judges as training's words discriminator does, from the prompt alone."""
    described, *candidates = re.findall(r"^(?:Description: |\d+\. )(.*)$", prompt_of(chat), re.MULTILINE)
    [best] = WordsDiscriminator().choose([Question(described, tuple(candidates), frozenset())])
    assert best is not None
    return str(best + 1)


def judge(answer: object = by_words) -> ReasoningEmbedder:
    return fake_embedder(reasoner=FakeReasoner(answer))  # type: ignore[arg-type]


def tcot(answer: str) -> str:
    return f"<thinking>x</thinking><rethink>y</rethink><answer>{answer}</answer>"


def nodes(*answers: str) -> list[NodeWithScore]:
    return [
        NodeWithScore(node=TextNode(text=answer, metadata={"tcot": tcot(answer)}), score=1 - i / 10)
        for i, answer in enumerate(answers)
    ]


def test_the_judge_decides_and_scores_stay() -> None:
    found = nodes("blue star", "red circle small", "green ring", "red circle")
    rerank = TCotRerank(embedding=embedding(), judge=judge(), top_n=2)
    best = rerank.postprocess_nodes(found, query_str="red circle")
    assert [one.text for one in best] == ["red circle", "red circle small"]
    assert [one.score for one in best] == [found[3].score, found[1].score]


def test_the_question_is_that_of_training() -> None:
    asked = judge()
    TCotRerank(embedding=embedding(), judge=asked, top_n=1).postprocess_nodes(nodes("red", "blue"), query_str="red")
    [chat] = asked.reasoner.chats  # type: ignore[union-attr]
    [described, *listed] = re.findall(r"^(?:Description: |\d+\. )(.*)$", prompt_of(chat), re.MULTILINE)
    assert set(listed) == {tcot("red"), tcot("blue")}
    assert prompt_of(chat) == choice_prompt(Question(described, tuple(listed), frozenset()))


def test_the_order_of_the_list_does_not_follow_the_retriever() -> None:
    """A judge that always says 1 must not hand the retriever's order back."""
    first = judge(lambda _: "1")
    answers = [f"thing {n}" for n in range(10)]
    best = TCotRerank(embedding=embedding(), judge=first, top_n=10).postprocess_nodes(
        nodes(*answers), query_str="thing"
    )
    assert sorted(one.text for one in best) == sorted(answers)
    assert [one.text for one in best] != answers
    shuffled = answers[:]
    random.Random(1).shuffle(shuffled)
    again = TCotRerank(embedding=embedding(), judge=first, top_n=10).postprocess_nodes(
        nodes(*shuffled), query_str="thing"
    )
    assert [one.text for one in again] == [one.text for one in best]


def test_without_an_answer_the_retrievers_order_stays() -> None:
    silent = judge(lambda _: "none of them")
    found = nodes("a", "b", "c")
    best = TCotRerank(embedding=embedding(), judge=silent, top_n=2).postprocess_nodes(found, query_str="c")
    assert [one.text for one in best] == ["a", "b"]
    assert silent.reasoner.calls == 1  # type: ignore[union-attr]


def test_nodes_without_a_tcot_are_reasoned_over_and_bad_ones_go_last(tmp_path: Path) -> None:
    found = [
        NodeWithScore(node=ImageNode(id_="gone", image_path=str(tmp_path / "gone.png")), score=0.9),
        NodeWithScore(node=ImageNode(id_="green", image_path=str(picture(tmp_path / "g.png", GREEN))), score=0.8),
        NodeWithScore(node=ImageNode(id_="red", image_path=str(picture(tmp_path / "r.png", RED))), score=0.7),
    ]
    with listening() as ear:
        best = TCotRerank(embedding=embedding(), judge=judge(), top_n=3).postprocess_nodes(
            found, QueryBundle("", image_path=str(tmp_path / "r.png"))
        )
    assert [one.node_id for one in best] == ["red", "green", "gone"]
    [event] = ear.of(LeftOutEvent)
    assert [failure["source"] for failure in event.failures] == ["gone"]


def test_events_of_both_kinds(tmp_path: Path) -> None:
    handler = LlamaDebugHandler(print_trace_on_end=False)
    rerank = TCotRerank(embedding=embedding(), judge=judge(), top_n=1, callback_manager=CallbackManager([handler]))
    query = MediaQuery("red", images=[picture(tmp_path / "r.png", RED)])
    with listening() as ear:
        rerank.postprocess_nodes(nodes("red", "blue"), query)
    [start], [end] = ear.of(ReRankStartEvent), ear.of(ReRankEndEvent)
    assert (start.top_n, start.model_name, len(start.nodes), len(end.nodes)) == (1, "fake-reasoner", 2, 1)
    assert start.query.images == query.images
    assert len(handler.get_event_pairs(CBEventType.RERANKING)) == 1


async def test_async_and_what_it_refuses() -> None:
    rerank = TCotRerank(embedding=embedding(), judge=judge(), top_n=1)
    [best] = await rerank.apostprocess_nodes(nodes("blue", "red"), query_str="red")
    assert best.text == "red"
    assert rerank.postprocess_nodes([], query_str="red") == []
    with pytest.raises(InputError, match="query"):
        rerank.postprocess_nodes(nodes("red"))
    bare = fake_embedder(reasoner=None)
    with pytest.raises(InputError, match="Reasoner"):
        TCotRerank(embedding=embedding(), judge=bare).postprocess_nodes(nodes("a", "b"), query_str="red")
    assert "judge" not in rerank.to_dict()
    assert "embedding" not in rerank.to_dict()


@settings(max_examples=20)
@given(st.lists(st.text(min_size=1), min_size=1, max_size=8), st.text(max_size=30), st.integers(1, 8))
def test_every_node_comes_once_whatever_is_said(answers: list[str], reply: str, top_n: int) -> None:
    found = nodes(*answers)
    rerank = TCotRerank(embedding=embedding(), judge=judge(lambda _: reply), top_n=top_n, window=4)
    best = rerank.postprocess_nodes(found, query_str="query")
    assert len(best) == min(top_n, len(found))
    assert len({one.node_id for one in best}) == len(best)
    assert {one.node_id for one in best} <= {one.node_id for one in found}


class Overlap:
    """Scores a pair by the words that both sides share."""

    info = ModelInfo("overlap", "1", "fake")
    spec = RerankerSpec(family="cross-encoder")

    def score_pairs(self, pairs: Sequence[Pair]) -> PairScores:
        def words(parts: object) -> set[str]:
            assert isinstance(parts, tuple)
            return {word for part in parts if isinstance(part, TextPart) for word in part.text.split()}

        return PairScores([float(len(words(pair.query) & words(pair.document))) for pair in pairs])


async def test_any_reranker_orders_nodes(tmp_path: Path) -> None:
    gone = NodeWithScore(node=ImageNode(image_path=str(tmp_path / "gone.png")), score=0.3)
    found = [gone, *nodes("blue star", "red circle small", "red")]
    rerank = UmeRerank(reranker=PairReranker(Overlap()), top_n=4)
    with listening() as ear:
        best = rerank.postprocess_nodes(found, query_str="red circle")
    assert [one.node.get_content() for one in best[:3]] == ["red circle small", "red", "blue star"]
    assert [one.score for one in best] == [2, 1, 0, 0.3]
    [left_out] = ear.of(LeftOutEvent)
    assert [failure["index"] for failure in left_out.failures] == [0]
    assert await rerank.apostprocess_nodes(found, query_str="red circle") == best
    assert rerank.postprocess_nodes([], query_str="red") == []
    with pytest.raises(InputError, match="needs the query"):
        rerank.postprocess_nodes(found)
