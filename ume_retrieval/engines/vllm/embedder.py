"""The Embedder on vLLM: Qwen3-VL models of the embed-rl and qwen3-vl-embedding families, pooled at the last token."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Self

import numpy as np

from ume_retrieval.chat import Chat
from ume_retrieval.checkpoint import EmbedderSpec, ModelInfo
from ume_retrieval.engines.base import Embeddings, Pretrained, Source
from ume_retrieval.engines.transformers.embedder import pooled_token
from ume_retrieval.engines.vllm.engine import VllmEngine
from ume_retrieval.errors import IncompatibleModel


class VllmEmbedder(Pretrained[EmbedderSpec]):
    """Embeds chats with vLLM's pooling runner.

    Args:
        engine: A running engine that pools.
        spec: Family and visual budget.

    Raises:
        IncompatibleModel: When the model does not fit its family.
    """

    def __init__(self, engine: VllmEngine, *, spec: EmbedderSpec) -> None:
        self.engine = engine
        self.spec = spec
        if spec.family == "sentence-transformers":
            raise IncompatibleModel(
                f"vLLM pools the last token only, and does not know how {engine.info.name} pools",
                hint="use engine='transformers' for this model",
            )
        self._pooled_token: int | None = None
        if spec.family == "embed-rl":
            self._pooled_token = pooled_token(_skeleton(engine.config), engine.inputs.tokenizer, spec)

    @classmethod
    def _load(cls, source: Source, spec: EmbedderSpec) -> Self:
        return cls(VllmEngine(source, runner="pooling", budget=spec.budget, max_tokens=spec.max_tokens), spec=spec)

    @property
    def info(self) -> ModelInfo:
        """Name and revision of the weights."""
        return self.engine.info

    @property
    def dimension(self) -> int:
        """Length of a vector: the width of the language model."""
        return int(self.engine.config.get_text_config().hidden_size)

    def embed(self, chats: Sequence[Chat]) -> Embeddings:
        """Embed each chat; the vector of `chats[i]` is row i.

        Raises:
            InputError: When a chat is longer than the model's `max_tokens`; it is never cut silently.
            IncompatibleModel: When a chat lacks the token to pool.
            ModelError: When vLLM refuses the prompts or has died.
        """
        if not chats:
            return Embeddings(np.empty((0, self.dimension), dtype=np.float32), 0)
        self.engine.require_length(chats, self.spec.max_tokens, "an input")
        # Attention is causal: what follows the pooled token would change nothing, and vLLM pools the last one.
        keep = self.engine.inputs.up_to(self._pooled_token)
        outputs = self.engine.call("embed", [self.engine.prompt(chat, keep=keep) for chat in chats])
        vectors = np.array([output.outputs.embedding for output in outputs], dtype=np.float32)
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
        return Embeddings(vectors, sum(len(output.prompt_token_ids) for output in outputs))


def _skeleton(config: Any) -> Any:
    """Return the model without weights, of which only the shapes are read."""
    import torch
    import transformers

    classes: Any = transformers
    with torch.device("meta"):
        return classes.AutoModel.from_config(config)
