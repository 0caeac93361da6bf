"""One bad item never loses its batch; strict mode raises its own error."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ume_retrieval import (
    Frames,
    InputError,
    Item,
    MediaError,
    ModelError,
    ReasoningEmbedder,
    ReasoningError,
    Sampling,
    TraceCache,
    UmeError,
)
from ume_retrieval.chat import Chat, TextPart
from ume_retrieval.engines.base import Embeddings, Generation, PartialEmbeddings
from ume_retrieval.pipeline.reasoning import ASKED_AT_ONCE
from ume_retrieval.testing import FakeReasoner, HashEmbedder, fake_embedder


def said(chat: Chat) -> str:
    return " ".join(part.text for message in chat for part in message.parts if isinstance(part, TextPart))


class Refusing(HashEmbedder):
    """Refuses every batch that has a chat with one of these words."""

    def __init__(self, *words: str, retryable: bool = False) -> None:
        super().__init__()
        self.words = words
        self.retryable = retryable
        self.batches = 0

    def embed(self, chats: Sequence[Chat]) -> Embeddings:
        self.batches += 1
        for chat in chats:
            if any(word in said(chat) for word in self.words):
                raise InputError("too long", hint="shorten it", retryable=self.retryable)
        return super().embed(chats)


class SomeRefusing(HashEmbedder):
    """Refuses chats with this word and keeps the others."""

    def __init__(self, word: str) -> None:
        super().__init__()
        self.word = word

    def embed(self, chats: Sequence[Chat]) -> Embeddings:
        return self.embed_partial(chats).complete(self.dimension)

    def embed_partial(self, chats: Sequence[Chat]) -> PartialEmbeddings:
        made = super().embed([chat for chat in chats if self.word not in said(chat)])
        rows = iter(made.vectors)
        outcomes = [InputError("too long") if self.word in said(chat) else next(rows) for chat in chats]
        return PartialEmbeddings(outcomes, made.tokens)


def mute_on(word: str) -> FakeReasoner:
    """Writes nothing when the word is asked about."""
    canonical = FakeReasoner()

    def answer(chat: Chat) -> str:
        return "" if word in said(chat) else canonical.generate([chat], Sampling())[0].text

    return FakeReasoner(answer)


def test_broken_media_strikes_its_own_item_only(tmp_path: Path) -> None:
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"\x89PNG\r\n\x1a\n cut off")
    items = ["a cat", Item(images=(broken,)), Item(images=(tmp_path / "missing.png",)), "a dog"]
    embedder = fake_embedder()
    result = embedder.encode_corpus(items, strict=False, return_traces=True)
    assert [(failure.index, failure.source) for failure in result.failures] == [
        (1, str(broken)),
        (2, str(tmp_path / "missing.png")),
    ]
    assert [failure.error for failure in result.failures] == ["broken_media", "media_not_found"]
    assert np.isnan(result.vectors[1:3]).all()
    np.testing.assert_array_equal(result.vectors[[0, 3]], embedder.encode_corpus(["a cat", "a dog"]))
    assert [trace is None for trace in result.traces] == [False, True, True, False]
    with pytest.raises(MediaError) as raised:
        embedder.encode_corpus(items)
    assert raised.value.__notes__ == [f"input 1 ({broken})"]


@settings(max_examples=25, deadline=None)
@given(bad=st.sets(st.integers(0, 8)), chunk_items=st.integers(1, 10))
def test_every_failed_row_is_nan_and_named_and_no_other(bad: set[int], chunk_items: int) -> None:
    items = ["" if number in bad else f"thing {number}" for number in range(9)]
    embedder = fake_embedder(chunk_items=chunk_items)
    result = embedder.encode_query(items, strict=False, return_traces=True)
    assert {failure.index for failure in result.failures} == bad
    assert set(np.flatnonzero(np.isnan(result.vectors).any(axis=1)).tolist()) == bad


def test_an_unusable_trace_is_a_failure_and_never_a_direct_vector() -> None:
    engine = HashEmbedder()
    embedder = ReasoningEmbedder(engine, mute_on("mute"))
    result = embedder.encode_query(["loud", "mute", "mute"], strict=False, return_traces=True)
    assert [(failure.index, failure.error) for failure in result.failures] == [
        (1, "reasoning_error"),
        (2, "reasoning_error"),
    ]
    assert all(failure.hint for failure in result.failures)
    assert engine.calls == 1
    assert result.usage.trace_problems["empty_answer"] == 2
    with pytest.raises(ReasoningError):
        embedder.encode_query(["loud", "mute"])


@pytest.mark.parametrize("kept", [True, False])
@pytest.mark.parametrize("chunk_items", [1, 9])
def test_an_unusable_reply_is_asked_for_once_in_a_call_and_again_in_the_next(
    tmp_path: Path, chunk_items: int, *, kept: bool
) -> None:
    cache = TraceCache(tmp_path / "traces.sqlite3") if kept else None
    reasoner = mute_on("mute")
    embedder = fake_embedder(reasoner=reasoner, cache=cache, chunk_items=chunk_items)
    result = embedder.encode_query(["mute", "loud", "mute"], strict=False, return_traces=True)
    assert [failure.index for failure in result.failures] == [0, 2]
    assert (reasoner.calls, result.usage.reasoner_calls, result.usage.cached_traces) == (2, 2, 1)
    better = FakeReasoner()
    embedder = fake_embedder(reasoner=better, cache=cache, chunk_items=chunk_items)
    result = embedder.encode_query(["mute", "loud"], strict=False, return_traces=True)
    assert result.failures == ()
    assert better.calls == (1 if kept else 2)


def test_what_was_reasoned_before_a_strict_failure_is_kept(tmp_path: Path) -> None:
    cache = TraceCache(tmp_path / "traces.sqlite3")
    with pytest.raises(ReasoningError):
        fake_embedder(reasoner=mute_on("mute"), cache=cache).encode_query(["loud", "mute"])
    again = mute_on("mute")
    fake_embedder(reasoner=again, cache=cache).encode_query(["loud"])
    assert again.calls == 0


def test_a_chat_that_the_engine_refuses_costs_the_others_nothing() -> None:
    engine = Refusing("long", "huge")
    texts = [f"thing {number}" for number in range(14)]
    texts[3], texts[11] = "long", "huge"
    result = ReasoningEmbedder(engine).encode_corpus(texts, reasoning="never", strict=False, return_traces=True)
    assert [(failure.index, failure.message, failure.hint) for failure in result.failures] == [
        (3, "too long", "shorten it"),
        (11, "too long", "shorten it"),
    ]
    assert np.isfinite(np.delete(result.vectors, [3, 11], axis=0)).all()
    assert result.usage.embedder_calls == engine.calls == 12
    with pytest.raises(InputError, match="too long"):
        ReasoningEmbedder(engine).encode_corpus(texts, reasoning="never")


@pytest.mark.parametrize("at_once", [True, False])
def test_a_strict_error_of_an_engine_names_the_input(*, at_once: bool) -> None:
    """Whether the engine refuses the whole batch or keeps the others, and of two bad ones the first."""

    class Naming(FakeReasoner):
        def replies(self, chats: Sequence[Chat], sampling: Sampling) -> Iterator[tuple[int, Generation | UmeError]]:
            if at_once and any("long" in said(chat) for chat in chats):
                raise InputError("too long")
            for position, chat in enumerate(chats):
                is_long = "long" in said(chat)
                yield position, InputError(said(chat)) if is_long else super().generate([chat], sampling)[0]

    texts = ["long thing" if number in {4, 6} else f"thing {number}" for number in range(8)]
    with pytest.raises(InputError) as raised:
        fake_embedder(reasoner=Naming()).encode_corpus(texts)
    assert raised.value.__notes__ == ["input 4"]
    engine = Refusing("long") if at_once else SomeRefusing("long")
    with pytest.raises(InputError, match="too long") as raised:
        ReasoningEmbedder(engine).encode_corpus(texts, reasoning="never")
    assert raised.value.__notes__ == ["input 4"]
    assert engine.calls <= 6  # nothing behind the culprit's half is tried


def test_a_strict_call_asks_no_more_after_a_refusal() -> None:
    class Picky(FakeReasoner):
        def generate(self, chats: Sequence[Chat], sampling: Sampling) -> list[Generation]:
            if any("long" in said(chat) for chat in chats):
                raise InputError("too long")
            return super().generate(chats, sampling)

    reasoner = Picky()
    texts = ["long", *(f"thing {number}" for number in range(3 * ASKED_AT_ONCE))]
    with pytest.raises(InputError):
        fake_embedder(reasoner=reasoner).encode_corpus(texts)
    assert reasoner.calls == 0


def test_what_strikes_all_alike_names_no_input_in_a_strict_call() -> None:
    engine = Refusing("thing", retryable=True)
    with pytest.raises(InputError) as raised:
        ReasoningEmbedder(engine).encode_corpus(["a thing", "another thing"], reasoning="never")
    assert not getattr(raised.value, "__notes__", [])
    assert engine.batches == 1


def test_answers_beside_failures_are_counted() -> None:
    engine = SomeRefusing("long")
    texts = ["a", "b", "long", "c"]
    result = ReasoningEmbedder(engine).encode_corpus(texts, reasoning="never", strict=False, return_traces=True)
    assert [failure.index for failure in result.failures] == [2]
    assert (result.usage.embedder_calls, result.usage.embedded_tokens) == (3, 3)


def test_what_may_pass_later_is_not_searched_for_a_culprit() -> None:
    engine = Refusing("thing", retryable=True)
    texts = [f"thing {number}" for number in range(8)]
    result = ReasoningEmbedder(engine).encode_corpus(texts, reasoning="never", strict=False, return_traces=True)
    assert engine.batches == 1
    assert len(result.failures) == 8
    assert all(failure.retryable for failure in result.failures)


def test_a_chat_that_the_reasoner_refuses_is_left_out_with_its_twins() -> None:
    class Picky(FakeReasoner):
        def generate(self, chats: Sequence[Chat], sampling: Sampling) -> list[Generation]:
            if any("long" in said(chat) for chat in chats):
                raise InputError("too long")
            return super().generate(chats, sampling)

    reasoner = Picky()
    result = fake_embedder(reasoner=reasoner).encode_query(
        ["a", "long", "b", "long", "a"], strict=False, return_traces=True
    )
    assert [failure.index for failure in result.failures] == [1, 3]
    assert (result.usage.reasoner_calls, result.usage.cached_traces) == (2, 1)


def test_a_vector_that_is_no_number_is_refused() -> None:
    class Overflowing(HashEmbedder):
        def embed(self, chats: Sequence[Chat]) -> Embeddings:
            embeddings = super().embed(chats)
            embeddings.vectors[1, 0] = np.inf
            return embeddings

    embedder = ReasoningEmbedder(Overflowing())
    result = embedder.encode_query(["a", "b", "c"], reasoning="never", strict=False, return_traces=True)
    assert [(failure.index, failure.error) for failure in result.failures] == [(1, "model_error")]
    assert np.isnan(result.vectors[1]).all()


@pytest.mark.parametrize("precision", ["int8", "uint8", "binary", "ubinary"])
def test_failed_rows_are_zero_where_there_is_no_nan(precision: Any) -> None:
    vectors = fake_embedder(reasoner=None).encode_query(
        ["a", "", "c"], reasoning="never", strict=False, precision=precision
    )
    assert not vectors[1].any()
    assert vectors[0].any()
    assert vectors[2].any()


def test_an_engine_that_loses_count_is_caught() -> None:
    class Losing(FakeReasoner):
        def generate(self, chats: Sequence[Chat], sampling: Sampling) -> list[Generation]:
            return super().generate(chats, sampling)[:-1]

    class Flat(HashEmbedder):
        def embed(self, chats: Sequence[Chat]) -> Embeddings:
            return Embeddings(super().embed(chats).vectors[:, :3], 1)

    with pytest.raises(ModelError, match="0 replies to 1 chats"):
        fake_embedder(reasoner=Losing()).encode_query(["a", "b"])
    with pytest.raises(ModelError, match="shape"):
        ReasoningEmbedder(Flat()).encode_query(["a", "b"], reasoning="never")


@pytest.mark.parametrize("wrong", [7, None, b"bytes", {"text": "a"}, Path("cat.png"), object()])
def test_an_input_of_another_type_is_refused_with_a_hint(wrong: Any) -> None:
    embedder = fake_embedder(reasoner=None)
    with pytest.raises(InputError) as alone:
        embedder.encode_query(wrong, reasoning="never")
    result = embedder.encode_query(["a", wrong], reasoning="never", strict=False, return_traces=True)
    assert alone.value.hint
    assert [(failure.index, failure.error) for failure in result.failures] == [(1, "invalid_input")]


@pytest.mark.parametrize(
    ("sizes", "times", "duration_s"),
    [
        (((64, 64), (96, 32)), (0.0, 1.0), 2.0),
        (((64, 64), (64, 64)), (0.0, float("nan")), 2.0),
        (((64, 64), (64, 64)), (0.0, 1.0), float("inf")),
    ],
)
def test_frames_that_no_model_takes_strike_their_own_item_only(
    sizes: tuple[tuple[int, int], ...], times: tuple[float, ...], duration_s: float
) -> None:
    frames = Frames(tuple(PIL.Image.new("RGB", size) for size in sizes), times, duration_s)
    items: list[Any] = ["a cat", frames, "a dog"]
    embedder = fake_embedder()
    result = embedder.encode_corpus(items, strict=False, return_traces=True)
    assert [(failure.index, failure.error) for failure in result.failures] == [(1, "invalid_input")]
    np.testing.assert_array_equal(result.vectors[[0, 2]], embedder.encode_corpus(["a cat", "a dog"]))
    with embedder.stream_corpus(iter(items)) as stream:
        assert [one.failure is None for one in stream] == [True, False, True]


@pytest.mark.parametrize(
    "options",
    [
        {"reasoning": "auto"},
        {"reasoning": "sometimes"},
        {"precision": "int4"},
        {"truncate_dim": 0},
        {"truncate_dim": 65},
        {"truncate_dim": 1.5},
        {"truncate_dim": 8.0},
        {"truncate_dim": "8"},
        {"truncate_dim": True},
        {"target": "sound"},
    ],
)
def test_arguments_are_checked_before_any_work(options: dict[str, Any]) -> None:
    engine, reasoner = HashEmbedder(), FakeReasoner()
    with pytest.raises(InputError) as raised:
        ReasoningEmbedder(engine, reasoner).encode_query(["a"], **options)
    assert raised.value.hint
    assert engine.calls == reasoner.calls == 0


def test_reasoning_without_a_reasoner_says_how_to_get_one() -> None:
    embedder = fake_embedder(reasoner=None)
    for call in (embedder.encode_query, embedder.encode_corpus, lambda items: embedder.trace(items, "query")):
        with pytest.raises(InputError) as raised:
            call(["a"])
        assert "reasoning='never'" in raised.value.hint
    with pytest.raises(InputError):
        fake_embedder().trace(["a"], "sideways")  # type: ignore[arg-type]
    with pytest.raises(InputError):
        fake_embedder(reasoner=None, chunk_items=0)


def test_a_remote_address_fails_unnamed_because_it_may_carry_a_key() -> None:
    item = Item(images=("https://someone:secret@example.org/cat.png?token=secret",))
    result = fake_embedder(reasoner=None).encode_query([item], reasoning="never", strict=False, return_traces=True)
    [failure] = result.failures
    assert failure.error == "remote_not_allowed"
    assert "secret" not in failure.message + failure.hint + failure.source


def test_a_bug_in_an_engine_is_not_swallowed() -> None:
    class Buggy(HashEmbedder):
        def embed(self, chats: Sequence[Chat]) -> Embeddings:
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        ReasoningEmbedder(Buggy()).encode_query(PIL.Image.new("RGB", (8, 8)), reasoning="never", strict=False)
