"""Retries of requests: bounded exponential back-off with jitter, which respects Retry-After."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import ClassVar, Final, TypeVar

from ume_retrieval.errors import InputError, UmeError

T = TypeVar("T")

BUSY_STATUS: Final = frozenset({408, 425, 429, 500, 502, 503, 504})
"""HTTP statuses after which the same request may succeed.

409 is left out: a model server means a timed-out lock by it, Qdrant a collection that exists already.
"""


class Busy(UmeError):
    """A temporary failure of a service. Each service derives a subclass that is also one of its own errors.

    Args:
        message: What happened.
        hint: What to do when it stays so.
        wait_s: Seconds that the service asked to be left alone, 0 when it did not say.

    Attributes:
        given_up: The error that is raised when attempts run out.
    """

    given_up: ClassVar[type[UmeError]] = UmeError

    def __init__(self, message: str, *, hint: str = "", wait_s: float = 0.0) -> None:
        super().__init__(message, hint=hint, retryable=True)
        self.wait_s = wait_s


@dataclass(frozen=True, slots=True)
class Retry:
    """How often and how patiently a request is tried again.

    The n-th wait is `first_s * 2**n`, at most `longest_s`, of which a random half is left out, so that many clients do
    not come back at once. A wait that the service asks for is kept, up to `longest_s`.

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
        ...         raise Busy("not now")
        ...     return "done"
        >>> Retry(first_s=1.0, sleep=waits.append, uniform=lambda: 1.0).call(request), waits
        ('done', [1.0, 2.0])
    """

    attempts: int = 6
    first_s: float = 0.5
    longest_s: float = 30.0
    sleep: Callable[[float], None] = time.sleep
    asleep: Callable[[float], Awaitable[None]] = asyncio.sleep
    uniform: Callable[[], float] = random.random

    def __post_init__(self) -> None:
        if self.attempts < 1:
            raise InputError("a request needs at least one attempt")

    def call(self, request: Callable[[], T]) -> T:
        """Call `request` until it does not raise `Busy`, or attempts run out.

        Raises:
            UmeError: The last `Busy` as the error that it turns into, with the number of attempts in its message; any
                other error at once.
        """
        for attempt in range(self.attempts - 1):
            try:
                return request()
            except Busy as busy:
                self.sleep(self._wait_s(attempt, busy))
        try:
            return request()
        except Busy as busy:
            raise self._given_up(busy) from None

    async def acall(self, request: Callable[[], Awaitable[T]]) -> T:
        """Async version of `call`; other tasks run during the waits."""
        for attempt in range(self.attempts - 1):
            try:
                return await request()
            except Busy as busy:
                await self.asleep(self._wait_s(attempt, busy))
        try:
            return await request()
        except Busy as busy:
            raise self._given_up(busy) from None

    def _wait_s(self, attempt: int, busy: Busy) -> float:
        backoff: float = min(self.longest_s, self.first_s * 2.0**attempt) * (0.5 + 0.5 * self.uniform())
        return max(backoff, min(busy.wait_s, self.longest_s))

    def _given_up(self, busy: Busy) -> UmeError:
        return busy.given_up(f"{busy.message} ({self.attempts} attempts)", hint=busy.hint, retryable=True)


def retry_after(value: str | None) -> float:
    """Parse a Retry-After header into seconds; 0 if it is missing or malformed.

    Example:
        >>> retry_after("3"), retry_after("soon"), retry_after("Wed, 21 Oct 2015 07:28:00 GMT"), retry_after(None)
        (3.0, 0.0, 0.0, 0.0)
    """
    if value is None:
        return 0.0
    if value.strip().isascii() and value.strip().isdigit():
        return float(value)
    try:
        date = parsedate_to_datetime(value)
    except ValueError:
        return 0.0
    return max(0.0, (date.replace(tzinfo=date.tzinfo or UTC) - datetime.now(UTC)).total_seconds())
