"""What `encode_query` and `encode_corpus` take and give, as types."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, TypeAlias, TypedDict

import numpy.typing as npt

from ume_retrieval.inputs import Modality
from ume_retrieval.pipeline.loading import Input
from ume_retrieval.pipeline.progress import Progress
from ume_retrieval.vectors import Precision

Inputs: TypeAlias = Input | Sequence[Input]
"""One input, or several."""

ReasoningMode: TypeAlias = Literal["always", "never"]
"""Whether the Reasoner is asked: for every item, or for none."""

Vectors: TypeAlias = npt.NDArray[Any]


class CorpusOptions(TypedDict, total=False):
    """Keywords of `ReasoningEmbedder.encode_corpus`; see there."""

    reasoning: ReasoningMode
    truncate_dim: int | None
    precision: Precision
    strict: bool
    on_progress: Progress | None


class QueryOptions(CorpusOptions, total=False):
    """Keywords of `ReasoningEmbedder.encode_query`; see there."""

    target: Modality | None
