"""Run stages concurrently, one thread each, with bounded queues between them.

Memory holds what is in the stages and the queues, however long the input; the slowest stage sets the pace. Models
compute, files are read and pictures are decoded outside of Python's lock, so threads are enough.
"""

from __future__ import annotations

import asyncio
import os
import threading
import weakref
from collections import deque
from collections.abc import Callable, Coroutine, Generator, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial, wraps
from itertools import pairwise
from queue import Empty, Full, Queue, SimpleQueue
from typing import Any, ParamSpec, TypeAlias, TypeVar, cast

from ume_retrieval.errors import Stopped

Value = TypeVar("Value")
Made = TypeVar("Made")
P = ParamSpec("P")

LOOK_S = 0.05
"""Seconds between looks of a waiting stage whether the work was cancelled."""


@dataclass(frozen=True, slots=True)
class _End:
    """Marks the end of the values in a queue, and the error that ended them, if any."""

    error: BaseException | None = None


def overlapped(
    source: Iterable[Any],
    stages: Sequence[Callable[[Any], Any]],
    *,
    depth: int = 1,
    stopped: threading.Event | None = None,
) -> Iterator[Any]:
    """Pass values through stages that work at the same time.

    Each stage handles one value at a time, in order. Closing the iterator, or an error or interrupt in the thread that
    reads it, ends the stages: each finishes the value that it is at, or looks at `stopped` and raises `Stopped`.

    Args:
        source: Inputs, drawn in a thread of its own, a little ahead of the results.
        stages: Each takes what the stage before it returns.
        depth: Most values that wait between two stages, >= 1.
        stopped: Cancels the work when set.

    Yields:
        Results of the last stage, in order.

    Raises:
        BaseException: Any error of the source or a stage, after the results that were finished before it.

    Example:
        >>> list(overlapped(range(5), [lambda n: n * n, str]))
        ['0', '1', '4', '9', '16']
    """
    halt = stopped or threading.Event()
    queues: list[Queue[Any]] = [Queue(depth) for _ in range(len(stages) + 1)]
    steps = [partial(_pour, source, queues[0], halt)]
    for stage, (before, after) in zip(stages, pairwise(queues), strict=True):
        steps.append(partial(_pour, through(stage, _drawn(before, halt), halt), after, halt))
    # Daemons: a second interrupt must end the process, whatever a model is at.
    threads = [threading.Thread(target=step, daemon=True) for step in steps]
    try:
        for thread in threads:
            thread.start()
        yield from _drawn(queues[-1], halt)
    finally:
        halt.set()
        for thread in threads:
            thread.join()


def through(stage: Callable[[Value], Made], values: Iterable[Value], halt: threading.Event) -> Iterator[Made]:
    """Apply a stage to values. Unlike with `map`, a `StopIteration` of the stage does not end the values silently.

    Raises:
        RuntimeError: In place of such a `StopIteration`.
        Stopped: Before a value, when `halt` is set.
    """
    for value in values:
        if halt.is_set():
            raise Stopped
        yield stage(value)


def ahead(values: Iterable[Value], make: Callable[[Value], Made]) -> Iterator[Made]:
    """Make each value's product while the one before is in use.

    Example:
        >>> list(ahead([1, 2, 3], str))
        ['1', '2', '3']
    """
    return overlapped(values, [make])


def _pour(values: Iterable[Any], into: Queue[Any], halt: threading.Event) -> None:
    """Put values into a queue, and then how they ended."""
    try:
        try:
            for value in values:
                _put(into, value, halt)
        except Stopped:
            raise
        except BaseException as error:  # noqa: BLE001 - it is raised again where the results are read
            _put(into, _End(error), halt)
        else:
            _put(into, _End(), halt)
    except Stopped:
        return


def _put(into: Queue[Any], value: Any, halt: threading.Event) -> None:
    while not halt.is_set():
        try:
            return into.put(value, timeout=LOOK_S)
        except Full:
            continue
    raise Stopped


def _drawn(queue: Queue[Any], halt: threading.Event) -> Iterator[Any]:
    """Yield the values of a queue up to its end; raise the error that it ended with."""
    while True:
        try:
            value = queue.get(timeout=LOOK_S)
        except Empty:
            if halt.is_set():
                raise Stopped from None
            continue
        if not isinstance(value, _End):
            yield value
        elif value.error is None:
            return
        else:
            raise value.error


T = TypeVar("T")

Call: TypeAlias = Callable[[threading.Event], T]
"""A call; its event is set when its result is no longer needed."""


def side_by_side(calls: Sequence[Call[T]], most: int) -> Generator[tuple[int, T]]:
    """Make calls in threads and yield every result as soon as it is ready.

    Unlike with an executor, neither an interrupt nor the end of the process waits for calls that are still running: a
    silent server could hold them for minutes.

    Args:
        calls: Each is given an event that is set when reading has ended; it should then begin nothing new.
        most: Most calls at a time, >= 1.

    Yields:
        Position of a call and its result.

    Raises:
        BaseException: Any error of a call.

    Example:
        >>> sorted(side_by_side([lambda stopped: "a", lambda stopped: "b"], most=2))
        [(0, 'a'), (1, 'b')]
    """
    todo = deque(enumerate(calls))
    done: SimpleQueue[tuple[int, T] | BaseException] = SimpleQueue()
    stopped = threading.Event()

    def work() -> None:
        with suppress(IndexError):  # raised by `popleft` alone: another thread took the last one
            while not stopped.is_set():
                position, call = todo.popleft()
                done.put(_outcome(position, call, stopped))

    try:
        for _ in range(min(most, len(calls))):
            threading.Thread(target=work, daemon=True).start()
        for _ in calls:
            outcome = done.get()
            if isinstance(outcome, BaseException):
                raise outcome
            yield outcome
    finally:
        stopped.set()


def _outcome(position: int, call: Call[T], stopped: threading.Event) -> tuple[int, T] | BaseException:
    try:
        return position, call(stopped)
    except BaseException as error:  # noqa: BLE001 - it is raised again where the results are read
        return error


def fork_safe_lock() -> threading.Lock:
    """Return a lock that is free in a forked child, whoever held it in the parent.

    A plain lock that another thread holds at the time of the fork stays locked in the child for ever.

    Example:
        >>> with fork_safe_lock():
        ...     pass
    """
    lock = threading.Lock()
    _LOCKS.add(lock)
    return lock


_LOCKS: weakref.WeakSet[threading.Lock] = weakref.WeakSet()


def _after_fork() -> None:
    for lock in list(_LOCKS):
        lock._at_fork_reinit()  # type: ignore[attr-defined]  # noqa: SLF001  # as the standard library's modules do


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


def awaitable(call: Callable[P, T]) -> Callable[P, Coroutine[Any, Any, T]]:
    """Derive the async form of a function that takes a keyword `stopped`, an event that cancels it.

    The function runs in a worker thread, so that the event loop goes on. Cancelling the task sets `stopped`.

    Example:
        >>> def double(n: int, *, stopped: threading.Event) -> int:
        ...     return 2 * n
        >>> asyncio.run(awaitable(double)(4))
        8
    """

    @wraps(call)
    async def run(*args: P.args, **kwargs: P.kwargs) -> T:
        stopped = cast("threading.Event", kwargs.get("stopped") or threading.Event())
        kwargs["stopped"] = stopped
        try:
            return await asyncio.to_thread(call, *args, **kwargs)
        except asyncio.CancelledError:
            stopped.set()
            raise

    return run
