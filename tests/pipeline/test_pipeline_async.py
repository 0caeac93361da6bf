"""Async twins: the loop goes on, and the engines are never entered twice."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from ume_retrieval import InputError, ReasoningEmbedder, Sampling, TraceCache
from ume_retrieval.chat import Chat
from ume_retrieval.engines.base import Embeddings, Generation
from ume_retrieval.errors import Stopped
from ume_retrieval.pipeline.reasoning import ASKED_AT_ONCE
from ume_retrieval.testing import FakeReasoner, HashEmbedder, fake_embedder


class OneAtATime:
    """Notices when two threads are inside."""

    def __init__(self) -> None:
        self.inside = 0
        self.crowded = False

    def __enter__(self) -> None:
        self.inside += 1
        self.crowded = self.crowded or self.inside > 1
        time.sleep(0.005)

    def __exit__(self, *_: object) -> None:
        self.inside -= 1


class SlowReasoner(FakeReasoner):
    def __init__(self) -> None:
        super().__init__()
        self.door = OneAtATime()

    def generate(self, chats: Sequence[Chat], sampling: Sampling) -> list[Generation]:
        with self.door:
            return super().generate(chats, sampling)


class SlowEmbedder(HashEmbedder):
    def __init__(self) -> None:
        super().__init__()
        self.door = OneAtATime()
        self.threads: set[int] = set()

    def embed(self, chats: Sequence[Chat]) -> Embeddings:
        self.threads.add(threading.get_ident())
        with self.door:
            return super().embed(chats)


async def test_concurrent_calls_give_what_single_calls_give() -> None:
    reasoner, engine = SlowReasoner(), SlowEmbedder()
    embedder = ReasoningEmbedder(engine, reasoner)
    texts = [[f"thing {number}", f"another {number}"] for number in range(12)]
    queries, corpora = await asyncio.gather(
        asyncio.gather(*(embedder.aencode_query(some) for some in texts)),
        asyncio.gather(*(embedder.aencode_corpus(some, reasoning="never") for some in texts)),
    )
    assert not reasoner.door.crowded
    assert not engine.door.crowded
    plain = fake_embedder()
    for some, query, corpus in zip(texts, queries, corpora, strict=True):
        np.testing.assert_array_equal(query, plain.encode_query(some))
        np.testing.assert_array_equal(corpus, plain.encode_corpus(some, reasoning="never"))


async def test_the_loop_is_not_blocked() -> None:
    engine = SlowEmbedder()
    embedder = ReasoningEmbedder(engine, chunk_items=1)
    encoding = asyncio.create_task(embedder.aencode_document([str(n) for n in range(20)], reasoning="never"))
    turns = 0
    while not encoding.done():
        await asyncio.sleep(0.001)
        turns += 1
    assert (await encoding).shape == (20, 64)
    assert turns > 10
    assert threading.get_ident() not in engine.threads


async def test_results_and_errors_come_through() -> None:
    embedder = fake_embedder()
    result = await embedder.aencode_query(["a", ""], return_traces=True, strict=False, target="video")
    assert [failure.index for failure in result.failures] == [1]
    assert (await embedder.aencode_corpus("a", return_traces=True)).vectors.shape == (64,)
    with pytest.raises(InputError):
        await embedder.aencode_corpus([""])


class CountedReasoner(FakeReasoner):
    """Tells when it has begun, and answers when it is let go on."""

    def __init__(self) -> None:
        super().__init__()
        self.begun, self.goes_on = threading.Event(), threading.Event()

    def generate(self, chats: Sequence[Chat], sampling: Sampling) -> list[Generation]:
        self.begun.set()
        assert self.goes_on.wait(20)
        return super().generate(chats, sampling)


@pytest.mark.parametrize(("count", "chunk_items"), [(100, 4), (100, 100), (10, 100)])
async def test_a_cancelled_call_asks_nothing_more_and_keeps_its_traces(
    tmp_path: Path, count: int, chunk_items: int
) -> None:
    reasoner, cache = CountedReasoner(), TraceCache(tmp_path / "traces.sqlite3")
    engine = HashEmbedder()
    embedder = ReasoningEmbedder(engine, reasoner, cache=cache, chunk_items=chunk_items)
    encoding = asyncio.create_task(embedder.aencode_corpus([f"thing {n}" for n in range(count)]))
    await asyncio.to_thread(reasoner.begun.wait, 20)
    encoding.cancel()
    with pytest.raises(asyncio.CancelledError):
        await encoding
    reasoner.goes_on.set()
    with embedder.reasoner_lock:  # the stage is through with what it was at
        first = reasoner.calls
    await asyncio.sleep(0.2)
    assert first == reasoner.calls == len(cache) == min(count, chunk_items, ASKED_AT_ONCE)
    assert engine.calls == 0
    assert (await embedder.aencode_corpus("again")).shape == (64,)


def test_a_call_is_cancelled_by_its_event_and_keeps_finished_traces(tmp_path: Path) -> None:
    reasoner, stopped = CountedReasoner(), threading.Event()
    cache = TraceCache(tmp_path / "traces.sqlite3")
    embedder = fake_embedder(reasoner=reasoner, cache=cache, chunk_items=4)
    with ThreadPoolExecutor(1) as pool:
        call = pool.submit(embedder.encode_corpus, [f"thing {n}" for n in range(40)], stopped=stopped)
        assert reasoner.begun.wait(20)
        stopped.set()
        reasoner.goes_on.set()
        with pytest.raises(Stopped):
            call.result(20)
    assert reasoner.calls == len(cache) == 4


async def test_a_call_inside_of_a_call_does_not_end_it() -> None:
    embedder = fake_embedder(reasoner=None, chunk_items=2)
    other = fake_embedder(reasoner=None, chunk_items=1)

    def progress(*_: object) -> None:
        other.encode_corpus(["a", "b", "c"], reasoning="never")

    vectors = await embedder.aencode_corpus(["a", "b"], reasoning="never", on_progress=progress)
    assert np.isfinite(vectors).all()


def test_two_calls_at_once_do_not_generate_the_same_trace(tmp_path: Path) -> None:
    reasoner = SlowReasoner()
    embedder = fake_embedder(reasoner=reasoner, cache=TraceCache(tmp_path / "traces.sqlite3"))
    texts = [f"thing {number}" for number in range(10)]
    with ThreadPoolExecutor(4) as pool:
        results = list(pool.map(embedder.encode_corpus, [texts] * 4))
    assert reasoner.calls == 10
    for vectors in results[1:]:
        np.testing.assert_array_equal(vectors, results[0])
