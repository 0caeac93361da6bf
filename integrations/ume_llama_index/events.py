"""Events of the adapter for LlamaIndex's instrumentation."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from llama_index_instrumentation.base.event import BaseEvent

from ume_retrieval.errors import Failure


class LeftOutEvent(BaseEvent):
    """Nodes that could not be embedded and were left out.

    Attributes:
        failures: One per node: index, source, error, message, hint, retryable.
    """

    failures: list[dict[str, Any]]

    @classmethod
    def class_name(cls) -> str:
        """Name in serialised form."""
        return "UmeLeftOutEvent"

    @classmethod
    def of(cls, failures: list[Failure]) -> LeftOutEvent:
        """The event for these failures."""
        return cls(failures=[asdict(failure) for failure in failures])


class QueryReasonedEvent(BaseEvent):
    """The Reasoner's interpretation of a query.

    Attributes:
        answer: Description of a perfect match.
        tcot: The whole T-CoT.
        cached: Whether the trace came from the cache.
    """

    answer: str
    tcot: str
    cached: bool

    @classmethod
    def class_name(cls) -> str:
        """Name in serialised form."""
        return "UmeQueryReasonedEvent"
