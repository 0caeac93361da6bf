"""Coalescing: calls that wait at the same time become batches, and each gets its own result.

Calls of one kind (side, reasoning, target) share a lane. Its next batch is collected when the first model is free, so
batches grow with the load; the last model works on one batch while the first works on the next.
"""

from __future__ import annotations

import asyncio
import os
import threading
import time
from collections import deque
from collections.abc import Callable, Coroutine, Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, replace
from functools import partial, wraps
from typing import Any, ParamSpec, Protocol, TypeAlias, TypeVar, cast

from ume_retrieval.checkpoint import PIXELS_PER_TOKEN, VisualBudget
from ume_retrieval.errors import InputError, QueueFull
from ume_retrieval.inputs import Clip, Frames, Item, LoadedItem, Side, VideoReader
from ume_retrieval.pipeline.batch import Batch, Request
from ume_retrieval.pipeline.encode_options import EncodeOptions, Inputs
from ume_retrieval.pipeline.loading import Input, ItemLoader
from ume_retrieval.pipeline.stages import Chunk, StageRun
from ume_retrieval.results import EncodeResult
from ume_retrieval.util.threads import overlapped

IDLE_S = 1.0
"""Seconds after which a lane without calls ends its threads; the next call starts them again."""

LETTERS_PER_TOKEN = 3
"""A low estimate, so that a batch stays below its budget."""

P = ParamSpec("P")
T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Batching:
    """How concurrent `aencode_*` calls are put together.

    Attributes:
        window_s: Seconds that the first call of an idle lane waits for others, >= 0.
        items: Most inputs of a batch, >= 1; calls with more inputs run on their own.
        tokens: Most tokens of a batch, estimated from letters and pixels; a larger single call is a batch of its own.
        waiting: Most inputs that may wait in a lane; None sets no bound. Calls beyond it raise `errors.QueueFull`.

    Raises:
        InputError: When a number is out of range.

    Example:
        >>> Batching(items=32).window_s
        0.004
    """

    window_s: float = 0.004
    items: int = 64
    tokens: int = 65_536
    waiting: int | None = None

    def __post_init__(self) -> None:
        if self.window_s < 0 or min(self.items, self.tokens, 1 if self.waiting is None else self.waiting) < 1:
            raise InputError(f"cannot collect batches with {self}", hint="window_s is at least 0, the others 1")


DEFAULT_BATCHING = Batching()

LoadedStages: TypeAlias = tuple[ItemLoader, Sequence[StageRun]]
"""A loader, and the stages that its chunks go through."""


class Lane:
    """A queue of calls of one kind, and the threads that work on them.

    Args:
        make: Makes the loader and the stages (reasoning and embedding, or embedding only) of a batch.
        count: Number of stages.
        dimension: Length of a vector.
        batching: Size of the batches.
    """

    def __init__(self, make: Callable[[], LoadedStages], count: int, dimension: int, batching: Batching) -> None:
        self._make, self._count, self._dimension, self._batching = make, count, dimension, batching
        self._waiting: deque[Request] = deque()
        self._changed = threading.Condition()
        self._free = threading.Semaphore(1)  # the first model
        self._running = False

    def submit(self, inputs: Sequence[Input], options: EncodeOptions, stopped: threading.Event) -> Future[EncodeResult]:
        """Queue a call; its result has full float32 vectors, shape (n, dimension).

        Raises:
            QueueFull: When too many inputs are waiting.
        """
        loader, _ = self._make()
        budget = loader.reasoner_budget or loader.embedder_budget
        request = Request(inputs, options.strict, stopped, sum(_tokens(one, budget) for one in inputs))
        with self._changed:
            most = self._batching.waiting
            if most is not None and sum(len(one.inputs) for one in self._waiting) + len(inputs) > most:
                raise QueueFull(f"{most} inputs are waiting already", hint="try again in a moment", retryable=True)
            self._waiting.append(request)
            self._changed.notify()
            if not self._running:
                self._running = True
                threading.Thread(target=self._run, name="batches", daemon=True).start()
        return request.future

    def _run(self) -> None:
        steps: list[Callable[[Any], Any]] = [self._first, *(partial(_work, number) for number in range(1, self._count))]
        for batch, chunk in overlapped(self._batches(), steps):
            try:
                batch.resolve(chunk, self._dimension)
            except Exception as error:  # noqa: BLE001  # it is raised again in the calls
                batch.fail(error)

    def _batches(self) -> Iterator[tuple[Batch, Chunk]]:
        """Collect and load batches until the lane is idle."""
        while True:
            self._free.acquire()
            if not (requests := self._collect()):
                self._free.release()
                return
            loader, stages = self._make()
            batch = Batch(requests, stages)
            try:
                for chunk in loader.chunks(batch.inputs, batch.call):
                    yield batch, batch.distinct(chunk)
            except Exception as error:  # noqa: BLE001  # it is raised again in the calls
                batch.fail(error)
                self._free.release()

    def _first(self, work: tuple[Batch, Chunk]) -> tuple[Batch, Chunk]:
        batch, chunk = work
        try:
            return _work(0, work)
        finally:
            if chunk.stop == len(batch.inputs):
                self._free.release()

    def _collect(self) -> list[Request]:
        with self._changed:
            if not self._changed.wait_for(lambda: self._waiting, IDLE_S):
                self._running = False
                return []
            until = time.monotonic() + self._batching.window_s
            while not self._is_full() and (left := until - time.monotonic()) > 0:
                self._changed.wait(left)
            taken: list[Request] = []
            items = tokens = 0
            while self._waiting:
                following = self._waiting[0]
                items, tokens = items + len(following.inputs), tokens + following.tokens
                if taken and (items > self._batching.items or tokens > self._batching.tokens):
                    break
                taken.append(self._waiting.popleft())
            return taken

    def _is_full(self) -> bool:
        return (
            sum(len(one.inputs) for one in self._waiting) >= self._batching.items
            or sum(one.tokens for one in self._waiting) >= self._batching.tokens
        )


