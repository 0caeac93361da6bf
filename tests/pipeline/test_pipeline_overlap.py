"""Stages side by side: order, bounds, errors, and ends."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ume_retrieval.errors import Stopped
from ume_retrieval.testing import fake_embedder
from ume_retrieval.util.threads import ahead, overlapped


@given(values=st.lists(st.integers(), max_size=30), depth=st.integers(1, 4), stages=st.integers(1, 3))
def test_results_come_in_order_whatever_the_depth(values: list[int], depth: int, stages: int) -> None:
    found = list(overlapped(values, [lambda n: n + 1] * stages, depth=depth))
    assert found == [value + stages for value in values]


def test_stages_work_at_the_same_time() -> None:
    both = threading.Barrier(2, timeout=10)

    def first(n: int) -> int:
        if n == 1:
            both.wait()
        return n

    def second(n: int) -> int:
        if n == 0:
            both.wait()
        return n

    # The second stage waits on value 0 until the first one is at value 1.
    assert list(overlapped([0, 1], [first, second])) == [0, 1]


def test_the_source_is_drawn_a_bounded_stretch_ahead() -> None:
    drawn = 0

    def source() -> Iterator[int]:
        nonlocal drawn
        for n in range(1000):
            drawn = n + 1
            yield n

    results = overlapped(source(), [lambda n: n, lambda n: n], depth=2)
    for expected in range(5):
        assert next(results) == expected
        time.sleep(0.05)
        # Each of three queues holds 2, each of three threads 1.
        assert drawn <= expected + 1 + 9
    results.close()  # type: ignore[attr-defined]
    assert drawn < 20


@pytest.mark.parametrize("where", ["source", "stage"])
def test_an_error_is_raised_after_what_was_finished_before_it(where: str) -> None:
    def source() -> Iterator[int]:
        yield from (0, 1)
        if where == "source":
            raise KeyError("torn")
        yield 2

    def stage(n: int) -> int:
        if n == 2:
            raise KeyError("torn")
        return n

    found = []
    with pytest.raises(KeyError, match="torn"):
        found += [*overlapped(source(), [stage, str])]
    results = overlapped(source(), [stage, str])
    assert [next(results), next(results)] == ["0", "1"]
    with pytest.raises(KeyError, match="torn"):
        next(results)


@pytest.mark.parametrize("chunk_items", [2, 9], ids=["side by side", "one after the other"])
def test_a_stage_that_runs_out_of_something_is_an_error_and_not_the_end(chunk_items: int) -> None:
    """The rest of the rows came back as NaN, from a strict call."""
    embedder = fake_embedder(chunk_items=chunk_items)
    progress = lambda done, total, stage: next(iter(())) if stage == "embed" else None  # noqa: E731
    with pytest.raises(RuntimeError, match="StopIteration"):
        embedder.encode_corpus([f"thing {n}" for n in range(9)], on_progress=progress)
    with pytest.raises(RuntimeError, match="StopIteration"):
        list(ahead([1, 2, 3], lambda _: next(iter(()))))


def test_no_thread_is_left_when_the_reader_goes() -> None:
    before = threading.active_count()
    stopped = threading.Event()

    def patient(n: int) -> int:
        while n and not stopped.wait(0.01):
            pass
        if n:
            raise Stopped
        return n

    results = overlapped(range(100), [patient], stopped=stopped)
    assert next(results) == 0
    results.close()  # type: ignore[attr-defined]
    assert stopped.is_set()
    assert threading.active_count() == before


def test_what_is_made_ahead_is_made_once() -> None:
    made: list[int] = []

    def make(n: int) -> int:
        made.append(n)
        return -n

    assert list(ahead([1, 2, 3], make)) == [-1, -2, -3]
    assert made == [1, 2, 3]
    assert list(ahead([], make)) == []
