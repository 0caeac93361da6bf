"""`TCotReranker`: the process reward's question over items, with their evidence."""

from __future__ import annotations

import re

import numpy as np
import PIL.Image
import pytest

from ume_retrieval import InputError, Item, ReasoningError, TraceCache
from ume_retrieval.chat import Chat, TextPart, images_of
from ume_retrieval.reranking import Known, TCotReranker
from ume_retrieval.tcot.trace import TCot
from ume_retrieval.testing import FakeReasoner, fake_embedder


class Judge(FakeReasoner):
    """Writes T-CoTs as the fake does, and chooses the first candidate that has the wanted word."""

    def __init__(self, word: str) -> None:
        super().__init__(None)
        own = self._answer
        self.questions: list[Chat] = []

        def answer(chat: Chat) -> str:
            text = "".join(part.text for part in chat[0].parts if isinstance(part, TextPart))
            if "numbered candidates" not in text:
                return own(chat)
            self.questions.append(chat)
            listed = re.findall(r"^(\d+)\. (.*)$", text, re.MULTILINE)
            return next((number for number, line in listed if word in line), "none")

        self._answer = answer


def square(colour: str) -> Item:
    return Item(images=(PIL.Image.new("RGB", (64, 64), colour),))


def test_chosen_items_come_first_and_the_rest_keeps_its_order() -> None:
    judge = Judge("green")
    result = TCotReranker(judge).rerank("green", [square("red"), square("blue"), square("green"), "green grass"])
    assert set(result.order[:2]) == {2, 3}
    assert result.order[2:] == [0, 1]
    assert sorted(result.scores.tolist()) == [0.25, 0.5, 0.75, 1.0]
    assert result.scores.dtype == np.float32
    assert (result.usage.reranker_calls, result.usage.reasoner_calls) == (3, 5)
    assert result.usage.reranked_tokens > 0


def test_questions_show_evidence_and_can_do_without() -> None:
    judge = Judge("green")
    TCotReranker(judge, questions=1).score("green", [square("red"), square("green"), "words"])
    assert len(images_of(judge.questions[0])) == 2
    TCotReranker(judge, questions=1, pictures=0).score("green", [square("red"), square("green")])
    assert images_of(judge.questions[1]) == []


def test_known_tcots_and_a_cache_save_calls(tmp_path: object) -> None:
    judge = Judge("blue")
    known = Known(TCot("", "", "blue"), (TCot("", "", "red"), None))
    result = TCotReranker(judge).rerank("blue", ["red thing", "blue thing"], known=known)
    assert result.usage.reasoner_calls == 1
    assert result.order == [1, 0]
    with TraceCache(f"{tmp_path}/traces.db") as cache:
        sharing = TCotReranker.of(fake_embedder(reasoner=judge, cache=cache))
        assert sharing.rerank("blue", ["red thing", "blue thing"]).usage.reasoner_calls == 3
        again = sharing.rerank("blue", ["red thing", "blue thing"])
        assert (again.usage.reasoner_calls, again.usage.cached_traces) == (0, 3)


def test_items_beyond_the_window_follow_unread() -> None:
    judge = Judge("c")
    result = TCotReranker(judge, window=2).rerank("c", ["aaa", "ccc", Item(images=("gone.png",))])
    assert result.order == [1, 0, 2]
    assert not result.failures


def test_an_item_without_a_tcot_has_no_score() -> None:
    judge = Judge("b")
    result = TCotReranker(judge).rerank("b", [Item(images=("gone.png",)), "bbb", "aaa"])
    assert [failure.error for failure in result.failures] == ["media_not_found"]
    assert np.isnan(result.scores[0])
    assert result.order == [1, 2, 0]


def test_what_cannot_be_used_is_said() -> None:
    with pytest.raises(ReasoningError):
        TCotReranker(FakeReasoner(lambda _: "")).score("q", ["a", "b"])
    with pytest.raises(InputError, match="out of range"):
        TCotReranker(FakeReasoner(), window=0)
    with pytest.raises(InputError, match="need a Reasoner"):
        TCotReranker.of(fake_embedder(reasoner=None))
