"""What every Embedder engine does: chats in, unit vectors out. It knows nothing of retrieval."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt

from ume_retrieval.chat import Chat
from ume_retrieval.checkpoint import EmbedderSpec, ModelInfo


@dataclass(frozen=True, slots=True)
class Embeddings:
    """Vectors of a list of chats.

    Attributes:
        vectors: float32, shape (n, dimension), rows L2-normalised, row i for chat i.
        tokens: Tokens that were embedded, visual ones included, padding excluded.
    """

    vectors: npt.NDArray[np.float32]
    tokens: int


@runtime_checkable
class Embedder(Protocol):
    """An engine that embeds chats."""

    @property
    def info(self) -> ModelInfo:
        """Which model this is, for collection metadata and reports."""
        ...

    @property
    def spec(self) -> EmbedderSpec:
        """Family, prompts and visual budget that the model wants."""
        ...

    @property
    def dimension(self) -> int:
        """Length of its vectors before any truncation."""
        ...

    def embed(self, chats: Sequence[Chat]) -> Embeddings:
        """Embed each chat; the vector of `chats[i]` is row i."""
        ...
