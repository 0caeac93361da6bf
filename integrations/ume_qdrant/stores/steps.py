"""One logic for sync and async: generators that ask, and runners that carry the questions to whoever answers."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Generator
from typing import Any, TypeAlias, TypeVar

Q = TypeVar("Q")
T = TypeVar("T")

Steps: TypeAlias = Generator[Q, Any, T]
"""Yields questions, is sent their answers, returns a result. An answer that fails is thrown into it."""


def run(steps: Steps[Q, T], answer: Callable[[Q], Any]) -> T:
    """Run to the end with blocking answers.

    Example:
        >>> def double() -> Steps[str, int]:
        ...     return 2 * (yield "how many?")
        >>> run(double(), len)
        18
    """
    try:
        question = next(steps)
        while True:
            try:
                reply = answer(question)
            except Exception as error:  # noqa: BLE001  # the generator decides what an error means
                question = steps.throw(error)
            else:
                question = steps.send(reply)
    except StopIteration as stop:
        result: T = stop.value
        return result


async def arun(steps: Steps[Q, T], answer: Callable[[Q], Awaitable[Any]]) -> T:
    """`run` with answers that are awaited."""
    try:
        question = next(steps)
        while True:
            try:
                reply = await answer(question)
            except Exception as error:  # noqa: BLE001  # as above
                question = steps.throw(error)
            else:
                question = steps.send(reply)
    except StopIteration as stop:
        result: T = stop.value
        return result
