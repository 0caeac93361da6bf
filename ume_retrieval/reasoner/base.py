"""What every Reasoner engine does: chats in, texts out. It knows nothing of retrieval."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol, runtime_checkable

from ume_retrieval.chat import Chat
from ume_retrieval.checkpoint import ModelInfo, ReasonerSpec


@dataclass(frozen=True, slots=True)
class Sampling:
    """How the Reasoner decodes; part of the trace cache key.

    Attributes:
        max_tokens: Most new tokens a trace may take, > 0.
        temperature: 0.0 is greedy decoding.
        top_p: Nucleus mass, (0, 1].
        seed: Seed of the random stream when temperature > 0.
    """

    max_tokens: int = 1024
    temperature: float = 0.0
    top_p: float = 1.0
    seed: int = 0


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
