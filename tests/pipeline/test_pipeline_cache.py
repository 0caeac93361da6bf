"""Traces on disk: what is kept, what a key depends on, and what survives."""

from __future__ import annotations

import multiprocessing
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ume_retrieval import Item, ModelInfo, ReasonerSpec, Sampling, TraceCache, VisualBudget
from ume_retrieval.pipeline.loading import Input
from ume_retrieval.pipeline.trace_cache import TraceRecord, trace_key
from ume_retrieval.testing import PLAIN_PROMPTS, SMALL_BUDGET, FakeReasoner, fake_embedder

KEY: dict[str, Any] = {
    "content_id": "c0ffee",
    "side": "query",
    "target": None,
    "reasoner": ModelInfo("owner/model", "abc", "transformers"),
    "prompts": PLAIN_PROMPTS,
    "budget": VisualBudget(),
    "sampling": Sampling(),
}


def record(text: str = "<answer>a cat</answer>", created_at: float | None = None) -> TraceRecord:
    return TraceRecord(text, 3, 2, "stop", "owner/model@abc", time.time() if created_at is None else created_at)


@pytest.fixture
def cache(tmp_path: Path) -> TraceCache:
    return TraceCache(tmp_path / "traces.sqlite3")


# --- keys


def changes() -> st.SearchStrategy[dict[str, Any]]:
    """One field of the key, changed to another value."""
    numbers = st.integers(1, 10**6)
    budgets = st.builds(
        lambda name, value: {"budget": VisualBudget().model_copy(update={name: value})},
        st.sampled_from(list(VisualBudget.model_fields)),
        numbers,
    )
    prompts = st.builds(
        lambda name, value: {"prompts": PLAIN_PROMPTS.model_copy(update={name: value})},
        st.sampled_from(list(type(PLAIN_PROMPTS).model_fields)),
        st.text(),
    )
    samplings = st.builds(
        lambda name, value: {"sampling": replace(Sampling(), **{name: value})},
        st.sampled_from(["max_tokens", "temperature", "top_p", "seed"]),
        numbers,
    )
    reasoners = st.builds(
        lambda name, value: {"reasoner": replace(KEY["reasoner"], **{name: value})},
        st.sampled_from(["name", "revision"]),
        st.text(),
    )
    return st.one_of(
        budgets,
        prompts,
        samplings,
        reasoners,
        st.text().map(lambda value: {"content_id": value}),
        st.just({"side": "corpus"}),
        st.sampled_from(["text", "image", "video"]).map(lambda value: {"target": value}),
    )


@settings(deadline=None)
@given(changes())
def test_any_change_of_what_decides_a_trace_changes_its_key(change: dict[str, Any]) -> None:
    [(name, value)] = change.items()
    assert (trace_key(**{**KEY, **change}) == trace_key(**KEY)) == (value == KEY[name])


def test_the_key_is_the_same_in_every_process_and_under_every_engine() -> None:
    assert trace_key(**KEY) == trace_key(**{**KEY, "reasoner": ModelInfo("owner/model", "abc", "vllm")})
    script = (
        "from ume_retrieval import *\nfrom ume_retrieval.pipeline.trace_cache import trace_key\n"
        "from ume_retrieval.testing import PLAIN_PROMPTS\n"
        "print(trace_key(content_id='c0ffee', side='query', target=None, reasoner=ModelInfo('owner/model', 'abc', 'x'),"
        " prompts=PLAIN_PROMPTS, budget=VisualBudget(), sampling=Sampling()))"
    )
    printed = subprocess.run(  # noqa: S603 - the tests' own interpreter
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    ).stdout
    assert printed.strip() == trace_key(**KEY)


def test_fields_cannot_run_into_each_other() -> None:
    one = ModelInfo("a", "bc", "x")
    other = ModelInfo("ab", "c", "x")
    assert trace_key(**{**KEY, "reasoner": one}) != trace_key(**{**KEY, "reasoner": other})


# --- the pipeline on a cache


def test_a_second_run_makes_no_model_call_and_gives_the_same_vectors(cache: TraceCache) -> None:
    items: list[Input] = ["a cat", PIL.Image.new("RGB", (64, 64), "red"), Item("x", (PIL.Image.new("RGB", (9, 9)),))]
    first = fake_embedder(cache=cache).encode_corpus(items, return_traces=True)
    reasoner = FakeReasoner()
    second = fake_embedder(reasoner=reasoner, cache=cache).encode_corpus(items, return_traces=True)
    assert reasoner.calls == second.usage.reasoner_calls == second.usage.prompt_tokens == 0
    assert (first.usage.reasoner_calls, second.usage.cached_traces) == (3, 3)
    np.testing.assert_array_equal(first.vectors, second.vectors)
    for before, after in zip(first.traces, second.traces, strict=True):
        assert before is not None
        assert after == replace(before, cached=True)


def test_a_trace_is_not_taken_for_another_side_reasoner_or_prompt(cache: TraceCache) -> None:
    def calls(reasoner: FakeReasoner, side: Any = "query", **options: Any) -> int:
        embedder = fake_embedder(reasoner=reasoner, cache=cache, **options)
        return embedder.trace(["a cat"], side).usage.reasoner_calls

    assert calls(FakeReasoner()) == 1
    assert calls(FakeReasoner()) == 0
    assert calls(FakeReasoner(), "corpus") == 1
    assert calls(FakeReasoner(name="another")) == 1
    assert calls(FakeReasoner(revision="2")) == 1
    reworded = PLAIN_PROMPTS.model_copy(update={"query_text": "Find {text}"})
    assert calls(FakeReasoner(spec=ReasonerSpec(prompts=reworded, budget=SMALL_BUDGET))) == 1
    assert calls(FakeReasoner(), sampling=Sampling(max_tokens=7)) == 1
    assert len(cache) == 6


