"""The values that pass between the stages load, reason and embed; and the stage that embeds."""

from __future__ import annotations

import threading
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from time import perf_counter
from typing import Literal, Protocol, TypeAlias, cast

import numpy as np
import numpy.typing as npt

from ume_retrieval.chat import Chat
from ume_retrieval.engines.base import Embedder, SupportsPartialEmbedding
from ume_retrieval.engines.families import embedding_chat
from ume_retrieval.engines.outcomes import isolate
from ume_retrieval.errors import Failure, ItemWarning, ModelError, Stopped, UmeError
from ume_retrieval.inputs import LoadedItem, Side
from ume_retrieval.results import Trace, Usage
from ume_retrieval.tcot.evidence import Evidence
from ume_retrieval.util.progress import OnProgress, Progress
from ume_retrieval.util.threads import fork_safe_lock

Stage: TypeAlias = Literal["load", "reason", "embed"]
"""The stages that an item passes, in this order."""

FloatRow: TypeAlias = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True, eq=False)
class StageItem:
    """One input in the pipeline; each stage returns a copy with its own result added.

    Attributes:
        index: Position in the call.
        source: Name for reports; may be empty.
        seen: Text and pixels as the Reasoner samples them; key frames are numbered in this sampling.
        shown: The same for the Embedder; the same object unless the two models sample this item differently.
        trace: The trace, after reasoning.
        evidence: The pictures that the trace names, after reasoning.
        vector: Shape (dimension,), after embedding.
    """

    index: int
    source: str
    seen: LoadedItem
    shown: LoadedItem
    trace: Trace | None = None
    evidence: Evidence | None = None
    vector: FloatRow | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Chunk:
    """Inputs that pass the stages together.

    Attributes:
        start: Position of the first input in the call.
        stop: Position after the last one.
        items: The inputs that are still in, in order; failed ones are left out.
    """

    start: int
    stop: int
    items: list[StageItem]


@dataclass(slots=True)
class CallStats:
    """Cost of a call so far; `results.Usage` explains the fields."""

    reasoner_calls: int = 0
    cached_traces: int = 0
    embedder_calls: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    embedded_tokens: int = 0
    problems: Counter[str] = field(default_factory=Counter)
    seconds: defaultdict[str, float] = field(default_factory=partial(defaultdict, float))
    reached: dict[Stage, int] = field(default_factory=dict)

    def rates(self) -> dict[str, float]:
        """Inputs per second of work, by stage."""
        return {stage: count / max(1e-9, self.seconds[stage]) for stage, count in dict(self.reached).items()}


@dataclass(slots=True)
class Failures:
    """Inputs that a call leaves out. With `strict`, the first one ends the call.

    Stages in several threads may add at the same time.
    """

    strict: bool
    found: list[Failure] = field(default_factory=list)

    def add(self, error: UmeError, *, index: int, source: str = "") -> None:
        """Note a failure, or raise it when the call is strict."""
        if self.strict:
            error.add_note(f"input {index}" + (f" ({source})" if source else ""))
            raise error
        self.found.append(Failure.of(error, index=index, source=source))

    def take(self, stop: int) -> dict[int, Failure]:
        """Remove and return the failures before a position, by index, so that a long stream does not pile them up."""
        taken = {failure.index: failure for failure in list(self.found) if failure.index < stop}
        # In place, and only what was taken: other stages go on adding.
        for failure in taken.values():
            self.found.remove(failure)
        return taken

    def in_order(self) -> tuple[Failure, ...]:
        """Return the failures by position of the input."""
        return tuple(sorted(self.found, key=lambda failure: failure.index))


