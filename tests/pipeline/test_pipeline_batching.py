"""Concurrent calls become batches, and each gets what it would get alone."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Sequence
from typing import Any

import numpy as np
import PIL.Image
import pytest

from ume_retrieval import InputError, Item, ReasoningEmbedder, Sampling
from ume_retrieval.chat import Chat
from ume_retrieval.engines.base import Embeddings, Generation
from ume_retrieval.errors import MediaNotFound, ModelError, QueueFull, ReasoningError, Stopped
from ume_retrieval.pipeline import Batching
from ume_retrieval.testing import FakeReasoner, HashEmbedder


class CountingReasoner(FakeReasoner):
    """Remembers the sizes of its batches, and can be made to wait."""

    def __init__(self, answer: Any = None) -> None:
        super().__init__(answer)
        self.sizes: list[int] = []
        self.goes_on = threading.Event()
        self.goes_on.set()
        self.begun = threading.Event()

    def generate(self, chats: Sequence[Chat], sampling: Sampling) -> list[Generation]:
        self.sizes.append(len(chats))
        self.begun.set()
        assert self.goes_on.wait(20)
        return super().generate(chats, sampling)


class CountingEmbedder(HashEmbedder):
    def __init__(self) -> None:
        super().__init__()
        self.sizes: list[int] = []

    def embed(self, chats: Sequence[Chat]) -> Embeddings:
        self.sizes.append(len(chats))
        return super().embed(chats)


def made(answer: Any = None, **batching: Any) -> tuple[ReasoningEmbedder, CountingReasoner, CountingEmbedder]:
    reasoner, engine = CountingReasoner(answer), CountingEmbedder()
    settings = Batching(**{"window_s": 0.2, **batching})
    return ReasoningEmbedder(engine, reasoner, batching=settings), reasoner, engine


async def test_calls_at_once_are_one_batch_and_keep_their_own_results() -> None:
    embedder, reasoner, engine = made(items=30)
    texts = [f"thing {number}" for number in range(30)]
    results = await asyncio.gather(*(embedder.aencode_query(text, return_traces=True) for text in texts))
    assert reasoner.sizes == engine.sizes == [30]
    plain = ReasoningEmbedder(HashEmbedder(), FakeReasoner())
    for text, result in zip(texts, results, strict=True):
        alone = plain.encode_query(text, return_traces=True)
        np.testing.assert_array_equal(result.vectors, alone.vectors)
        assert result.traces == alone.traces
        for name in ("items", "reasoner_calls", "cached_traces", "embedder_calls", "prompt_tokens", "trace_problems"):
            assert getattr(result.usage, name) == getattr(alone.usage, name), name


async def test_equal_queries_are_asked_and_embedded_once() -> None:
    embedder, reasoner, engine = made(items=8)
    results = await asyncio.gather(*(embedder.aencode_query("the same", return_traces=True) for _ in range(8)))
    assert (reasoner.sizes, engine.sizes) == ([1], [1])
    assert sum(result.usage.reasoner_calls for result in results) == 1
    assert sum(result.usage.cached_traces for result in results) == 7
    assert sum(result.usage.embedder_calls for result in results) == 1
    for result in results:
        np.testing.assert_array_equal(result.vectors, results[0].vectors)


async def test_a_bad_item_fails_only_its_own_call() -> None:
    embedder, *_ = made(lambda chat: "" if "bad" in str(chat) else FakeReasoner()._answer(chat), items=6)
    calls = [
        embedder.aencode_query(["fine", "also fine"]),
        embedder.aencode_query("bad words"),
        embedder.aencode_query(["good", "bad words"], strict=False, return_traces=True),
        embedder.aencode_query(Item(images=("no-such-file.png",))),
    ]
    fine, bad, half, missing = await asyncio.gather(*calls, return_exceptions=True)
    assert np.isfinite(fine).all()
    assert isinstance(bad, ReasoningError)
    assert bad.__notes__ == ["input 0"]
    assert [failure.index for failure in half.failures] == [1]
    assert np.isfinite(half.vectors[0]).all()
    assert np.isnan(half.vectors[1]).all()
    assert isinstance(missing, MediaNotFound)
    assert "bad words" not in str(missing)


async def test_kinds_of_calls_do_not_mix_and_direct_ones_do_not_wait_for_the_reasoner() -> None:
    embedder, reasoner, _ = made(window_s=0.0)
    reasoner.goes_on.clear()
    reasoned = asyncio.create_task(embedder.aencode_query("slow"))
    await asyncio.to_thread(reasoner.begun.wait, 20)
    direct = await asyncio.wait_for(embedder.aencode_query("quick", reasoning="never"), 5)
    assert not reasoned.done()
    reasoner.goes_on.set()
    await reasoned
    np.testing.assert_array_equal(direct, ReasoningEmbedder(HashEmbedder()).encode_query("quick", reasoning="never"))


async def test_calls_that_come_meanwhile_are_the_next_batch() -> None:
    embedder, reasoner, _ = made(window_s=0.0)
    reasoner.goes_on.clear()
    first = asyncio.create_task(embedder.aencode_query("first"))
    await asyncio.to_thread(reasoner.begun.wait, 20)
    rest = [asyncio.create_task(embedder.aencode_query(f"later {number}")) for number in range(20)]
    await asyncio.sleep(0.05)
    reasoner.goes_on.set()
    await asyncio.gather(first, *rest)
    assert reasoner.sizes == [1, 20]


@pytest.mark.parametrize(
    ("limits", "texts", "sizes"),
    [({"items": 4}, ["x"] * 10, [4, 4, 2]), ({"tokens": 100}, ["x" * 120] * 5, [2, 2, 1])],
    ids=["items", "tokens"],
)
async def test_a_batch_keeps_its_budget(limits: dict[str, int], texts: list[str], sizes: list[int]) -> None:
    embedder, reasoner, _ = made(**limits)
    await asyncio.gather(*(embedder.aencode_query(f"{number}{text}") for number, text in enumerate(texts)))
    assert reasoner.sizes == sizes


async def test_beyond_the_bound_calls_are_refused_and_others_go_on() -> None:
    embedder, reasoner, _ = made(waiting=5, window_s=0.0)
    reasoner.goes_on.clear()
    first = asyncio.create_task(embedder.aencode_query("first"))
    await asyncio.to_thread(reasoner.begun.wait, 20)
    rest = [asyncio.create_task(embedder.aencode_query(f"later {number}")) for number in range(5)]
    await asyncio.sleep(0.02)
    with pytest.raises(QueueFull) as raised:
        await embedder.aencode_query("too many")
    assert raised.value.retryable
    reasoner.goes_on.set()
    await asyncio.gather(first, *rest)


async def test_a_caller_who_goes_costs_no_model_call() -> None:
    embedder, reasoner, engine = made(window_s=0.0)
    reasoner.goes_on.clear()
    first = asyncio.create_task(embedder.aencode_query("first"))
    await asyncio.to_thread(reasoner.begun.wait, 20)
    waiting = asyncio.create_task(embedder.aencode_query("waiting"))
    await asyncio.sleep(0.02)
    for task in (first, waiting):
        task.cancel()
    assert all(
        isinstance(end, asyncio.CancelledError) for end in await asyncio.gather(first, waiting, return_exceptions=True)
    )
    reasoner.goes_on.set()
    await embedder.aencode_query("after them")
    assert (reasoner.sizes, engine.sizes) == ([1, 1], [1])


async def test_a_call_can_be_stopped_by_its_event() -> None:
    embedder, reasoner, _ = made(window_s=0.0)
    stopped = threading.Event()
    reasoner.goes_on.clear()
    both = [embedder.aencode_query("one", stopped=stopped), embedder.aencode_query("other")]
    tasks = [asyncio.create_task(call) for call in both]
    await asyncio.to_thread(reasoner.begun.wait, 20)
    stopped.set()
    reasoner.goes_on.set()
    with pytest.raises(Stopped):
        await tasks[0]
    assert (await tasks[1]).shape == (64,)


async def test_an_engine_that_breaks_ends_its_batch_and_the_next_call_works() -> None:
    broken = [True]

    def answer(chat: Chat) -> str:
        if broken:
            broken.clear()
            raise RuntimeError("a bug of the engine")
        return FakeReasoner()._answer(chat)

    embedder, *_ = made(answer, window_s=0.0)
    with pytest.raises(RuntimeError, match="a bug"):
        await embedder.aencode_query("first")
    assert (await embedder.aencode_query("second")).shape == (64,)


async def test_pictures_and_storage_options() -> None:
    embedder, *_ = made(items=3)
    picture = PIL.Image.new("RGB", (40, 40), (220, 40, 40))
    short, quantized, mixed = await asyncio.gather(
        embedder.aencode_query("words", truncate_dim=16),
        embedder.aencode_corpus(["words"], precision="int8"),
        embedder.aencode_query(Item(text="like this", images=(picture,))),
    )
    plain = ReasoningEmbedder(HashEmbedder(), FakeReasoner())
    np.testing.assert_array_equal(short, plain.encode_query("words", truncate_dim=16))
    np.testing.assert_array_equal(quantized, plain.encode_corpus(["words"], precision="int8"))
    np.testing.assert_array_equal(mixed, plain.encode_query(Item(text="like this", images=(picture,))))
    with pytest.raises(InputError):
        await embedder.aencode_query("words", truncate_dim=1000)
    with pytest.raises(InputError):
        await ReasoningEmbedder(HashEmbedder()).aencode_query("words")


async def test_threads_end_when_nothing_comes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ume_retrieval.pipeline.batching.IDLE_S", 0.05)
    before = set(threading.enumerate())
    embedder, *_ = made(window_s=0.0)
    await embedder.aencode_query("first")
    until = time.monotonic() + 10
    while (
        lane := {one for one in threading.enumerate() if one.name == "batches"} - before
    ) and time.monotonic() < until:
        await asyncio.sleep(0.02)
    assert not lane
    assert (await embedder.aencode_query("again")).shape == (64,)


def test_settings_out_of_range_are_refused() -> None:
    for wrong in ({"window_s": -1}, {"items": 0}, {"tokens": 0}, {"waiting": 0}):
        with pytest.raises(InputError):
            Batching(**wrong)


def test_calls_of_several_event_loops_share_batches() -> None:
    embedder, reasoner, _ = made(items=4, window_s=1.0)
    threads = [threading.Thread(target=lambda n=n: asyncio.run(embedder.aencode_query(f"thing {n}"))) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert reasoner.sizes == [4]


async def test_an_error_of_the_model_keeps_its_type() -> None:
    def answer(chat: Chat) -> str:
        raise ModelError("out of memory", hint="use less")

    embedder, *_ = made(answer, items=2)
    ends = await asyncio.gather(embedder.aencode_query("a"), embedder.aencode_query("b"), return_exceptions=True)
    assert [(type(end), end.hint) for end in ends] == [(ModelError, "use less")] * 2
    assert ends[0] is not ends[1]
