"""Results of the pipeline: vectors, traces with their evidence, failures, and costs."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from ume_retrieval.checkpoint import ModelInfo
from ume_retrieval.errors import Failure, ItemWarning
from ume_retrieval.tcot.evidence import EvidenceRef
from ume_retrieval.tcot.trace import TCot


@dataclass(frozen=True, slots=True)
class Trace:
    """The T-CoT of one item, and the evidence that was embedded with it.

    Attributes:
        tcot: What the Reasoner thought and answered, with the evidence that it named.
        evidence: The crops or key frames that went into the Embedder's input, in their order there.
        cached: True when no Reasoner ran for this item: the trace was on disk, or an equal item of the call had it.
        prompt_tokens: Tokens that the Reasoner read when the trace was generated.
        completion_tokens: Tokens that the Reasoner wrote when the trace was generated.
        content_id: Hex digest of the item's content and sampling, independent of file names.
    """

    tcot: TCot
    evidence: tuple[EvidenceRef, ...]
    cached: bool
    prompt_tokens: int
    completion_tokens: int
    content_id: str


@dataclass(frozen=True, slots=True)
class Usage:
    """Cost of a call. Usages add up: `first + second`.

    Attributes:
        items: Items that were handed in.
        reasoner_calls: Chats that the Reasoner answered; 0 when every trace was cached.
        cached_traces: Items whose trace came from disk or from an equal item of the call.
        embedder_calls: Chats that the Embedder embedded.
        prompt_tokens: Tokens that the Reasoner read in this call.
        completion_tokens: Tokens that the Reasoner wrote in this call.
        embedded_tokens: Tokens that the Embedder read in this call, pictures included.
        reranker_calls: Pairs that a reranker scored, or questions that it asked a Reasoner.
        reranked_tokens: Tokens that the reranker read in this call, pictures included.
        spared: Queries that a gate did not reason over.
        trace_problems: How many items have a trace with each problem, by the names of `tcot.grammar.PROBLEMS`.
        seconds: Wall-clock seconds spent in each stage: "load", "reason", "embed", "rerank".

    Example:
        >>> total = Usage(items=2, trace_problems={"no_cue": 1}) + Usage(items=3, trace_problems={"no_cue": 1})
        >>> total.items, total.trace_problems
        (5, {'no_cue': 2})
    """

    items: int = 0
    reasoner_calls: int = 0
    cached_traces: int = 0
    embedder_calls: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    embedded_tokens: int = 0
    spared: int = 0
    trace_problems: dict[str, int] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)
    reranker_calls: int = 0
    reranked_tokens: int = 0

    def __add__(self, other: Usage) -> Usage:
        """Cost of both calls together."""
        stages = self.seconds.keys() | other.seconds.keys()
        return Usage(
            items=self.items + other.items,
            reasoner_calls=self.reasoner_calls + other.reasoner_calls,
            cached_traces=self.cached_traces + other.cached_traces,
            embedder_calls=self.embedder_calls + other.embedder_calls,
            prompt_tokens=self.prompt_tokens + other.prompt_tokens,
            completion_tokens=self.completion_tokens + other.completion_tokens,
            embedded_tokens=self.embedded_tokens + other.embedded_tokens,
            reranker_calls=self.reranker_calls + other.reranker_calls,
            reranked_tokens=self.reranked_tokens + other.reranked_tokens,
            spared=self.spared + other.spared,
            trace_problems=dict(Counter(self.trace_problems) + Counter(other.trace_problems)),
            seconds={stage: self.seconds.get(stage, 0.0) + other.seconds.get(stage, 0.0) for stage in sorted(stages)},
        )


@dataclass(frozen=True, slots=True)
class EncodeResult:
    """Vectors, traces, failures and cost of a call.

    Attributes:
        vectors: Shape (n, dim), row i for input i, or (dim,) for a single input; NaN (0 for integer precisions) where
            the input failed.
        traces: One an input; None where the input failed or no reasoning was asked for.
        failures: Inputs that were left out, by index, with their reasons.
        usage: What the call cost.
        warnings: What is not as it should be about inputs that were used, such as a film that is cut short.
    """

    vectors: npt.NDArray[np.generic]
    traces: tuple[Trace | None, ...]
    failures: tuple[Failure, ...]
    usage: Usage
    warnings: tuple[ItemWarning, ...] = ()


@dataclass(frozen=True, slots=True)
class TraceResult:
    """Traces without vectors.

    Attributes:
        traces: One an input; None where the input failed.
        failures: Inputs that were left out, by index, with their reasons.
        usage: What the call cost.
    """

    traces: tuple[Trace | None, ...]
    failures: tuple[Failure, ...]
    usage: Usage


@dataclass(frozen=True, slots=True)
class PipelineInfo:
    """Models and prompts that make the vectors; collections record it.

    Attributes:
        embedder: The Embedder's weights.
        reasoner: The Reasoner's weights, or None without one.
        prompt_version: Version of the Reasoner's prompts, or None without a Reasoner.
    """

    embedder: ModelInfo
    reasoner: ModelInfo | None
    prompt_version: str | None
