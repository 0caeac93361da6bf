"""A call's way through the stages: in turn, or side by side with memory for a few chunks; and stages on their own."""

from __future__ import annotations

from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from functools import partial
from typing import Self, cast

import numpy as np
import numpy.typing as npt

from ume_retrieval.errors import Failure, ItemWarning
from ume_retrieval.pipeline.loading import SINGLE, Input, ItemLoader, as_sequence
from ume_retrieval.pipeline.stages import Call, Chunk, Failures, StageItem, StageRun
from ume_retrieval.results import Trace, Usage
from ume_retrieval.util.threads import overlapped


def run_side_by_side(chunks: Iterable[Chunk], stages: Sequence[StageRun], call: Call) -> Iterator[Chunk]:
    """Pass chunks in order through stages that run concurrently, one thread each.

    Raises:
        Stopped: When the call is cancelled.
    """
    return overlapped(chunks, [partial(stage.run, call=call) for stage in stages], stopped=call.stopped)


@dataclass(frozen=True, slots=True)
class Outcomes:
    """Results of one stage.

    Attributes:
        items: For each input, in order, the item with the stage's results, or why it failed.
        usage: Cost of the stage.
    """

    items: list[StageItem | Failure]
    usage: Usage


def apply_stage(stage: StageRun, items: Sequence[StageItem]) -> Outcomes:
    """Run one stage over items, for programs that schedule the stages themselves, such as on a cluster.

    Args:
        stage: A `ReasonStage` or an `EmbedStage`.
        items: As `load_items` or another stage returned them, in any order and number.

    Returns:
        An outcome for each item; `index` of an item or failure is its position in `items`.

    Example:
        >>> from ume_retrieval.pipeline import EmbedStage, ItemLoader
        >>> from ume_retrieval.testing import HashEmbedder
        >>> engine = HashEmbedder()
        >>> [items] = load_items(ItemLoader(engine.spec.budget), ["a red circle", "a blue square"])
        >>> [item.vector.shape for item in apply_stage(EmbedStage(engine, "corpus"), items).items]
        [(64,), (64,)]
    """
    call = Call(Failures(strict=False), len(items))
    chunk = Chunk(0, len(items), [replace(item, index=index) for index, item in enumerate(items)])
    return Outcomes(_outcomes(stage.run(chunk, call), call), call.usage())


def load_items(loader: ItemLoader, inputs: Iterable[Input]) -> Iterator[list[StageItem | Failure]]:
    """Load inputs for `apply_stage`, as many at a time as the loader's limits allow.

    Yields:
        An outcome for each input, in order.
    """
    call = Call(Failures(strict=False))
    for chunk in loader.chunks(inputs, call):
        yield _outcomes(chunk, call)


def _outcomes(chunk: Chunk, call: Call) -> list[StageItem | Failure]:
    done: dict[int, StageItem | Failure] = {item.index: item for item in chunk.items}
    done |= call.failures.take(chunk.stop)
    return [done[index] for index in range(chunk.start, chunk.stop)]


@dataclass(frozen=True, slots=True)
class Encoded:
    """Result for one input of a stream.

    Attributes:
        index: Its position.
        vector: Shape (dimension,), float32, length 1; None when the input failed.
        trace: Its trace; None when it failed or without reasoning.
        failure: Why the vector is missing.
    """

    index: int
    vector: npt.NDArray[np.float32] | None
    trace: Trace | None
    failure: Failure | None


class EncodeStream:
    """A stream of encoded inputs; later ones are encoded while you use earlier ones. Iterate over it once, in a `with`.

    Args:
        chunks: From stages that end with embedding.
        call: Of the same run, not strict.
    """

    def __init__(self, chunks: Iterator[Chunk], call: Call) -> None:
        self._results = self._read(chunks)
        self._call = call

    @property
    def usage(self) -> Usage:
        """Cost so far, including inputs that are still in the stages."""
        return self._call.usage()

    @property
    def warnings(self) -> tuple[ItemWarning, ...]:
        """What is not as it should be about the inputs so far, each once."""
        return tuple(self._call.warnings)

    @property
    def rates(self) -> dict[str, float]:
        """Inputs per second of work, by stage: "load", "reason", "embed"."""
        return self._call.stats.rates()

    def __iter__(self) -> Iterator[Encoded]:
        return self._results

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        """End the stages; each finishes its current chunk."""
        self._results.close()

    def _read(self, chunks: Iterator[Chunk]) -> Generator[Encoded]:
        with closing(chunks):  # type: ignore[type-var]  # a generator
            for chunk in chunks:
                for index, one in enumerate(_outcomes(chunk, self._call), chunk.start):
                    if isinstance(one, Failure):
                        yield Encoded(index, None, None, one)
                    else:
                        yield Encoded(index, one.vector, one.trace, None)


def stream_inputs(inputs: Input | Iterable[Input]) -> Iterable[Input]:
    """Return the inputs of a stream without drawing any.

    Raises:
        InputError: When it is neither an input nor an iterable of inputs.

    Example:
        >>> stream_inputs("a red circle")
        ('a red circle',)
    """
    # Bytes would be encoded byte by byte, and a mapping would give its keys.
    if isinstance(inputs, (*SINGLE, bytes, bytearray, Mapping)) or not isinstance(inputs, Iterable):
        return as_sequence(cast("Input", inputs))[0]
    return inputs
