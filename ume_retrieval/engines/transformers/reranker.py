"""Qwen3-VL-Reranker on Hugging Face transformers: how much more likely "yes" is than "no" at a pair's last token."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any, Final, Self

import numpy as np
import numpy.typing as npt

from ume_retrieval.chat import Pair
from ume_retrieval.checkpoint import RerankerSpec
from ume_retrieval.engines.base import PairScores, Pretrained, Source
from ume_retrieval.engines.families import pair_chat
from ume_retrieval.engines.transformers import unpadded
from ume_retrieval.engines.transformers.embedder import CPU_BATCH_TOKENS, GPU_BATCH_TOKENS
from ume_retrieval.engines.transformers.loading import Loaded, load_checkpoint
from ume_retrieval.engines.transformers.processor import ChatInputs, PackedBatch, RenderedChat, pack
from ume_retrieval.errors import IncompatibleModel
from ume_retrieval.util.threads import ahead

END_TOKENS: Final = 5
"""Tokens of a pair's end, `<|im_end|>`, line break, `<|im_start|>`, `assistant`, line break: they always stay."""


class TransformersReranker(Pretrained[RerankerSpec]):
    """Scores pairs with one forward pass each: sigmoid(h (w_yes - w_no)) of the last token's state h.

    Args:
        loaded: A Qwen3-VL with its head and processor.
        spec: Family and visual budget.
        batch_tokens: Most tokens of a batch; by default what suits the device.

    Raises:
        IncompatibleModel: When the model is not a Qwen3-VL, or its tokenizer has no token for "yes" or "no".
    """

    def __init__(self, loaded: Loaded, *, spec: RerankerSpec, batch_tokens: int | None = None) -> None:
        self.model, self.info, self.spec = loaded.model, loaded.info, spec
        if not unpadded.is_supported(self.model):
            raise IncompatibleModel(
                f"{self.info.name} is a {self.model.config.model_type}, no Qwen3-VL",
                hint="use a Qwen3-VL-Reranker, or a model with the files of a sentence-transformers CrossEncoder",
            )
        on_cpu = self.model.device.type == "cpu"
        self.batch_tokens = batch_tokens or (CPU_BATCH_TOKENS if on_cpu else GPU_BATCH_TOKENS)
        self._inputs = ChatInputs(loaded.processor, "right")
        unpadded.prepare(self.model)
        yes, no = answer_tokens(loaded.processor.tokenizer, self.info.name)
        head = self.model.get_output_embeddings().weight
        self._direction = head[yes].detach().float() - head[no].detach().float()
        self._keep = partial(kept_places, special=special_tokens(loaded.processor.tokenizer), most=spec.max_tokens)

    @classmethod
    def _load(cls, source: Source, spec: RerankerSpec) -> Self:
        return cls(load_checkpoint(source, "AutoModelForImageTextToText"), spec=spec)

    def score_pairs(self, pairs: Sequence[Pair]) -> PairScores:
        """Score each pair, 0..1; the score of `pairs[i]` is row i, whatever the batches were."""
        written = self._written(pairs)
        scores = np.empty(len(pairs), dtype=np.float32)
        tokens = 0
        batches = pack([min(one.length, self._longest) for one in written], self.batch_tokens)
        chosen = [[written[position] for position in batch] for batch in batches]
        packed = partial(self._inputs.rows, keep=self._keep)
        # Pixels are cut into patches while the model is at the batch before.
        ready = ahead(chosen, packed) if len(batches) > 1 else map(packed, chosen)
        for batch, rows in zip(batches, ready, strict=True):
            scores[batch] = self._score_rows(rows.to(self.model.device))
            tokens += sum(rows.lengths)
        shortened = tuple(place for place, one in enumerate(written) if one.length > self._longest)
        return PairScores([float(score) for score in scores], tokens, shortened)

    def rows(self, pairs: Sequence[Pair]) -> PackedBatch:
        """Token ids, grids and pixels of pairs, as `score_pairs` gives them to the model.

        Args:
            pairs: At least one.
        """
        return self._inputs.rows(self._written(pairs), keep=self._keep)

    @property
    def _longest(self) -> int:
        return self.spec.max_tokens + END_TOKENS

    def _written(self, pairs: Sequence[Pair]) -> list[RenderedChat]:
        return self._inputs.write([pair_chat(self.spec, pair) for pair in pairs])

    def _score_rows(self, rows: PackedBatch) -> npt.NDArray[np.float32]:
        import torch

        with torch.inference_mode():
            hidden, _ = unpadded.last_states(self.model, rows, unpadded.Packed(rows))
            scores: npt.NDArray[np.float32] = torch.sigmoid(hidden.float() @ self._direction).cpu().numpy()
        return scores


def answer_tokens(tokenizer: Any, name: str) -> tuple[int, int]:
    """Return the ids of the tokens for "yes" and "no".

    Raises:
        IncompatibleModel: When the tokenizer lacks one.
    """
    known = tokenizer.get_vocab()
    if not {"yes", "no"} <= known.keys():
        raise IncompatibleModel(
            f"{name} has no tokens for yes and no, by which a Qwen3-VL-Reranker answers",
            hint="use the tokenizer that came with the checkpoint",
        )
    return int(known["yes"]), int(known["no"])


def special_tokens(tokenizer: Any) -> frozenset[int]:
    """Return the ids of special tokens, those of pictures and turns among them."""
    return frozenset(token for token, added in tokenizer.added_tokens_decoder.items() if added.special)


def kept_places(row: Sequence[int], special: frozenset[int], most: int) -> Sequence[int]:
    """Return the places of the tokens that the published code keeps of a pair.

    Above `most` tokens before the fixed end, tokens that are not special are dropped from the end; special ones stay.

    Args:
        row: Token ids of a pair.
        special: Ids of special tokens.
        most: Tokens before the fixed end.

    Example:
        >>> kept_places([1, 2, 9, 3, 4, 9, 9, 9, 9, 9], frozenset({9}), most=3)
        [0, 1, 2, 5, 6, 7, 8, 9]
    """
    end = len(row) - END_TOKENS
    if end <= most:
        return range(len(row))
    words = [place for place in range(end) if row[place] not in special]
    dropped = set(words[max(0, len(words) - (end - most)) :])
    return [place for place in range(len(row)) if place not in dropped]
