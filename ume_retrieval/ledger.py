"""What one call of the pipeline has met so far: failures, cost and progress."""

from __future__ import annotations

import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Literal, TypeAlias, TypeVar

from ume_retrieval.chat import Chat
from ume_retrieval.errors import Failure, UmeError
from ume_retrieval.results import Usage

Stage: TypeAlias = Literal["load", "reason", "embed"]
"""The stages that an item passes, in this order."""

Progress: TypeAlias = Callable[[int, int, Stage], None]
"""Called with (inputs done, inputs in all, stage)."""

Reply = TypeVar("Reply")


class Ledger:
    """Book of one call.

    Args:
        total: How many inputs the call has.
        strict: Raise the first failure instead of noting it.
        on_progress: Called as inputs pass a stage, or None.

    Attributes:
        failures: What was left out so far, in order of discovery.
        problems: How many traces have each named problem.
        reasoner_calls: Chats that the Reasoner answered.
        cached_traces: Inputs whose trace was there already.
        embedder_calls: Chats that the Embedder embedded.
        prompt_tokens: Tokens that the Reasoner read.
        completion_tokens: Tokens that the Reasoner wrote.
        embedded_tokens: Tokens that the Embedder read.
        reached: Inputs up to the end of the current chunk, failed ones included.
    """

    def __init__(self, total: int, *, strict: bool, on_progress: Progress | None = None) -> None:
        self.total = total
        self.strict = strict
        self.failures: list[Failure] = []
        self.problems = Counter[str]()
        self.reasoner_calls = 0
        self.cached_traces = 0
        self.embedder_calls = 0
        self.prompt_tokens = 0
        self.completion_tokens = 0
        self.embedded_tokens = 0
        self.reached = 0
        self._seconds: defaultdict[str, float] = defaultdict(float)
        self._on_progress = on_progress

    def fail(self, error: UmeError, *, index: int, source: str = "") -> None:
        """Note that an input is left out, or raise the error when the call is strict."""
        if self.strict:
            error.add_note(f"input {index}" + (f" ({source})" if source else ""))
            raise error
        self.failures.append(Failure.of(error, index=index, source=source))

    def attempt(
        self, call: Callable[[Sequence[Chat]], Sequence[Reply]], chats: Sequence[Chat]
    ) -> list[Reply | UmeError]:
        """Run an engine over chats; a chat that it refuses costs the others a second try, not their place.

        Returns:
            For each chat its reply or its error.
        """
        if not chats:
            return []
        try:
            return list(call(chats))
        except UmeError as error:
            if self.strict:
                raise
            # What may pass (a busy server) strikes all alike; a refusal is worth finding among the chats.
            if len(chats) == 1 or error.retryable:
                return [error] * len(chats)
        middle = len(chats) // 2
        return self.attempt(call, chats[:middle]) + self.attempt(call, chats[middle:])

    @contextmanager
    def timed(self, stage: Stage) -> Iterator[None]:
        """Add the time of the block to the stage."""
        start = time.perf_counter()
        try:
            yield
        finally:
            self._seconds[stage] += time.perf_counter() - start

    def report(self, stage: Stage) -> None:
        """Tell the caller that the current chunk is through a stage."""
        if self._on_progress is not None:
            self._on_progress(self.reached, self.total, stage)

    def failures_in_order(self) -> tuple[Failure, ...]:
        """What was left out, by position of the input."""
        return tuple(sorted(self.failures, key=lambda failure: failure.index))

    def usage(self) -> Usage:
        """The cost so far."""
        return Usage(
            items=self.total,
            reasoner_calls=self.reasoner_calls,
            cached_traces=self.cached_traces,
            embedder_calls=self.embedder_calls,
            prompt_tokens=self.prompt_tokens,
            completion_tokens=self.completion_tokens,
            embedded_tokens=self.embedded_tokens,
            trace_problems=dict(self.problems),
            seconds=dict(self._seconds),
        )
