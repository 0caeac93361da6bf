"""What every Embedder engine does: chats in, unit vectors out. It knows nothing of retrieval."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Literal, Protocol, TypeAlias, runtime_checkable

import numpy as np
import numpy.typing as npt

from ume_retrieval.chat import Chat
from ume_retrieval.checkpoint import EmbedderSpec, ModelInfo, ReasonerSpec


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


Form: TypeAlias = Literal["free", "tcot"]
"""What a reply may look like: anything, or nothing but a T-CoT that parses (constrained decoding)."""


@dataclass(frozen=True, slots=True)
class Sampling:
    """How the Reasoner decodes; part of the trace cache key.

    Attributes:
        max_tokens: Most new tokens a trace may take, > 0.
        temperature: 0.0 is greedy decoding.
        top_p: Nucleus mass, (0, 1].
        seed: Seed of the random stream when temperature > 0.
        form: "tcot" holds the reply to `tcot.pattern` while it is decoded; engines that cannot do that refuse it.
    """

    max_tokens: int = 1024
    temperature: float = 0.0
    top_p: float = 1.0
    seed: int = 0
    form: Form = "free"

    def identity(self) -> dict[str, int | float | str]:
        """What stands for it in keys; a free form goes without saying, so that older traces are still found.

        Example:
            >>> Sampling(max_tokens=160).identity()
            {'max_tokens': 160, 'temperature': 0.0, 'top_p': 1.0, 'seed': 0}
        """
        # 1 and 1.0 decode alike, and JSON writes them differently.
        values = asdict(self) | {"temperature": float(self.temperature), "top_p": float(self.top_p)}
        if self.form == "free":
            del values["form"]
        return values


@dataclass(frozen=True, slots=True)
class Generation:
    """One reply.

    Attributes:
        text: The reply without special tokens.
        prompt_tokens: Tokens of the prompt, visual ones included.
        completion_tokens: Tokens that were generated.
        finish: "stop" when the model ended it, "length" when `max_tokens` did.
    """

    text: str
    prompt_tokens: int
    completion_tokens: int
    finish: Literal["stop", "length"]


@runtime_checkable
class Reasoner(Protocol):
    """An engine that answers chats."""

    @property
    def info(self) -> ModelInfo:
        """Which model this is, for cache keys and reports."""
        ...

    @property
    def spec(self) -> ReasonerSpec:
        """The prompts and visual budget that the model wants."""
        ...

    def generate(self, chats: Sequence[Chat], sampling: Sampling) -> list[Generation]:
        """Answer each chat; the reply to `chats[i]` is at position i."""
        ...


@runtime_checkable
class Streams(Protocol):
    """A Reasoner that hands out each reply as soon as it is there, so that an interrupt loses none of them."""

    def replies(self, chats: Sequence[Chat], sampling: Sampling) -> Iterator[tuple[int, Generation]]:
        """Answer each chat once: its position and the reply, in the order in which they are finished."""
        ...


@runtime_checkable
class HoldsForm(Protocol):
    """A Reasoner whose engine can hold replies to a form, and says which one it takes unless told otherwise."""

    @property
    def form(self) -> Form:
        """The form of T-CoTs that were asked for without a `Sampling`."""
        ...


def tcot_sampling(reasoner: Reasoner) -> Sampling:
    """How a Reasoner writes T-CoTs when the caller does not say: greedily, as long as its traces, in its engine's form.

    Example:
        >>> from ume_retrieval.testing import FakeReasoner
        >>> tcot_sampling(FakeReasoner()).form
        'free'
    """
    form = reasoner.form if isinstance(reasoner, HoldsForm) else "free"
    return Sampling(max_tokens=reasoner.spec.max_tokens, form=form)
