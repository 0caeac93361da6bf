"""A call's way through the stages: side by side where there is more than one chunk, with memory for a few chunks."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from typing import Any, Self, cast

import numpy as np
import numpy.typing as npt

from ume_retrieval.errors import Failure
from ume_retrieval.pipeline.loading import SINGLE, Chunk, Input, Intake, Loaded, as_sequence
from ume_retrieval.pipeline.progress import Ledger
from ume_retrieval.pipeline.stages import Embedding, Reasoned, Reasoning
from ume_retrieval.results import Trace, Usage
from ume_retrieval.util.threads import overlapped, through


@dataclass(frozen=True, slots=True)
class Flow:
    """The stages of a call.

    Attributes:
        intake: Loads.
        reasoning: Reasons, or None when the Reasoner is not asked.
        embedding: Embeds, or None when only traces are wanted.
    """

    intake: Intake
    reasoning: Reasoning | None
    embedding: Embedding | None

    def run(self, inputs: Iterable[Input], ledger: Ledger) -> Iterator[Chunk[Any]]:
        """Chunks of inputs, in order, as the last stage returns them.

        Yields:
            Items are `Reasoned`, or pairs of `Reasoned` and a vector when there is embedding.

        Raises:
            Stopped: When `ledger.stopped` is set meanwhile.
        """
        stages: list[Callable[[Any], Any]] = [
            partial(self.reasoning.run, ledger=ledger) if self.reasoning else _unreasoned
        ]
        if self.embedding:
            embed = partial(self.embedding.run, ledger=ledger)
            stages = [*stages, embed] if self.reasoning else [lambda chunk: embed(_unreasoned(chunk))]
        chunks: Iterable[Any] = self.intake.chunks(inputs, ledger)
        if isinstance(inputs, Sequence) and len(inputs) <= self.intake.chunk_items:
            # What is in memory at once anyway, such as a query, needs no threads.
            for stage in stages:
                chunks = through(stage, chunks, ledger.stopped)
            yield from chunks
        else:
            yield from overlapped(chunks, stages, stopped=ledger.stopped)


@dataclass(frozen=True, slots=True)
class Encoded:
    """What became of one input of a stream.

    Attributes:
        index: Its position.
        vector: Shape (dimension,), float32, length 1; None when the input failed.
        trace: Its trace; None when it failed or no reasoning was asked for.
        failure: Why there is no vector.
    """

    index: int
    vector: npt.NDArray[np.float32] | None
    trace: Trace | None
    failure: Failure | None


class EncodeStream:
    """Inputs that are encoded while the ones before them are used. Iterate over it once, in a `with`.

    Args:
        chunks: From a flow that embeds.
        ledger: Of the same flow, not strict.
    """

    def __init__(self, chunks: Iterator[Chunk[tuple[Reasoned, npt.NDArray[np.float32]]]], ledger: Ledger) -> None:
        self._results = self._read(chunks)
        self._ledger = ledger

    @property
    def usage(self) -> Usage:
        """The cost so far, of inputs that are ahead too."""
        return self._ledger.usage()

    @property
    def rates(self) -> dict[str, float]:
        """Inputs a second of work, by stage: "load", "reason", "embed"."""
        return self._ledger.rates()

    def __iter__(self) -> Iterator[Encoded]:
        return self._results

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        """End the stages; each finishes what it is at."""
        self._results.close()

    def _read(self, chunks: Iterator[Chunk[tuple[Reasoned, npt.NDArray[np.float32]]]]) -> Generator[Encoded]:
        with closing(chunks):  # type: ignore[type-var]  # a generator
            for chunk in chunks:
                done = {one.loaded.index: (vector, one.trace) for one, vector in chunk.items}
                failed = self._ledger.take_failures(chunk.stop)
                for index in range(chunk.start, chunk.stop):
                    vector, trace = done.get(index, (None, None))
                    yield Encoded(index, vector, trace, failed.get(index))


def stream_inputs(inputs: Input | Iterable[Input]) -> Iterable[Input]:
    """Inputs of a stream, none drawn yet.

    Raises:
        InputError: When it is neither an input nor something that gives inputs.

    Example:
        >>> stream_inputs("a red circle")
        ('a red circle',)
    """
    # Bytes would be encoded byte by byte, and a mapping would give its keys.
    if isinstance(inputs, (*SINGLE, bytes, bytearray, Mapping)) or not isinstance(inputs, Iterable):
        return as_sequence(cast("Input", inputs))[0]
    return inputs


def _unreasoned(chunk: Chunk[Loaded]) -> Chunk[Reasoned]:
    return Chunk(chunk.start, chunk.stop, [Reasoned(loaded) for loaded in chunk.items])
