"""The async twins of an encoder: the same calls in a worker thread, which a cancelled task ends."""

from __future__ import annotations

import asyncio
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable
from contextvars import ContextVar
from functools import partial
from typing import Any, Final, Literal, TypeVar, Unpack, overload

from ume_retrieval.pipeline.encode_options import CorpusOptions, Inputs, QueryOptions, Vectors
from ume_retrieval.results import EncodeResult

Made = TypeVar("Made")

_CANCELLED: Final = ContextVar[threading.Event | None]("cancelled", default=None)


def cancellation() -> threading.Event | None:
    """The event that says that an async twin's task was cancelled, for the one call that the twin makes."""
    event = _CANCELLED.get()
    # A call inside of that call, from its `on_progress`, ends by itself: it must not end the outer one with it.
    _CANCELLED.set(None)
    return event


class AsyncEncoding(ABC):
    """Gives `aencode_query` and `aencode_corpus` to what has `encode_query` and `encode_corpus`."""

    @abstractmethod
    def encode_query(self, *args: Any, **kwargs: Any) -> Any:
        """Encode what is searched with."""

    @abstractmethod
    def encode_corpus(self, *args: Any, **kwargs: Any) -> Any:
        """Encode what is to be found."""

    @overload
    async def aencode_query(
        self, inputs: Inputs, *, return_traces: Literal[False] = False, **options: Unpack[QueryOptions]
    ) -> Vectors: ...
    @overload
    async def aencode_query(
        self, inputs: Inputs, *, return_traces: Literal[True], **options: Unpack[QueryOptions]
    ) -> EncodeResult: ...
    async def aencode_query(
        self, inputs: Inputs, *, return_traces: bool = False, **options: Unpack[QueryOptions]
    ) -> Vectors | EncodeResult:
        """`encode_query` in a worker thread, so that the event loop goes on.

        When the task is cancelled, engines finish what they are at and are asked nothing more; finished traces are
        kept.
        """
        encode = self.encode_query
        if return_traces:
            return await _in_thread(partial(encode, inputs, return_traces=True, **options))
        return await _in_thread(partial(encode, inputs, **options))

    @overload
    async def aencode_corpus(
        self, inputs: Inputs, *, return_traces: Literal[False] = False, **options: Unpack[CorpusOptions]
    ) -> Vectors: ...
    @overload
    async def aencode_corpus(
        self, inputs: Inputs, *, return_traces: Literal[True], **options: Unpack[CorpusOptions]
    ) -> EncodeResult: ...
    async def aencode_corpus(
        self, inputs: Inputs, *, return_traces: bool = False, **options: Unpack[CorpusOptions]
    ) -> Vectors | EncodeResult:
        """`encode_corpus` in a worker thread, so that the event loop goes on; cancelled as `aencode_query` is."""
        encode = self.encode_corpus
        if return_traces:
            return await _in_thread(partial(encode, inputs, return_traces=True, **options))
        return await _in_thread(partial(encode, inputs, **options))

    aencode_document = aencode_corpus


async def _in_thread(call: Callable[[], Made]) -> Made:
    cancelled = threading.Event()

    def run() -> Made:
        _CANCELLED.set(cancelled)  # in the thread's own copy of the context
        return call()

    try:
        return await asyncio.to_thread(run)
    except asyncio.CancelledError:
        cancelled.set()
        raise
