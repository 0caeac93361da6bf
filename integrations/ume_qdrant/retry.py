"""Requests that are tried again: bounded exponential back-off with jitter."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TypeVar

from ume_retrieval.errors import InputError, StoreError

T = TypeVar("T")


class BusyError(StoreError):
    """The store may answer later.

    Args:
        message: What happened.
        hint: What to do when it stays so.
        wait_s: Seconds that the store asked to be left alone, 0 when it did not say.
    """

    def __init__(self, message: str, *, hint: str = "", wait_s: float = 0.0) -> None:
        super().__init__(message, hint=hint, retryable=True)
        self.wait_s = wait_s


@dataclass(frozen=True, slots=True)
class Retry:
    """How often and how patiently a request is tried again.

    The n-th wait is `first_s * 2**n`, at most `longest_s`, of which a random half is left out, so that many clients do
    not come back at once. A wait that the store asks for is kept, up to `longest_s`.

    Attributes:
        attempts: Most tries in all, >= 1.
        first_s: First wait in seconds.
        longest_s: Longest single wait in seconds.
        sleep: Waits for a number of seconds.
        asleep: The same, awaited.
        uniform: A random number in [0, 1).

    Example:
        >>> waits: list[float] = []
        >>> def request() -> str:
        ...     if len(waits) < 2:
        ...         raise BusyError("not now")
        ...     return "done"
        >>> Retry(first_s=1.0, sleep=waits.append, uniform=lambda: 1.0).call(request), waits
        ('done', [1.0, 2.0])
    """

    attempts: int = 6
    first_s: float = 0.5
    longest_s: float = 20.0
    sleep: Callable[[float], None] = time.sleep
    asleep: Callable[[float], Awaitable[None]] = asyncio.sleep
    uniform: Callable[[], float] = random.random

    def __post_init__(self) -> None:
        if self.attempts < 1:
            raise InputError("a request needs at least one attempt")

    def call(self, request: Callable[[], T]) -> T:
        """Call `request` until it does not raise `BusyError`, or attempts run out.

        Raises:
            StoreError: The last `BusyError`, with the number of attempts in its message; any other error at once.
        """
        for attempt in range(self.attempts - 1):
            try:
                return request()
            except BusyError as busy:
                self.sleep(self._wait_s(attempt, busy))
        try:
            return request()
        except BusyError as busy:
            raise self._given_up(busy) from None

    async def acall(self, request: Callable[[], Awaitable[T]]) -> T:
        """`call` for a request that is awaited; other tasks go on during the waits."""
        for attempt in range(self.attempts - 1):
            try:
                return await request()
            except BusyError as busy:
                await self.asleep(self._wait_s(attempt, busy))
        try:
            return await request()
        except BusyError as busy:
            raise self._given_up(busy) from None

    def _wait_s(self, attempt: int, busy: BusyError) -> float:
        backoff: float = min(self.longest_s, self.first_s * 2.0**attempt) * (0.5 + 0.5 * self.uniform())
        return max(backoff, min(busy.wait_s, self.longest_s))

    def _given_up(self, busy: BusyError) -> StoreError:
        return StoreError(f"{busy.message} ({self.attempts} attempts)", hint=busy.hint, retryable=True)
