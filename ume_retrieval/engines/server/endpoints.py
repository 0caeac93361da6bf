"""Load balancing: the server with the fewest open requests is next; one that fails is left alone for a while."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

from ume_retrieval.util.retry import Busy

FIRST_REST_S: Final = 1.0
LONGEST_REST_S: Final = 60.0


@dataclass(slots=True, eq=False)
class Endpoint:
    """One of the servers.

    Attributes:
        url: Its address with `/v1`.
        outstanding: Open requests.
        failures: Requests in a row that it did not answer.
        rests_until: Earliest time of its next request, by the clock of its `Endpoints`.
        is_known: Whether it has shown that it serves the model.
    """

    url: str
    outstanding: int = 0
    failures: int = 0
    rests_until: float = 0.0
    is_known: bool = False

    def is_willing(self, now: float) -> bool:
        """Whether it may be asked. After a failure it gets one request alone, which shows whether it is back."""
        return now >= self.rests_until and not (self.failures and self.outstanding)


class Endpoints:
    """Chooses who is asked next. Safe to use from several threads.

    Args:
        urls: Addresses with `/v1`, at least one.
        clock: Seconds.

    Example:
        >>> endpoints = Endpoints(["http://one/v1", "http://two/v1"])
        >>> with endpoints.least_busy() as first, endpoints.least_busy() as second:
        ...     first.url, second.url
        ('http://one/v1', 'http://two/v1')
    """

    def __init__(self, urls: Sequence[str], clock: Callable[[], float] = time.monotonic) -> None:
        self.all = tuple(Endpoint(url) for url in urls)
        self._clock = clock
        self._lock = threading.Lock()

    @contextmanager
    def least_busy(self) -> Iterator[Endpoint]:
        """Ask the willing server with the fewest requests; when none is willing, the one that has rested longest."""
        with self._lock:
            now = self._clock()
            willing = [one for one in self.all if one.is_willing(now)]
            if willing:
                chosen = min(willing, key=lambda one: one.outstanding)
            else:
                chosen = min(self.all, key=lambda one: (one.rests_until, one.outstanding))
            chosen.outstanding += 1
        with self._asking(chosen):
            yield chosen

    @contextmanager
    def this(self, endpoint: Endpoint) -> Iterator[Endpoint]:
        """Ask one of the servers."""
        with self._lock:
            endpoint.outstanding += 1
        with self._asking(endpoint):
            yield endpoint

    @contextmanager
    def _asking(self, endpoint: Endpoint) -> Iterator[None]:
        """Leave the server alone for a while after a `Busy`; anything else shows that it works."""
        is_busy, asked_for = False, 0.0
        try:
            yield
        except Busy as busy:
            is_busy, asked_for = True, busy.wait_s
            raise
        finally:
            with self._lock:
                endpoint.outstanding -= 1
                if is_busy:
                    rest = min(LONGEST_REST_S, FIRST_REST_S * 2.0 ** min(endpoint.failures, 10))
                    endpoint.failures += 1
                    endpoint.rests_until = self._clock() + max(rest, min(asked_for, LONGEST_REST_S))
                else:
                    endpoint.failures = 0
