"""What one call of the pipeline has met so far: failures, cost and progress. Its stages may be in several threads."""

from __future__ import annotations

import threading
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Literal, TypeAlias, TypeVar, cast

from ume_retrieval.chat import Chat
from ume_retrieval.errors import Failure, SomeFailed, UmeError
from ume_retrieval.results import Usage

Stage: TypeAlias = Literal["load", "reason", "embed"]
"""The stages that an item passes, in this order."""

Progress: TypeAlias = Callable[[int, int, Stage], None]
"""Called with (inputs done, inputs in all as far as they are known, stage)."""

Reply = TypeVar("Reply")


class Ledger:
    """Book of one call.

    Args:
        total: How many inputs the call has, or None while that is not known.
        strict: Raise the first failure instead of noting it.
        on_progress: Called as inputs pass a stage, or None.
        stopped: What others set when they no longer want the call, or None.

    Attributes:
        failures: What was left out so far, in order of discovery.
        problems: How many traces have each named problem.
        reasoner_calls: Chats that the Reasoner answered.
        cached_traces: Inputs whose trace was there already.
        embedder_calls: Chats that the Embedder embedded.
        prompt_tokens: Tokens that the Reasoner read.
        completion_tokens: Tokens that the Reasoner wrote.
        embedded_tokens: Tokens that the Embedder read.
        stopped: Set when nobody wants the rest of the call any more.
    """

    def __init__(
        self,
        total: int | None,
        *,
        strict: bool,
        on_progress: Progress | None = None,
        stopped: threading.Event | None = None,
    ) -> None:
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
        self.stopped = stopped or threading.Event()
        self._seconds: defaultdict[str, float] = defaultdict(float)
        self._on_progress = on_progress
        self._telling = threading.Lock()
        self._reached: dict[Stage, int] = {}

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
            For each chat its reply or its error. Behind the first error of a strict call there may be more errors than
            there are refused chats: it ends at the first, so that the others are not tried.

        Raises:
            UmeError: When the call is strict and the error strikes all chats alike.
        """
        if not chats:
            return []
        try:
            return list(call(chats))
        except SomeFailed as some:
            return cast("list[Reply | UmeError]", list(some.outcomes))
        except UmeError as error:
            # What may pass (a busy server) strikes all alike; a refusal is worth finding among the chats.
            if error.retryable and self.strict and len(chats) > 1:
                raise
            if error.retryable or len(chats) == 1:
                return [error] * len(chats)
            refusal = error
        return self._by_halves(call, chats, refusal)

    def _by_halves(
        self, call: Callable[[Sequence[Chat]], Sequence[Reply]], chats: Sequence[Chat], refusal: UmeError
    ) -> list[Reply | UmeError]:
        middle = len(chats) // 2
        replies = self.attempt(call, chats[:middle])
        if self.strict and any(isinstance(reply, UmeError) for reply in replies):
            return replies + [refusal] * (len(chats) - middle)
        return replies + self.attempt(call, chats[middle:])

    @contextmanager
    def timed(self, stage: Stage) -> Iterator[None]:
        """Add the time of the block to the stage."""
        start = time.perf_counter()
        try:
            yield
        finally:
            self._seconds[stage] += time.perf_counter() - start

    def report(self, stage: Stage, reached: int) -> None:
        """Tell the caller that inputs up to a position, failed ones included, are through a stage."""
        self._reached[stage] = reached
        if self._on_progress is not None:
            # Stages run side by side; the caller hears of one at a time.
            with self._telling:
                self._on_progress(reached, self.known_total(), stage)

    def known_total(self) -> int:
        """How many inputs the call has, as far as that is known."""
        return self._reached.get("load", 0) if self.total is None else self.total

    def rates(self) -> dict[str, float]:
        """Inputs that went through each stage in a second of its work, so far."""
        reached = dict(self._reached)
        return {stage: count / max(1e-9, self._seconds[stage]) for stage, count in reached.items()}

    def take_failures(self, stop: int) -> dict[int, Failure]:
        """Failures of inputs before a position, by index, taken out so that a long call does not pile them up."""
        taken = {failure.index: failure for failure in list(self.failures) if failure.index < stop}
        # In place, and only what was taken: other stages go on adding.
        for failure in taken.values():
            self.failures.remove(failure)
        return taken

    def failures_in_order(self) -> tuple[Failure, ...]:
        """What was left out, by position of the input."""
        return tuple(sorted(self.failures, key=lambda failure: failure.index))

    def usage(self) -> Usage:
        """The cost so far."""
        return Usage(
            items=self.known_total(),
            reasoner_calls=self.reasoner_calls,
            cached_traces=self.cached_traces,
            embedder_calls=self.embedder_calls,
            prompt_tokens=self.prompt_tokens,
            completion_tokens=self.completion_tokens,
            embedded_tokens=self.embedded_tokens,
            trace_problems=dict(self.problems),
            seconds=dict(self._seconds),
        )
