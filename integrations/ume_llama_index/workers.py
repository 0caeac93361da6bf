"""Run models in threads while the event loop continues."""

from __future__ import annotations

import asyncio
import contextvars
import os
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Final, ParamSpec, Protocol, TypeVar

P = ParamSpec("P")
T = TypeVar("T")

DEFAULT_WORKERS: Final = 2
"""Models in this process serve one call at a time, while another call decodes."""


class Run(Protocol):
    """Calls a function, here or in a worker."""

    async def __call__(self, function: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        """Call `function` and return its result."""
        ...


async def call_inline(function: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
    """Call a function at once, for `run_inline`."""
    return function(*args, **kwargs)


class Workers:
    """A few threads, started in advance.

    The event loop's default threads are unsuitable: starting one takes tens of milliseconds while models compute, and
    fifty waiting queries would leave none for the rest of an app, not even for resolving a host name.

    Args:
        count: Number of threads, >= 1.

    Example:
        >>> asyncio.run(Workers(1).run(max, 1, 2))
        2
    """

    def __init__(self, count: int = DEFAULT_WORKERS) -> None:
        self._count = count
        self._start()

    async def run(self, function: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        """Call `function` in a worker, in the caller's context, without blocking the event loop."""
        if self._process != os.getpid():
            self._start()  # threads do not survive a fork
        call = partial(contextvars.copy_context().run, function, *args, **kwargs)
        return await asyncio.get_running_loop().run_in_executor(self._pool, call)

    def _start(self) -> None:
        self._process = os.getpid()
        self._pool = ThreadPoolExecutor(self._count, thread_name_prefix="ume-llama-index")
        met = threading.Barrier(self._count + 1)
        for _ in range(self._count):
            self._pool.submit(met.wait)
        met.wait()
