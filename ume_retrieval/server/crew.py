"""Calls side by side in threads that an interrupt leaves behind."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Generator, Sequence
from contextlib import suppress
from queue import SimpleQueue
from typing import TypeAlias, TypeVar

T = TypeVar("T")

Call: TypeAlias = Callable[[threading.Event], T]
"""Something to do; the event says that nobody wants its result any more."""


def side_by_side(calls: Sequence[Call[T]], most: int) -> Generator[tuple[int, T]]:
    """Make calls in threads, handing out every result as soon as it is there.

    An executor would be waited for when an interrupt comes, and again when the process ends: minutes, where a server
    is silent or asks to be left alone. Who stops reading here waits for nobody.

    Args:
        calls: Each is given an event that is set when reading has ended; it should then begin nothing new.
        most: Most calls at a time, >= 1.

    Yields:
        Position of a call and its result.

    Raises:
        BaseException: What a call raised.

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