@dataclass(slots=True)
class Call:
    """State that the stages of one call share.

    Attributes:
        failures: Inputs that were left out.
        warnings: What is not as it should be about inputs that were used, each once.
        total: Number of inputs, or None while that is unknown.
        on_progress: Receives every step of every stage, one call at a time.
        stopped: Cancels the call when set.
        stats: Cost so far.
    """

    failures: Failures
    total: int | None = None
    on_progress: OnProgress | None = None
    stopped: threading.Event = field(default_factory=threading.Event)
    stats: CallStats = field(default_factory=CallStats)
    warnings: dict[ItemWarning, None] = field(default_factory=dict)
    _reporting: threading.Lock = field(default_factory=threading.Lock)

    def advance(self, stage: Stage, reached: int, since: float) -> None:
        """Record that a stage has processed the inputs up to a position, and how long it took.

        Args:
            stage: The stage.
            reached: Position after the last input, failed ones included.
            since: `perf_counter` when the stage took them up.
        """
        self.stats.seconds[stage] += perf_counter() - since
        self.stats.reached[stage] = reached
        if self.on_progress is not None:
            # Stages run at the same time; the callback gets one step at a time.
            with self._reporting:
                self.on_progress(Progress(stage, reached, self.known_total()))

    def known_total(self) -> int:
        """Number of inputs, or of loaded inputs while the total is unknown."""
        return self.stats.reached.get("load", 0) if self.total is None else self.total

    def usage(self) -> Usage:
        """Cost so far, as a value."""
        stats = self.stats
        return Usage(
            items=self.known_total(),
            reasoner_calls=stats.reasoner_calls,
            cached_traces=stats.cached_traces,
            embedder_calls=stats.embedder_calls,
            prompt_tokens=stats.prompt_tokens,
            completion_tokens=stats.completion_tokens,
            embedded_tokens=stats.embedded_tokens,
            trace_problems=dict(stats.problems),
            seconds=dict(stats.seconds),
        )


def as_listener(on_progress: Callable[[int, int, Stage], None] | None) -> OnProgress | None:
    """Return a listener of the stages that calls a caller's own, if there is one."""
    return on_progress and (lambda step: on_progress(step.done, step.total or 0, cast("Stage", step.stage)))


class StageRun(Protocol):
    """A stage: takes a chunk and returns it with its own results added and failed inputs left out."""

    def run(self, chunk: Chunk, call: Call) -> Chunk:
        """Process a chunk.

        Raises:
            Stopped: When the call is cancelled meanwhile.
            UmeError: When the call is strict and an input fails.
        """
        ...


def run_in_turn(chunks: Iterable[Chunk], stages: Sequence[StageRun], call: Call) -> Iterator[Chunk]:
    """Pass chunks through the stages, one after the other, in this thread.

    Raises:
        Stopped: When the call is cancelled.
    """
    for loaded in chunks:
        chunk = loaded
        for stage in stages:
            if call.stopped.is_set():
                raise Stopped
            chunk = stage.run(chunk, call)
        yield chunk


@dataclass(frozen=True, slots=True)
class EmbedStage:
    """Embeds items, each with its trace and evidence if it has them.

    Attributes:
        embedder: The engine.
        side: Which prompts of the Embedder are used, "query" or "corpus".
        lock: Held while the engine runs.
    """

    embedder: Embedder
    side: Side
    lock: threading.Lock = field(default_factory=fork_safe_lock)

    def run(self, chunk: Chunk, call: Call) -> Chunk:
        """Return the items that could be embedded, in order, each with its vector."""
        with self.lock:
            since = perf_counter()
            chats: list[Chat] = []
            written: list[StageItem] = []
            for item in chunk.items:
                tcot = item.trace.tcot if item.trace else None
                try:
                    chats.append(embedding_chat(self.embedder.spec, item.shown, tcot, item.evidence, self.side))
                    written.append(item)
                except UmeError as error:
                    call.failures.add(error, index=item.index, source=item.source)
            embed = partial(self._embed, stats=call.stats)
            try:
                rows = embed(chats) if chats else []
            except UmeError as error:
                rows = isolate(error, embed, chats, strict=call.failures.strict)
        done: list[StageItem] = []
        for item, row in zip(written, rows, strict=True):
            if isinstance(row, UmeError):
                call.failures.add(row, index=item.index, source=item.source)
            elif not np.isfinite(row).all():
                broken = ModelError("the Embedder's vector is not finite", hint="try dtype='float32'")
                call.failures.add(broken, index=item.index, source=item.source)
            else:
                done.append(replace(item, vector=row))
        call.advance("embed", chunk.stop, since)
        return Chunk(chunk.start, chunk.stop, done)

    def _embed(self, chats: Sequence[Chat], stats: CallStats) -> Sequence[FloatRow | UmeError]:
        if isinstance(self.embedder, SupportsPartialEmbedding):
            made = self.embedder.embed_partial(chats)
            stats.embedder_calls += sum(not isinstance(row, UmeError) for row in made.rows)
            stats.embedded_tokens += made.tokens
            return made.rows
        embeddings = self.embedder.embed(chats)
        expected = (len(chats), self.embedder.dimension)
        if embeddings.vectors.shape != expected:
            raise ModelError(
                f"the Embedder returned vectors of shape {embeddings.vectors.shape} instead of {expected}",
                hint="fix the engine implementation",
            )
        stats.embedder_calls += len(chats)
        stats.embedded_tokens += embeddings.tokens
        return list(embeddings.vectors)
