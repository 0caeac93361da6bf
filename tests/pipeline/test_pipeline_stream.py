"""A corpus as a stream: the vectors of one call, bounded memory, and no loss when it is interrupted."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ume_retrieval import InputError, Item, ModelError, ReasoningEmbedder, Sampling, TraceCache
from ume_retrieval.chat import Chat
from ume_retrieval.engines.base import Generation, SupportsStreaming
from ume_retrieval.pipeline import InMemoryTraceCache
from ume_retrieval.pipeline.trace_cache import TraceRecord
from ume_retrieval.testing import FakeReasoner, HashEmbedder, fake_embedder


class StreamingReasoner(FakeReasoner):
    """Hands out replies one by one, last chat first, and calls `then` after each."""

    def __init__(self) -> None:
        super().__init__()
        self.given = 0

    def then(self) -> None:
        pass

    def replies(self, chats: Sequence[Chat], sampling: Sampling) -> Iterator[tuple[int, Generation]]:
        for position in reversed(range(len(chats))):
            [reply] = self.generate([chats[position]], sampling)
            self.given += 1
            yield position, reply
            self.then()


@given(count=st.integers(0, 20), chunk_items=st.integers(1, 6), bad=st.sets(st.integers(0, 19)))
def test_a_stream_gives_the_vectors_and_traces_of_one_call(count: int, chunk_items: int, bad: set[int]) -> None:
    texts = ["" if n in bad else f"thing {n}" for n in range(count)]
    embedder = fake_embedder(chunk_items=chunk_items)
    whole = embedder.encode_corpus(texts, strict=False, return_traces=True)
    with embedder.stream_corpus(iter(texts)) as stream:
        found = list(stream)
        assert stream.usage.items == count
    assert [one.index for one in found] == list(range(count))
    for one, vector, trace in zip(found, whole.vectors, whole.traces, strict=True):
        if one.index in bad:
            assert one.vector is None
            assert one.failure is not None
            assert one.failure.index == one.index
        else:
            assert one.vector is not None
            assert one.trace is not None
            assert trace is not None
            np.testing.assert_array_equal(one.vector, vector)
            assert one.trace.tcot == trace.tcot


def test_the_corpus_is_drawn_as_it_is_needed() -> None:
    drawn = 0

    def corpus() -> Iterator[str]:
        nonlocal drawn
        for n in range(100_000):
            drawn = n + 1
            yield f"thing {n}"

    embedder = fake_embedder(reasoner=None, chunk_items=8)
    with embedder.stream_corpus(corpus(), reasoning="never") as stream:
        results = iter(stream)
        for _ in range(40):
            next(results)
        time.sleep(0.2)
    # Two stages, two queues and the chunk in use; some more inputs are begun by the decoders.
    assert drawn <= 40 + 8 * 6 + 16


def test_stages_overlap() -> None:
    """The Embedder is at the first chunk while the Reasoner is at the second: each waits for the other."""
    both = threading.Barrier(2, timeout=20)

    class Waiting(HashEmbedder):
        def embed(self, chats: Sequence[Chat]) -> object:  # type: ignore[override]
            if not self.chats:
                both.wait()
            return super().embed(chats)

    class WaitingReasoner(FakeReasoner):
        def generate(self, chats: Sequence[Chat], sampling: Sampling) -> list[Generation]:
            if self.chats and len(self.chats) == 4:
                both.wait()
            return super().generate(chats, sampling)

    embedder = ReasoningEmbedder(Waiting(), WaitingReasoner(), chunk_items=4)
    assert embedder.encode_corpus([f"thing {n}" for n in range(8)]).shape == (8, 64)


def test_rates_and_progress_tell_of_every_stage() -> None:
    seen: list[tuple[int, int, str]] = []
    embedder = fake_embedder(chunk_items=3)
    texts = [f"thing {n}" for n in range(7)]
    progress = lambda done, total, stage: seen.append((done, total, stage))  # noqa: E731
    with embedder.stream_corpus(iter(texts), total=7, on_progress=progress) as stream:
        list(stream)
        assert stream.rates.keys() == {"load", "reason", "embed"}
        assert min(stream.rates.values()) > 0
    assert [entry for entry in seen if entry[2] == "embed"] == [(n, 7, "embed") for n in (3, 6, 7)]


def test_files_are_decoded_ahead_and_keep_their_places(tmp_path: Path) -> None:
    items: list[Item] = []
    for n in range(30):
        path = tmp_path / f"{n}.png"
        if n % 7 == 3:
            path.write_bytes(b"no picture")
        else:
            PIL.Image.new("RGB", (64, 64), (n * 8, 0, 255 - n * 8)).save(path)
        items.append(Item(images=(path,)))
    embedder = fake_embedder(reasoner=None, chunk_items=4)
    with embedder.stream_corpus(items, reasoning="never") as stream:
        found = list(stream)
    assert [one.index for one in found if one.failure] == [3, 10, 17, 24]
    for one in found:
        if one.vector is not None:
            alone = embedder.encode_corpus([items[one.index]], reasoning="never")[0]
            np.testing.assert_array_equal(one.vector, alone)


def test_replies_that_are_handed_out_one_by_one_find_their_chats() -> None:
    reasoner = StreamingReasoner()
    assert isinstance(reasoner, SupportsStreaming)
    texts = [f"thing {n}" for n in range(9)]
    streamed = fake_embedder(reasoner=reasoner).encode_corpus(texts, return_traces=True)
    whole = fake_embedder().encode_corpus(texts, return_traces=True)
    np.testing.assert_array_equal(streamed.vectors, whole.vectors)
    assert streamed.usage.reasoner_calls == reasoner.calls == 9
    assert streamed.usage.completion_tokens == whole.usage.completion_tokens


def test_an_engine_that_hands_out_too_little_is_named() -> None:
    class Forgetful(StreamingReasoner):
        def replies(self, chats: Sequence[Chat], sampling: Sampling) -> Iterator[tuple[int, Generation]]:
            yield from list(super().replies(chats, sampling))[1:]

    with pytest.raises(ModelError, match="replies"):
        fake_embedder(reasoner=Forgetful()).encode_corpus(["a", "b"])


def test_an_interrupt_keeps_every_finished_trace(tmp_path: Path) -> None:
    """The reader is interrupted while a chunk is half written: what is written is kept, and is not asked for again."""
    reached = threading.Event()

    class Slow(StreamingReasoner):
        def then(self) -> None:
            if self.given == 7:
                reached.set()
            time.sleep(0.01 if self.given < 7 else 0.1)

    cache = TraceCache(tmp_path / "traces.sqlite3")
    texts = [f"thing {n}" for n in range(60)]
    first = Slow()

    def reader() -> None:
        with fake_embedder(reasoner=first, cache=cache, chunk_items=4).stream_corpus(texts) as stream:
            next(iter(stream))
            reached.wait(20)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        reader()
    assert 4 < first.given < 60
    assert len(cache) == first.given
    second = FakeReasoner()
    fake_embedder(reasoner=second, cache=cache).encode_corpus(texts)
    assert second.calls == 60 - first.given


@pytest.mark.parametrize("wrong", [None, 5, b"bytes", {"text": "a"}, Path("cat.png")])
def test_what_gives_no_inputs_is_refused_at_once(wrong: Any) -> None:
    with pytest.raises(InputError) as raised:
        fake_embedder(reasoner=None).stream_corpus(wrong, reasoning="never")
    assert raised.value.hint


def test_traces_in_memory_are_bounded_and_the_last_ones_asked_for_stay() -> None:
    memory = InMemoryTraceCache(most=3)
    records = {key: TraceRecord(key, 1, 1, "stop", "fake") for key in "abcd"}
    memory.put_many({key: records[key] for key in "abc"})
    assert memory.get_many("a") == {"a": records["a"]}
    memory.put_many({"d": records["d"]})
    assert memory.get_many("abcd") == {key: records[key] for key in "acd"}


def test_a_single_input_is_one_input() -> None:
    embedder = fake_embedder(reasoner=None)
    for one in ("red circle", Item(text="red circle")):
        with embedder.stream_corpus(one, reasoning="never") as stream:
            assert [found.index for found in stream] == [0]
