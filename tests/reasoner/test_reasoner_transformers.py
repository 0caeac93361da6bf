from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from ume_retrieval import InputError, LoadedItem, Reasoner, Sampling
from ume_retrieval.chat import Chat
from ume_retrieval.engines.transformers.reasoner import TransformersReasoner
from ume_retrieval.tcot import reasoner_chat
from ume_training.shapes.pair.architecture import PROMPTS, REASONER_SPEC

Items = Callable[[int], list[LoadedItem]]
SHORT = Sampling(max_tokens=12)


@pytest.fixture(scope="module")
def reasoner(random_pair: Path) -> TransformersReasoner:
    return TransformersReasoner.from_pretrained(str(random_pair / "reasoner"), spec=REASONER_SPEC, device="cpu")


@pytest.fixture(scope="module")
def chats(shapes_items: Items) -> list[Chat]:
    return [reasoner_chat(item, "query", PROMPTS) for item in shapes_items(11)]


def test_it_is_a_reasoner(reasoner: TransformersReasoner) -> None:
    assert isinstance(reasoner, Reasoner)
    assert reasoner.info.revision.startswith("sha256:")


def test_a_batch_gives_the_replies_of_single_calls(reasoner: TransformersReasoner, chats: list[Chat]) -> None:
    together = [reply.text for reply in reasoner.generate(chats, SHORT)]
    alone = [reasoner.generate([chat], SHORT)[0].text for chat in chats]
    assert together == alone


def test_small_batches_keep_order_and_replies(reasoner: TransformersReasoner, chats: list[Chat]) -> None:
    narrow = TransformersReasoner(
        reasoner.model, reasoner._inputs.processor, info=reasoner.info, spec=reasoner.spec, batch_tokens=60
    )
    assert narrow.generate(chats, SHORT) == reasoner.generate(chats, SHORT)


def test_a_reply_that_is_cut_says_so(reasoner: TransformersReasoner, chats: list[Chat]) -> None:
    replies = reasoner.generate(chats[:4], Sampling(max_tokens=3))
    assert all(reply.completion_tokens <= 3 for reply in replies)
    assert all(reply.completion_tokens == 3 for reply in replies if reply.finish == "length")
    assert any(reply.finish == "length" for reply in replies)


def test_a_seed_repeats_a_sampled_reply_and_another_does_not(reasoner: TransformersReasoner, chats: list[Chat]) -> None:
    def sample(seed: int) -> list[str]:
        sampling = Sampling(max_tokens=12, temperature=1.0, seed=seed)
        return [reply.text for reply in reasoner.generate(chats, sampling)]

    assert sample(1) == sample(1)
    assert sample(1) != sample(2)


def test_sampling_leaves_the_callers_random_stream_alone(reasoner: TransformersReasoner, chats: list[Chat]) -> None:
    import torch

    torch.manual_seed(5)
    untouched = torch.rand(3)
    torch.manual_seed(5)
    reasoner.generate(chats[:1], Sampling(max_tokens=4, temperature=1.0))
    assert torch.equal(torch.rand(3), untouched)


def test_a_long_prompt_is_refused_not_cut(reasoner: TransformersReasoner) -> None:
    item = LoadedItem("red circle " * 3000, (), (), None, "id")
    with pytest.raises(InputError, match="prompt takes"):
        reasoner.generate([reasoner_chat(item, "query", PROMPTS)], SHORT)


def test_no_chats_give_no_replies(reasoner: TransformersReasoner) -> None:
    assert reasoner.generate([], SHORT) == []
