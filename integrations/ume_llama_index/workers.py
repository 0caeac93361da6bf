"""Threads that do the models' work while an event loop goes on."""

from __future__ import annotations

import asyncio
import contextvars
import os
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Final, ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")

USUAL: Final = 2
"""Workers unless asked otherwise: models in this process serve one call at a time, while another call decodes."""


class Workers:
    """A few threads, running before they are needed.

    The event loop's own threads will not do: it starts one for each of the first calls and waits until it runs, which
    takes tens of milliseconds each while models compute; and fifty waiting queries would leave none for the rest of an
    app, not even for looking up a host name.

    Args:
        count: How many calls run at a time, >= 1.

    Example:
        >>> asyncio.run(Workers(1).run(max, 1, 2))
        2
    """

    def __init__(self, count: int = USUAL) -> None:
        self._count = count
        self._start()

    async def run(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Call `function` in a worker, in the caller's context, and wait without blocking the event loop."""
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
