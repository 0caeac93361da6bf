"""Requests that are tried again: bounded exponential back-off with jitter that keeps a server's Retry-After."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import TypeVar

from ume_retrieval.errors import ServerError

T = TypeVar("T")


class Busy(ServerError):
    """A request that may succeed later.

    Args:
        message: What happened.
        hint: What to do when it stays so.
        wait_s: Seconds that the server asked to be left alone, 0 when it did not say.
    """

    def __init__(self, message: str, *, hint: str = "", wait_s: float = 0.0) -> None:
        super().__init__(message, hint=hint, retryable=True)
        self.wait_s = wait_s


@dataclass(frozen=True, slots=True)
class Backoff:
    """How often and how patiently a request is tried again.

    The n-th wait is `first_s * 2**n`, at most `longest_s`, of which a random half is left out, so that many clients do
    not come back at once. A wait that the server asks for is kept, up to `longest_s`.

    Attributes:
        attempts: Most tries in all, >= 1.
        first_s: First wait in seconds.
        longest_s: Longest single wait in seconds.
        sleep: Waits for a number of seconds.
        uniform: A random number in [0, 1).
    """

    attempts: int
    first_s: float = 0.5
    longest_s: float = 30.0
    sleep: Callable[[float], None] = time.sleep
    uniform: Callable[[], float] = random.random

    def call(self, request: Callable[[], T]) -> T:
        """Call `request` until it does not raise `Busy`, or attempts run out.

        Raises:
            ServerError: The last `Busy`, with the number of attempts in its message; any other error at once.
        """
        for attempt in range(self.attempts - 1):
            try:
                return request()
            except Busy as busy:
                wait = min(self.longest_s, self.first_s * 2**attempt) * (0.5 + 0.5 * self.uniform())
                self.sleep(max(wait, min(busy.wait_s, self.longest_s)))
        try:
            return request()
        except Busy as busy:
            raise ServerError(f"{busy.message} ({self.attempts} attempts)", hint=busy.hint, retryable=True) from busy


def retry_after(value: str | None) -> float:
    """Seconds that a Retry-After header asks for, 0 when it says nothing that can be read.

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
