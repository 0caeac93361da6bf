"""Keywords of `encode_query` and `encode_corpus`, as types."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias, TypedDict

import numpy.typing as npt

from ume_retrieval.inputs import Modality
from ume_retrieval.pipeline.loading import Input
from ume_retrieval.pipeline.stages import Stage
from ume_retrieval.vectors import Precision, check_precision, check_truncation, quantize, truncate

Inputs: TypeAlias = Input | Sequence[Input]
"""One input, or several."""

ReasoningMode: TypeAlias = Literal["always", "never"]
"""Whether every item is reasoned, or none."""

Vectors: TypeAlias = npt.NDArray[Any]

EncodeProgress: TypeAlias = Callable[[int, int, Stage], None]
"""Called with (inputs done, inputs in all as far as they are known, stage)."""


class CorpusOptions(TypedDict, total=False):
    """Keywords of `ReasoningEmbedder.encode_corpus`; `EncodeOptions` explains them."""

    reasoning: ReasoningMode
    truncate_dim: int | None
    precision: Precision
    strict: bool
    on_progress: EncodeProgress | None
    stopped: threading.Event | None


class QueryOptions(CorpusOptions, total=False):
    """Keywords of `ReasoningEmbedder.encode_query`; `EncodeOptions` explains them."""

    target: Modality | None


@dataclass(frozen=True, slots=True)
class EncodeOptions:
    """Keywords of `encode_query` and `encode_corpus`.

    Attributes:
        reasoning: "always" asks the Reasoner about each item without a cached trace; "never" embeds directly.
        truncate_dim: Keep the first components only and normalise again, 1..`dimension`.
        precision: How vectors are stored, see `vectors.quantize`.
        strict: Raise the first failure; a note on it names the input. With False, failed rows are NaN (0 in integer
            precisions) and are listed in `EncodeResult.failures`.
        on_progress: Called after each chunk of each stage with (inputs done, inputs in all, stage), from threads of the
            stages, one call at a time.
        stopped: Set this event from another thread to cancel the call, which then raises `errors.Stopped`. Engines
            finish their current chats; finished traces are kept.
        target: Modality that a query searches for, if known; a text query for a video has a prompt of its own.
    """

    reasoning: ReasoningMode = "always"
    truncate_dim: int | None = None
    precision: Precision = "float32"
    strict: bool = True
    on_progress: EncodeProgress | None = None
    stopped: threading.Event | None = None
    target: Modality | None = None

    def check(self, dimension: int) -> None:
        """Check what is done with vectors of this length.

        Raises:
            InputError: When the precision is unknown, or there are fewer values than `truncate_dim`.
        """
        if self.precision != "float32":
            check_precision(self.precision)
        if self.truncate_dim is not None:
            check_truncation(self.truncate_dim, dimension)

    def stored(self, vectors: Vectors, *, single: bool) -> Vectors:
        """Return full float32 vectors, shape (n, dim), as the caller wants them; (dim,) for a single one."""
        kept: Vectors = vectors if self.truncate_dim is None else truncate(vectors, self.truncate_dim)
        kept = kept if self.precision == "float32" else quantize(kept, self.precision)
        return kept[0] if single else kept