class Lanes:
    """The lanes of one embedder, by kind of call; a copy, or a forked process, begins without any."""

    def __init__(self) -> None:
        self._lanes: dict[tuple[object, ...], Lane] = {}

    def __reduce__(self) -> tuple[type[Lanes], tuple[()]]:
        return Lanes, ()

    async def encode(
        self,
        make: partial[list[StageRun]],
        loader: Callable[[Sequence[StageRun]], ItemLoader],
        inputs: Sequence[Input],
        options: EncodeOptions,
        *,
        dimension: int,
        batching: Batching,
    ) -> EncodeResult:
        """Encode inputs in the lane of their kind; cancelling the task takes them out of it.

        Args:
            make: Makes the stages of a batch; its arguments are the kind of the call.
            loader: Makes the loader for stages.
            inputs: At least one.
            options: Of the call.
            dimension: Length of a vector.
            batching: Size of the batches of a new lane.
        """
        count, stopped = len(make()), options.stopped or threading.Event()
        kind = (*make.args, os.getpid())
        if kind not in self._lanes:
            self._lanes[kind] = Lane(lambda: (loader(stages := make()), stages), count, dimension, batching)
        try:
            return await asyncio.wrap_future(self._lanes[kind].submit(inputs, options, stopped))
        except asyncio.CancelledError:
            stopped.set()
            raise


def _work(number: int, work: tuple[Batch, Chunk]) -> tuple[Batch, Chunk]:
    """Run a stage over the items that someone still waits for; whatever it raises ends the batch, never the lane."""
    batch, chunk = work
    wanted = [item for item in chunk.items if batch.is_wanted(item.index)]
    if not wanted:
        return batch, replace(chunk, items=[])
    try:
        return batch, batch.stages[number].run(replace(chunk, items=wanted), batch.call)
    except Exception as error:  # noqa: BLE001  # it is raised again in the calls
        batch.fail(error)
        return batch, replace(chunk, items=[])


def _tokens(value: Input, budget: VisualBudget) -> int:
    """Estimate the tokens of an input before it is loaded."""
    if isinstance(value, str):
        return 1 + len(value) // LETTERS_PER_TOKEN
    if isinstance(value, (Item, LoadedItem)):
        words = len(value.text or "") + len(value.instruction or "")
        images, videos = len(value.images), len(value.videos)
    else:
        words, videos = 0, int(isinstance(value, (Clip, Frames, VideoReader)))
        images = 1 - videos
    frames = videos * budget.video_frames * budget.frame_max_pixels
    return 1 + words // LETTERS_PER_TOKEN + (images * budget.image_max_pixels + frames) // PIXELS_PER_TOKEN


class Coalesces(Protocol):
    """An object whose concurrent calls are put together."""

    async def encode_together(self, inputs: Inputs, side: Side, options: EncodeOptions) -> EncodeResult:
        """Encode inputs in a batch with those of other calls."""
        ...


def coalesced(side: Side) -> Callable[[Callable[P, T]], Callable[P, Coroutine[Any, Any, T]]]:
    """Derive the async form of `encode_query` or `encode_corpus`; concurrent calls become batches.

    Cancelling the task takes its inputs out of the batch, or out of the stages that have not begun.
    """

    def derive(call: Callable[P, T]) -> Callable[P, Coroutine[Any, Any, T]]:
        @wraps(call)
        async def run(*args: P.args, **kwargs: P.kwargs) -> T:
            return_traces = kwargs.pop("return_traces", False)
            embedder, inputs = _receiver(*args, **{name: kwargs.pop(name) for name in ("inputs",) if name in kwargs})
            result = await embedder.encode_together(inputs, side, EncodeOptions(**cast("dict[str, Any]", kwargs)))
            return cast("T", result if return_traces else result.vectors)

        return run

    return derive


def _receiver(embedder: Any, inputs: Any) -> tuple[Coalesces, Inputs]:
    return embedder, inputs
