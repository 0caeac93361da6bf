"""The Embedder on Hugging Face transformers: Qwen3-VL models of the embed-rl and qwen3-vl-embedding families."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any, Self

import numpy as np

from ume_retrieval.chat import Chat
from ume_retrieval.checkpoint import EmbedderSpec, ModelInfo
from ume_retrieval.engines.base import Embeddings, Pretrained, Source
from ume_retrieval.engines.forks import home_of
from ume_retrieval.engines.transformers import unpadded
from ume_retrieval.engines.transformers.loading import load_checkpoint
from ume_retrieval.engines.transformers.processor import ChatInputs, PackedBatch, RenderedChat, pack
from ume_retrieval.errors import IncompatibleModel, InputError
from ume_retrieval.util.threads import ahead

CPU_BATCH_TOKENS, GPU_BATCH_TOKENS = 2048, 16_384
"""Most tokens of a batch when nothing else is asked for; on a CPU, what lies between its layers stays in its cache."""


class TransformersEmbedder(Pretrained[EmbedderSpec]):
    """Embeds chats with one forward pass each.

    Args:
        model: A transformers model whose output has `last_hidden_state`, in evaluation mode.
        processor: Its processor.
        info: Which weights these are.
        spec: Family and visual budget.
        batch_tokens: Most tokens of a batch; by default what suits the device.

    Raises:
        IncompatibleModel: When the model is not a Qwen3-VL, or the embed-rl family is asked for and its token is
            unknown or beyond the embedding matrix.
    """

    def __init__(
        self, model: Any, processor: Any, *, info: ModelInfo, spec: EmbedderSpec, batch_tokens: int | None = None
    ) -> None:
        self.model = model
        self.info = info
        self.spec = spec
        on_cpu = model.device.type == "cpu"
        self.batch_tokens = batch_tokens or (CPU_BATCH_TOKENS if on_cpu else GPU_BATCH_TOKENS)
        self._home = home_of(info.name, model.device.type)
        self._inputs = ChatInputs(processor, "right", special_tokens=True)
        if not unpadded.is_supported(model):
            raise IncompatibleModel(
                f"{info.name} is a {model.config.model_type}, no Qwen3-VL", hint="use its sentence-transformers files"
            )
        unpadded.prepare(model)
        self._pooled_token = pooled_token(model, processor.tokenizer, spec) if spec.family == "embed-rl" else None

    @classmethod
    def _load(cls, source: Source, spec: EmbedderSpec) -> Self:
        loaded = load_checkpoint(source, "AutoModel")
        return cls(loaded.model, loaded.processor, info=loaded.info, spec=spec)

    @property
    def dimension(self) -> int:
        """Length of a vector: the width of the language model."""
        return int(self.model.config.get_text_config().hidden_size)

    def embed(self, chats: Sequence[Chat]) -> Embeddings:
        """Embed each chat; the vector of `chats[i]` is row i, whatever the batches were.

        Raises:
            InputError: When a chat is longer than the model's `max_tokens`; it is never cut silently.
        """
        written = self._written(chats)
        vectors = np.empty((len(chats), self.dimension), dtype=np.float32)
        tokens = 0
        batches = pack([one.length for one in written], self.batch_tokens) if len(written) > 1 else [[0]] * len(written)
        chosen = [[written[position] for position in batch] for batch in batches]
        # Pixels are cut into patches while the model is at the batch before.
        packed = partial(self._inputs.rows, keep=self._inputs.up_to(self._pooled_token))
        ready = ahead(chosen, packed) if len(batches) > 1 else map(packed, chosen)
        for batch, rows in zip(batches, ready, strict=True):
            vectors[batch] = self._embed_rows(rows.to(self.model.device))
            tokens += sum(rows.lengths)
        return Embeddings(vectors, tokens)

    def rows(self, chats: Sequence[Chat]) -> PackedBatch:
        """Token ids, grids and pixels of chats, as `embed` gives them to the model; each row ends where it is pooled.

        Args:
            chats: At least one.

        Raises:
            InputError: When a chat is longer than the model's `max_tokens`.
        """
        return self._inputs.rows(self._written(chats), keep=self._inputs.up_to(self._pooled_token))

    def _written(self, chats: Sequence[Chat]) -> list[RenderedChat]:
        if self._home is not None:
            self._home.require()
        written = self._inputs.write(chats)
        longest = max((one.length for one in written), default=0)
        if longest > self.spec.max_tokens:
            raise InputError(
                f"an input takes {longest} tokens, the model reads {self.spec.max_tokens}",
                hint="shorten the text, or give fewer images",
            )
        return written

    def _embed_rows(self, rows: PackedBatch) -> Any:
        import torch

        with torch.inference_mode():
            # Post-norm states of the last layer, as both families were trained with.
            # A row ends where it is pooled.
            hidden, _ = unpadded.last_states(self.model, rows, unpadded.Packed(rows))
            unit = torch.nn.functional.normalize(hidden.float(), dim=-1)
        return unit.cpu().numpy()


def pooled_token(model: Any, tokenizer: Any, spec: EmbedderSpec) -> int:
    """The id of the token that is pooled, added to the tokenizer where only the model's config knows it.

    Raises:
        IncompatibleModel: When config and tokenizer disagree, neither knows the token, or it is beyond the embedding
            matrix.
    """
    declared = _declared_ids(model.config)
    rows = model.get_input_embeddings().weight.shape[0]
    if spec.emb_token not in tokenizer.get_vocab():
        if not declared:
            raise IncompatibleModel(
                f"{spec.emb_token} is declared neither by tokenizer nor config of {model.config.name_or_path}, so none "
                f"of its {rows} rows is known to be the token's",
                hint="this checkpoint was not trained as an Embed-RL Embedder; use one that was",
            )
        tokenizer.add_special_tokens(
            {"additional_special_tokens": [spec.emb_token]}, replace_extra_special_tokens=False
        )
    token = int(tokenizer.convert_tokens_to_ids(spec.emb_token))
    if declared and token not in declared:
        raise IncompatibleModel(
            f"{spec.emb_token} is token {token}, but the model was trained with {declared}",
            hint="use the tokenizer that came with the checkpoint",
        )
    if token >= rows:
        raise IncompatibleModel(
            f"{spec.emb_token} is token {token}, but the model has only {rows} rows",
            hint="this checkpoint was not trained as an Embed-RL Embedder; use one that was",
        )
    return token


def _declared_ids(config: Any) -> list[int]:
    declared = getattr(config, "emb_token_ids", None)
    if declared is None:
        return []
    ids = list(declared) if isinstance(declared, (list, tuple)) else [declared]
    if not all(isinstance(token, int) for token in ids):
        raise IncompatibleModel(
            f"emb_token_ids of {config.name_or_path} is {declared!r}, not ids of tokens",
            hint="use the config.json that came with the checkpoint",
        )
    return ids
