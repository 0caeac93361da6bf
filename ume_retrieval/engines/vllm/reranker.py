"""Qwen3-VL-Reranker on vLLM, which makes a classifier of the rows of "yes" and "no" in the model's head."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Self

from ume_retrieval.chat import Chat, Pair, videos_of
from ume_retrieval.checkpoint import ModelInfo, RerankerSpec
from ume_retrieval.engines.base import PairScores, Pretrained, Source
from ume_retrieval.engines.families import pair_chat
from ume_retrieval.engines.transformers.reranker import END_TOKENS, answer_tokens, kept_places, special_tokens
from ume_retrieval.engines.vllm.engine import VllmEngine
from ume_retrieval.errors import IncompatibleModel, InputError


class VllmReranker(Pretrained[RerankerSpec]):
    """Scores pairs with vLLM's pooling runner.

    Args:
        engine: A running engine that scores.
        spec: Family and visual budget.

    Raises:
        IncompatibleModel: When the model's tokenizer has no token for "yes" or "no".
    """

    def __init__(self, engine: VllmEngine, *, spec: RerankerSpec) -> None:
        self.engine, self.spec = engine, spec
        answer_tokens(engine.inputs.tokenizer, engine.info.name)
        self._special = special_tokens(engine.inputs.tokenizer)
        self._video = engine.inputs.tokenizer.convert_tokens_to_ids(engine.inputs.processor.video_token)

    @classmethod
    def _load(cls, source: Source, spec: RerankerSpec) -> Self:
        if spec.family == "cross-encoder":
            raise IncompatibleModel(
                f"vLLM does not know how {source.name} reads a pair", hint="use engine='transformers' for this model"
            )
        longest = spec.max_tokens + END_TOKENS
        return cls(VllmEngine(source, runner="scoring", budget=spec.budget, max_tokens=longest), spec=spec)

    @property
    def info(self) -> ModelInfo:
        """Name and revision of the weights."""
        return self.engine.info

    def score_pairs(self, pairs: Sequence[Pair]) -> PairScores:
        """Score each pair, 0..1.

        Raises:
            InputError: When the pictures of a pair are longer than the model reads, or more of a long pair would have
                to be dropped than the words after its last video.
            ModelError: When vLLM refuses the prompts or has died.
        """
        chats = [pair_chat(self.spec, pair) for pair in pairs]
        excess = [max(0, self.engine.inputs.count_tokens(chat) - self.engine.max_tokens) for chat in chats]
        prompts = [self._prompt(chat, much) for chat, much in zip(chats, excess, strict=True)]
        outputs = self.engine.call("classify", prompts) if prompts else []
        scores = [float(output.outputs.probs[0]) for output in outputs]
        shortened = tuple(place for place, much in enumerate(excess) if much)
        return PairScores(scores, sum(len(output.prompt_token_ids) for output in outputs), shortened)

    def _prompt(self, chat: Chat, excess: int) -> dict[str, Any]:
        if not excess:
            return self.engine.prompt(chat)

        def keep(row: Sequence[int]) -> Sequence[int]:
            # A picture is one placeholder here, so the bound is what is left of the row.
            kept = kept_places(row, self._special, len(row) - END_TOKENS - excess)
            last = max((place for place, token in enumerate(row) if token == self._video), default=-1)
            # The time marks of a video are words too, which vLLM writes by itself.
            if len(kept) != len(row) - excess or (videos_of(chat) and min(set(range(len(row))) - {*kept}) < last):
                raise InputError(
                    f"a pair is {excess} tokens longer than the model reads, and its words cannot be cut so far",
                    hint="give fewer or smaller pictures and videos, or use engine='transformers'",
                )
            return kept

        return self.engine.prompt(chat, keep=keep)
