"""Several replicas as one: the same vectors and replies, shared work, nothing lost when one breaks."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ume_retrieval import Embedder, InputError, LoadedItem, ModelError, Reasoner, ReasoningEmbedder, Sampling, UmeError
from ume_retrieval.chat import Chat, Message, TextPart
from ume_retrieval.engines.base import Embeddings, Generation, PartialEmbeddings, SupportsStreaming
from ume_retrieval.engines.load import LoadOptions, choose_engine
from ume_retrieval.engines.registry import resolve_embedder
from ume_retrieval.engines.replicas import ReplicatedEmbedder, ReplicatedReasoner, devices_of
from ume_retrieval.testing import FakeReasoner, HashEmbedder, fake_embedder

GREEDY = Sampling(max_tokens=64)


def texts(count: int) -> list[Chat]:
    return [(Message("user", (TextPart(f"thing {number}"),)),) for number in range(count)]


class Slow(HashEmbedder):
    def __init__(self, seconds: float) -> None:
        super().__init__()
        self.seconds, self.seen = seconds, 0

    def embed(self, chats: Sequence[Chat]) -> Embeddings:
        time.sleep(self.seconds)
        self.seen += len(chats)
        return super().embed(chats)


def is_refused(chat: Chat) -> bool:
    return chat[-1].parts == (TextPart("thing 7"),)


class Picky(HashEmbedder):
    """Refuses a call with one chat."""

    def embed(self, chats: Sequence[Chat]) -> Embeddings:
        if any(map(is_refused, chats)):
            raise InputError("too long")
        return super().embed(chats)


class PartlyPicky(HashEmbedder):
    """Refuses one chat and keeps the others; each costs two tokens."""

    def embed_partial(self, chats: Sequence[Chat]) -> PartialEmbeddings:
        vectors = super().embed(chats).vectors
        rows = [InputError("too long") if is_refused(chat) else row for chat, row in zip(chats, vectors, strict=True)]
        return PartialEmbeddings(rows, 2 * sum(not isinstance(row, InputError) for row in rows))


@given(st.integers(0, 100), st.integers(1, 4))
def test_rows_keep_their_order(count: int, replicas: int) -> None:
    one, several = HashEmbedder(), ReplicatedEmbedder([HashEmbedder() for _ in range(replicas)])
    assert isinstance(several, Embedder)
    np.testing.assert_array_equal(several.embed(texts(count)).vectors, one.embed(texts(count)).vectors)


def test_a_slow_replica_gets_less() -> None:
    slow, fast = Slow(0.1), Slow(0.001)
    ReplicatedEmbedder([slow, fast]).embed(texts(80))
    assert slow.seen + fast.seen == 80
    assert 0 < slow.seen < fast.seen


@pytest.mark.parametrize("kind", [Picky, PartlyPicky])
def test_a_refused_item_is_named_and_the_others_stay(kind: type[HashEmbedder]) -> None:
    embedder = ReasoningEmbedder(ReplicatedEmbedder([kind(), kind()]))
    result = embedder.encode_corpus(
        [f"thing {n}" for n in range(40)], reasoning="never", strict=False, return_traces=True
    )
    plain = fake_embedder(reasoner=None).encode_corpus([f"thing {n}" for n in range(40)], reasoning="never")
    failed = [failure.index for failure in result.failures]
    assert failed == [7]
    kept = [row for row in range(40) if row not in failed]
    np.testing.assert_array_equal(result.vectors[kept], plain[kept])


def test_replies_stream_from_all_replicas() -> None:
    one, several = FakeReasoner(), ReplicatedReasoner([FakeReasoner() for _ in range(3)])
    assert isinstance(several, Reasoner)
    assert isinstance(several, SupportsStreaming)
    chats = texts(50)
    assert several.generate(chats, GREEDY) == one.generate(chats, GREEDY)
    assert sorted(position for position, _ in several.replies(chats, GREEDY)) == list(range(50))
    assert several.generate([], GREEDY) == []


class PickyStream(FakeReasoner):
    """Refuses the last of 33 chats and one in the middle, and keeps the others."""

    bad = (texts(33)[20], texts(33)[32])

    def replies(self, chats: Sequence[Chat], sampling: Sampling) -> Iterator[tuple[int, Generation | UmeError]]:
        for position, chat in enumerate(chats):
            yield position, InputError("too long") if chat in self.bad else self.generate([chat], sampling)[0]


def test_chats_that_replicas_refuse_are_named_and_the_replies_to_others_stay() -> None:
    """One of them is alone in its piece, where it is refused by itself."""
    several = ReplicatedReasoner([PickyStream(), PickyStream()])
    outcomes = dict(several.replies(texts(33), GREEDY))
    whole = FakeReasoner().generate(texts(33), GREEDY)
    assert sorted(outcomes) == list(range(33))
    for position, reply in enumerate(whole):
        outcome = outcomes[position]
        assert isinstance(outcome, InputError) if position in {20, 32} else outcome == reply
    with pytest.raises(InputError, match="too long"):
        several.generate(texts(33), GREEDY)
    with pytest.raises(InputError):
        several.generate(texts(33)[32:], GREEDY)
    result = fake_embedder(reasoner=several).encode_corpus(
        [f"thing {n}" for n in range(33)], strict=False, return_traces=True
    )
    assert [failure.index for failure in result.failures] == [20, 32]
    assert result.usage.reasoner_calls == 31


class PickyReasoner(FakeReasoner):
    """Refuses a call with one of the chats."""

    def generate(self, chats: Sequence[Chat], sampling: Sampling) -> list[Generation]:
        if any(chat in PickyStream.bad for chat in chats):
            raise InputError("too long")
        return super().generate(chats, sampling)


def test_replicas_that_refuse_whole_calls_lose_nothing_in_the_pipeline() -> None:
    several = ReplicatedReasoner([PickyReasoner(), PickyReasoner()])
    with pytest.raises(InputError):
        several.generate(texts(33)[32:], GREEDY)
    result = fake_embedder(reasoner=several).encode_corpus(
        [f"thing {n}" for n in range(33)], strict=False, return_traces=True
    )
    assert [failure.index for failure in result.failures] == [20, 32]
    assert result.usage.reasoner_calls == 31


def test_an_embedders_replicas_tell_what_the_others_cost() -> None:
    several = ReplicatedEmbedder([PartlyPicky() for _ in range(2)])
    assert several.embed_partial(texts(40)).tokens == 2 * 39
    made = several.embed_partial([*texts(7), texts(10)[9], texts(8)[7]])  # alone in its piece
    assert [isinstance(row, InputError) for row in made.rows] == [False] * 8 + [True]
    with pytest.raises(InputError):
        several.embed(texts(8)[7:])


def test_a_broken_replica_is_an_error_and_leaves_no_thread() -> None:
    class Broken(FakeReasoner):
        def generate(self, chats: Sequence[Chat], sampling: Sampling) -> list[Generation]:
            raise ModelError("out of memory")

    class Patient(FakeReasoner):
        def generate(self, chats: Sequence[Chat], sampling: Sampling) -> list[Generation]:
            time.sleep(0.05)  # long enough for the other to take its share
            return super().generate(chats, sampling)

    several = ReplicatedReasoner([Patient(), Broken()])
    with pytest.raises(UmeError, match="out of memory"):
        several.generate(texts(60), GREEDY)
    stream = several.replies(texts(60), GREEDY)
    next(stream, None)
    stream.close()  # type: ignore[attr-defined]  # a generator
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("replica")]


def test_two_devices_give_the_vectors_of_one(shapes_items: Callable[[int], list[LoadedItem]]) -> None:
    items = shapes_items(60)
    two = ReasoningEmbedder.from_pretrained("ume-tiny", device="cpu,cpu", cache=None)
    one = ReasoningEmbedder.from_pretrained("ume-tiny", device="cpu", cache=None)
    assert isinstance(two.embedder, ReplicatedEmbedder)
    ours = two.encode_corpus(items, return_traces=True, strict=False)
    theirs = one.encode_corpus(items, return_traces=True, strict=False)
    assert [trace and trace.tcot for trace in ours.traces] == [trace and trace.tcot for trace in theirs.traces]
    np.testing.assert_allclose(ours.vectors, theirs.vectors, atol=2e-6)
    assert two.info == one.info


def test_names_of_devices() -> None:
    assert devices_of(" cpu , cpu") == ("cpu", "cpu")
    assert devices_of("") == ("auto",)
    with pytest.raises(InputError, match=r"cuda:7|found none"):
        choose_engine().load_embedder(resolve_embedder("ume-tiny"), LoadOptions(device="cpu,cuda:7"))
