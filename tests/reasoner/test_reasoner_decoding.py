"""Generation in slots gives what `generate` of Hugging Face gives, in whatever company."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from ume_retrieval import InputError, LoadedItem, Sampling
from ume_retrieval.chat import Chat, Message, TextPart
from ume_retrieval.engines.base import Generation, SupportsStreaming
from ume_retrieval.engines.registry import resolve_reasoner
from ume_retrieval.engines.resize import fit_chat
from ume_retrieval.engines.transformers.reasoner import TransformersReasoner
from ume_retrieval.tcot import reasoner_chat
from ume_training.shapes.pair.architecture import PROMPTS, REASONER_SPEC

Items = Callable[[int], list[LoadedItem]]


@pytest.fixture(scope="module")
def bundled() -> TransformersReasoner:
    """It knows when a reply ends, as random weights do not."""
    model = str(resolve_reasoner("ume-tiny").model)
    return TransformersReasoner.from_pretrained(model, spec=REASONER_SPEC, device="cpu")


@pytest.fixture(scope="module")
def chats(shapes_items: Items) -> list[Chat]:
    return [reasoner_chat(item, "corpus", PROMPTS) for item in shapes_items(5)]


@pytest.fixture(scope="module")
def expected(bundled: TransformersReasoner, chats: list[Chat]) -> list[Generation]:
    """From Hugging Face's own loop."""
    return bundled._generate_batch([fit_chat(chat, REASONER_SPEC.budget) for chat in chats], Sampling(max_tokens=160))


@pytest.mark.parametrize("tokens", [1, 1024, 65_536])
def test_greedy_replies_are_those_of_generate_whatever_the_slots(
    bundled: TransformersReasoner, chats: list[Chat], expected: list[Generation], tokens: int
) -> None:
    some = slice(0, 4) if tokens == 1 else slice(None)
    narrow = TransformersReasoner(
        bundled.model, bundled._inputs.processor, info=bundled.info, spec=bundled.spec, batch_tokens=tokens
    )
    assert narrow.generate(chats[some], Sampling(max_tokens=160)) == expected[some]
    assert len({reply.completion_tokens for reply in expected}) > 3


def test_replies_to_prompts_that_begin_alike_are_those_of_generate(bundled: TransformersReasoner) -> None:
    told = "find the scene of this description: "
    words = ("a red circle", "a blue star left of a green cross", "two", "a red circle and a yellow square")
    chats: list[Chat] = [(Message("user", (TextPart(told + text),)),) for text in words]
    fitted = [fit_chat(chat, REASONER_SPEC.budget) for chat in chats]
    assert bundled._inputs.rows(bundled._inputs.write(fitted)).shared > 5
    sampling = Sampling(max_tokens=60)
    assert bundled.generate(chats, sampling) == bundled._generate_batch(fitted, sampling)


def test_short_replies_are_handed_out_before_long_ones(bundled: TransformersReasoner, chats: list[Chat]) -> None:
    assert isinstance(bundled, SupportsStreaming)
    replies = list(bundled.replies(chats, Sampling(max_tokens=160)))
    assert sorted(position for position, _ in replies) == list(range(len(chats)))
    counts = [reply.completion_tokens for _, reply in replies]
    assert counts[0] < counts[-1]


def test_a_sampled_reply_does_not_depend_on_its_company(bundled: TransformersReasoner, chats: list[Chat]) -> None:
    sampling = Sampling(max_tokens=40, temperature=1.0, top_p=0.9, seed=3)
    # Two of words and four of pictures, which are asked with the same words.
    some = [*[one for one in chats if len(one[0].parts) == 1][:2], *[one for one in chats if len(one[0].parts) > 1][:4]]
    together = bundled.generate(some, sampling)
    assert [bundled.generate([chat], sampling)[0] for chat in some] == together
    assert bundled.generate(some[::-1], sampling)[::-1] == together


def test_almost_no_mass_is_greedy(bundled: TransformersReasoner, chats: list[Chat]) -> None:
    narrow = Sampling(max_tokens=30, temperature=1.0, top_p=1e-6, seed=1)
    assert bundled.generate(chats[:6], narrow) == bundled.generate(chats[:6], Sampling(max_tokens=30))


def test_a_form_is_refused(bundled: TransformersReasoner, chats: list[Chat]) -> None:
    with pytest.raises(InputError, match="form"):
        bundled.generate(chats[:1], Sampling(max_tokens=8, response_format="tcot"))


def test_a_model_that_wants_more_than_sampling_is_left_to_its_own_generate(
    random_pair: Path, chats: list[Chat]
) -> None:
    reasoner = TransformersReasoner.from_pretrained(str(random_pair / "reasoner"), spec=REASONER_SPEC, device="cpu")
    assert reasoner._in_slots
    reasoner.model.generation_config.no_repeat_ngram_size = 1
    penalised = TransformersReasoner(reasoner.model, reasoner._inputs.processor, info=reasoner.info, spec=reasoner.spec)
    assert not penalised._in_slots
    sampling = Sampling(max_tokens=12)
    assert penalised.generate(chats[:3], sampling) != reasoner.generate(chats[:3], sampling)