def test_a_moved_file_keeps_its_trace_and_a_changed_one_does_not(cache: TraceCache, tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    PIL.Image.new("RGB", (64, 64), "red").save(path)
    embedder = fake_embedder(cache=cache)

    def calls(file: Path) -> int:
        return embedder.trace([Item(images=(file,))], "corpus").usage.reasoner_calls

    assert calls(path) == 1
    moved = path.rename(tmp_path / "b.png")
    assert calls(moved) == 0
    PIL.Image.new("RGB", (64, 64), "blue").save(moved)
    assert calls(moved) == 1


def test_a_reply_that_no_file_can_hold_is_read_alike_before_and_after(cache: TraceCache) -> None:
    texts = []
    for _ in range(2):
        reasoner = FakeReasoner(lambda chat: "<thinking>\ud83d</thinking><answer>caf\udce9</answer>")
        [trace] = fake_embedder(reasoner=reasoner, cache=cache).trace("a cat", "query").traces
        assert trace is not None
        texts.append(trace.tcot)
    assert texts[0] == texts[1]


def run_pipeline(path: Path, queue: Any) -> None:
    reasoner = FakeReasoner()
    texts = [f"thing {number}" for number in range(40)]
    embedder = fake_embedder(reasoner=reasoner, cache=TraceCache(path), chunk_items=8)
    embedder.encode_corpus(texts)
    queue.put(reasoner.calls)


def test_several_processes_share_one_file(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    queue = context.Queue()
    path = tmp_path / "traces.sqlite3"
    workers = [context.Process(target=run_pipeline, args=(path, queue)) for _ in range(4)]
    for worker in workers:
        worker.start()
    calls = [queue.get(timeout=30) for _ in workers]
    for worker in workers:
        worker.join(timeout=30)
        assert worker.exitcode == 0
    assert len(TraceCache(path)) == 40
    assert sum(calls) >= 40
    run_pipeline(path, queue)
    assert queue.get(timeout=5) == 0


def test_several_threads_share_one_cache(cache: TraceCache) -> None:

    def work(worker: int) -> int:
        for number in range(20):
            cache.put_many({f"{worker}-{number}": record()})
            assert f"{worker}-{number}" in cache.get_many([f"{worker}-{number}"])
        return worker

    with ThreadPoolExecutor(6) as pool:
        assert list(pool.map(work, range(6))) == list(range(6))
    assert len(cache) == 120


WRITER = """
import sys, time
from ume_retrieval.pipeline.trace_cache import TraceCache, TraceRecord
cache = TraceCache(sys.argv[1])
for batch in range(100_000):
    cache.put_many({f"{batch}-{n}": TraceRecord("x" * 2000, 1, 1, "stop") for n in range(64)})
    print(batch, flush=True)
"""


@pytest.mark.parametrize("delay_s", [0.0, 0.004, 0.009, 0.017])
def test_kill_9_while_writing_loses_no_finished_batch_and_leaves_no_half_one(tmp_path: Path, delay_s: float) -> None:
    path = tmp_path / "traces.sqlite3"
    command = [sys.executable, "-c", WRITER, str(path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as writer:  # noqa: S603 - our own interpreter
        assert writer.stdout is not None
        finished = [int(writer.stdout.readline()) for _ in range(5)][-1]
        time.sleep(delay_s)
        writer.send_signal(signal.SIGKILL)
        rest = writer.stdout.read().split()
    finished = int(rest[-1]) if rest else finished
    cache = TraceCache(path)
    assert len(cache) % 64 == 0
    assert len(cache) >= 64 * (finished + 1)
    known = cache.get_many(f"{batch}-{number}" for batch in range(finished + 1) for number in range(64))
    assert len(known) == 64 * (finished + 1)
    cache.put_many({"after": record()})
    assert cache.get_many(["after"])


RUN = """
import sys, time
from ume_retrieval import TraceCache
from ume_retrieval.testing import FakeReasoner, fake_embedder

def tell(done, total, stage):
    if stage == "reason":
        print(done, flush=True)
        time.sleep(float(sys.argv[2]))

reasoner = FakeReasoner()
embedder = fake_embedder(reasoner=reasoner, cache=TraceCache(sys.argv[1]), chunk_items=4)
embedder.encode_corpus([f"thing {number}" for number in range(200)], on_progress=tell)
print("asked", reasoner.calls)
"""


def test_a_killed_run_is_taken_up_where_it_was(tmp_path: Path) -> None:
    command = [sys.executable, "-c", RUN, str(tmp_path / "traces.sqlite3")]
    slowly, fast = [*command, "0.02"], [*command, "0"]
    with subprocess.Popen(slowly, stdout=subprocess.PIPE, text=True) as first:  # noqa: S603 - our own interpreter
        assert first.stdout is not None
        for _ in range(3):
            first.stdout.readline()
        first.send_signal(signal.SIGKILL)
        done = int(["12", *first.stdout.read().split()][-1])
    stored = len(TraceCache(tmp_path / "traces.sqlite3"))
    assert done <= stored < 200
    second = subprocess.run(fast, capture_output=True, text=True, check=True).stdout  # noqa: S603 - as above
    assert second.split()[-2:] == ["asked", str(200 - stored)]


def test_the_former_name_of_the_response_format_is_understood_for_one_release() -> None:
    with pytest.warns(DeprecationWarning, match="response_format"):
        former = Sampling(max_tokens=8, form="tcot")
    assert former == Sampling(max_tokens=8, response_format="tcot")
    assert replace(former, seed=1).identity() == {
        "max_tokens": 8,
        "temperature": 0.0,
        "top_p": 1.0,
        "seed": 1,
        "form": "tcot",
    }
