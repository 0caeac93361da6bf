"""The Reasoner on vLLM: continuous batching, prompt prefixes computed once, traces held to their form."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Self

from ume_retrieval.chat import Chat
from ume_retrieval.checkpoint import ModelInfo, ReasonerSpec
from ume_retrieval.engines.base import (
    Generation,
    Pretrained,
    ResponseFormat,
    Sampling,
    Source,
    StreamingReasoner,
    chat_seeds,
)
from ume_retrieval.engines.resize import fit_chat
from ume_retrieval.engines.vllm.engine import VllmEngine
from ume_retrieval.tcot.pattern import chat_pattern


class VllmReasoner(StreamingReasoner, Pretrained[ReasonerSpec]):
    """Answers chats with vLLM.

    Args:
        engine: A running engine that generates.
        spec: Prompts and visual budget.
        response_format: Format of T-CoTs when the caller gives no `Sampling`; "tcot" constrains decoding.
    """

    def __init__(self, engine: VllmEngine, *, spec: ReasonerSpec, response_format: ResponseFormat = "tcot") -> None:
        self.engine = engine
        self.spec = spec
        self.response_format: ResponseFormat = response_format

    @classmethod
    def _load(cls, source: Source, spec: ReasonerSpec) -> Self:
        longest = spec.max_prompt_tokens + spec.max_tokens
        return cls(VllmEngine(source, runner="generate", budget=spec.budget, max_tokens=longest), spec=spec)

    @property
    def info(self) -> ModelInfo:
        """Name and revision of the weights."""
        return self.engine.info

    def replies(self, chats: Sequence[Chat], sampling: Sampling) -> Iterator[tuple[int, Generation]]:
        """Answer all chats concurrently, yielding every reply as soon as it is finished.

        Sampled replies follow from `seeds.chat_seeds`, not from a chat's batch; only equal chats count among
        themselves.

        Yields:
            Position of a chat and its reply.

        Raises:
            InputError: When a chat is longer than the model's `max_prompt_tokens`; it is never cut silently.
            ModelError: When vLLM refuses the prompts or has died.
        """
        if not chats:
            return
        fitted = [fit_chat(chat, self.spec.budget) for chat in chats]
        self.engine.require_length(fitted, self.spec.max_prompt_tokens, "a prompt")
        prompts = [self.engine.prompt(chat) for chat in fitted]
        seeds = chat_seeds(fitted, sampling.seed, pictures=sampling.temperature > 0)
        parameters = [_parameters(chat, sampling, seed) for chat, seed in zip(fitted, seeds, strict=True)]
        for position, output in self.engine.stream(prompts, parameters):
            yield position, _read(output)


def _parameters(chat: Chat, sampling: Sampling, seed: int) -> Any:
    from vllm import SamplingParams
    from vllm.sampling_params import StructuredOutputsParams

    form = StructuredOutputsParams(regex=chat_pattern(chat)) if sampling.response_format == "tcot" else None
    return SamplingParams(
        max_tokens=sampling.max_tokens,
        temperature=sampling.temperature,
        top_p=sampling.top_p,
        seed=seed if sampling.temperature > 0 else None,
        structured_outputs=form,
    )


def _read(output: Any) -> Generation:
    reply = output.outputs[0]
    return Generation(
        text=reply.text,
        prompt_tokens=len(output.prompt_token_ids),
        completion_tokens=len(reply.token_ids),
        finish="stop" if reply.finish_reason == "stop" else "length",
    )
