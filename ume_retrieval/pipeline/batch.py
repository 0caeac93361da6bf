"""A batch of calls: equal items once, and to each call its own vectors, traces, failures and share of the cost."""

from __future__ import annotations

import copy
import threading
from collections import defaultdict
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field, replace
from typing import cast

import numpy as np

from ume_retrieval.errors import Failure, ItemWarning, Stopped, UmeError
from ume_retrieval.inputs import LoadedItem
from ume_retrieval.pipeline.loading import Input, item_warnings
from ume_retrieval.pipeline.reasoning import problems_of
from ume_retrieval.pipeline.stages import Call, Chunk, Failures, FloatRow, StageItem, StageRun
from ume_retrieval.results import EncodeResult, Trace, Usage


@dataclass(slots=True)
class BatchErrors(Failures):
    """Failures of a batch as errors, so that each call can raise its own."""

    errors: dict[int, UmeError] = field(default_factory=dict)

    def add(self, error: UmeError, *, index: int, source: str = "") -> None:
        """Note a failure."""
        self.errors[index] = error
        Failures.add(self, error, index=index, source=source)


class _AllStopped(threading.Event):
    """Is set when every call of a batch was cancelled."""

    def __init__(self, requests: Sequence[Request]) -> None:
        super().__init__()
        self._requests = requests

    def is_set(self) -> bool:
        return super().is_set() or all(request.stopped.is_set() for request in self._requests)


@dataclass(slots=True, eq=False)
class Request:
    """One call.

    Attributes:
        inputs: Its inputs.
        strict: Whether its first failure is raised.
        stopped: Is set when its result is no longer needed.
        tokens: Estimated tokens of its inputs.
        future: Receives its result.
    """

    inputs: Sequence[Input]
    strict: bool
    stopped: threading.Event
    tokens: int
    future: Future[EncodeResult] = field(default_factory=Future)


class Batch:
    """Calls that go through the stages together.

    Args:
        requests: At least one.
        stages: Reasoning and embedding, or embedding only; of this batch.
    """

    def __init__(self, requests: Sequence[Request], stages: Sequence[StageRun]) -> None:
        self.requests = requests
        self.stages = stages
        self.inputs = [one for request in requests for one in request.inputs]
        self.call = Call(BatchErrors(strict=False), len(self.inputs), stopped=_AllStopped(requests))
        self._owners = [request for request in requests for _ in request.inputs]
        self._leader: dict[int, int] = {}
        self._askers: defaultdict[int, set[int]] = defaultdict(set)
        self._by_content: dict[str, int] = {}
        self._done: dict[int, StageItem] = {}
        self._warnings: dict[int, list[ItemWarning]] = {}
        self._embedded = 0

    def distinct(self, chunk: Chunk) -> Chunk:
        """Leave equal items out, so that each is reasoned over and embedded once."""
        items: list[StageItem] = []
        for item in chunk.items:
            self._warnings[item.index] = item_warnings(item)
            leader = item.index
            if not isinstance(self.inputs[item.index], LoadedItem):
                leader = self._by_content.setdefault(item.seen.content_id, leader)
            if leader < chunk.start:  # in the models already; a second time costs less than to wait for it here
                leader = item.index
            self._leader[item.index] = leader
            self._askers[leader].add(item.index)
            if leader == item.index:
                items.append(item)
        return replace(chunk, items=items)

    def is_wanted(self, leader: int) -> bool:
        """Whether a call that has this item is still waiting."""
        owners = (self._owners[index] for index in self._askers[leader])
        return any(not owner.stopped.is_set() and not owner.future.done() for owner in owners)

    def fail(self, error: Exception) -> None:
        """End all calls of the batch that have no result yet."""
        for request in self.requests:
            if not request.future.done():
                _settle(request.future, error=copy.copy(error))

    def resolve(self, chunk: Chunk, dimension: int) -> None:
        """Give results to the calls whose last input this chunk contains."""
        self._done |= {item.index: item for item in chunk.items}
        self._embedded += len(chunk.items)
        start = 0
        for request in self.requests:
            stop = start + len(request.inputs)
            if chunk.start < stop <= chunk.stop and not request.future.done():
                if request.stopped.is_set():
                    _settle(request.future, error=Stopped())
                else:
                    self._answer(request, range(start, stop), dimension)
            start = stop

    def _answer(self, request: Request, places: range, dimension: int) -> None:
        failures: list[Failure] = []
        traces: list[Trace | None] = []
        vectors = np.full((len(places), dimension), np.nan, dtype=np.float32)
        errors = cast("BatchErrors", self.call.failures).errors
        for row, place in enumerate(places):
            leader = self._leader.get(place, place)
            if leader in errors:
                error = errors[leader]
                source = next((one.source for one in self.call.failures.found if one.index == leader), "")
                if request.strict:
                    error = copy.copy(error)
                    error.add_note(f"input {row}" + (f" ({source})" if source else ""))
                    return _settle(request.future, error=error)
                failures.append(Failure.of(error, index=row, source=source))
                traces.append(None)
                continue
            item = self._done[leader]
            vectors[row] = cast("FloatRow", item.vector)
            cached = item.trace and (item.trace if leader == place else replace(item.trace, cached=True))
            traces.append(cached)
        usage = self._usage(places, traces)
        warnings = tuple(dict.fromkeys(one for place in places for one in self._warnings.get(place, ())))
        return _settle(request.future, EncodeResult(vectors, tuple(traces), tuple(failures), usage, warnings))

    def _usage(self, places: range, traces: Sequence[Trace | None]) -> Usage:
        """Return a call's share of the cost; tokens of the Embedder are shared evenly."""
        if len(self.requests) == 1:
            return self.call.usage()
        new = [trace for trace in traces if trace is not None and not trace.cached]
        embedded = [place for place in places if self._leader.get(place) == place and place in self._done]
        problems: defaultdict[str, int] = defaultdict(int)
        for place, trace in zip(places, traces, strict=True):
            if trace is not None:
                for name in problems_of(trace.tcot, self._done[self._leader[place]].seen.modality):
                    problems[name] += 1
        return Usage(
            items=len(places),
            reasoner_calls=len(new),
            cached_traces=sum(trace is not None and trace.cached for trace in traces),
            embedder_calls=len(embedded),
            prompt_tokens=sum(trace.prompt_tokens for trace in new),
            completion_tokens=sum(trace.completion_tokens for trace in new),
            embedded_tokens=self.call.stats.embedded_tokens * len(embedded) // max(1, self._embedded),
            trace_problems=dict(problems),
            seconds=dict(self.call.stats.seconds),
        )


def _settle(
    future: Future[EncodeResult], result: EncodeResult | None = None, *, error: Exception | None = None
) -> None:
    """Set the outcome of a future unless its reader has cancelled it."""
    if not future.set_running_or_notify_cancel():
        return
    if error is not None:
        future.set_exception(error)
    else:
        future.set_result(cast("EncodeResult", result))
