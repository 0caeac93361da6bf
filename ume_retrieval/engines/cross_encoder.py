"""Rerankers of sentence-transformers: any `CrossEncoder` of one label, for text or, if it reads them, pictures."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial
from typing import Any, Self, TypeAlias

from ume_retrieval.chat import ImagePart, Pair, Part, TextPart
from ume_retrieval.checkpoint import ModelInfo, RerankerSpec
from ume_retrieval.engines.base import PairScores, Pretrained, Source
from ume_retrieval.engines.sentence_transformers import BATCH_SIZE, load_stock, token_lengths
from ume_retrieval.errors import IncompatibleModel, ModelError, UmeError

Side: TypeAlias = str | dict[str, Any]
"""A query or a document, as `CrossEncoder.predict` takes it."""


class CrossEncoderScorer(Pretrained[RerankerSpec]):
    """Scores pairs with a `CrossEncoder`; scores are the model's own, most often 0..1.

    A video is shown as its sampled frames. An instruction is the model's prompt. A text that is longer than the model
    reads loses its end, as the model's own tokenizer cuts it; such pairs are named in `PairScores.shortened`.

    Args:
        model: The loaded model.
        info: Which weights these are.
        spec: How videos are sampled.

    Raises:
        IncompatibleModel: When the model has several labels.
    """

    def __init__(self, model: Any, *, info: ModelInfo, spec: RerankerSpec) -> None:
        self.model, self.info, self.spec = model, info, spec
        if model.num_labels != 1:
            raise IncompatibleModel(
                f"{info.name} has {model.num_labels} labels, a reranker has one", hint="choose a model for reranking"
            )

    @classmethod
    def _load(cls, source: Source, spec: RerankerSpec) -> Self:
        model, info = load_stock("CrossEncoder", source)
        return cls(model, info=info, spec=spec)

    def score_pairs(self, pairs: Sequence[Pair]) -> PairScores:
        """Score each pair; one with a modality that the model does not read has its error in the place of its score.

        Raises:
            ModelError: When the model refuses the pairs.
        """
        rows: list[float | UmeError] = []
        inputs: dict[int, tuple[Side, Side]] = {}
        for place, pair in enumerate(pairs):
            try:
                inputs[place] = self._side(pair.query), self._side(pair.document)
                rows.append(math.nan)
            except IncompatibleModel as error:
                rows.append(error)
        lengths: list[int] = []
        if inputs:
            for place, score in zip(
                inputs, self._predict([*inputs.values()], pairs[0].instruction, lengths), strict=True
            ):
                rows[place] = float(score)
        shortened = tuple(place for place, one in inputs.items() if self._is_long(*one))
        return PairScores(rows, sum(lengths), shortened)

    def _predict(self, inputs: Sequence[tuple[Side, Side]], prompt: str | None, lengths: list[int]) -> Any:
        hook = self.model[0].register_forward_pre_hook(partial(_count, lengths))
        try:
            return self.model.predict(inputs, prompt=prompt, batch_size=BATCH_SIZE, show_progress_bar=False)
        except ValueError as error:
            first_line = next(iter(str(error).strip().splitlines()), type(error).__name__)
            raise ModelError(f"{self.info.name} refuses a pair: {first_line}", hint="look at the item") from error
        finally:
            hook.remove()

    def _side(self, parts: Sequence[Part]) -> Side:
        """Return one side of a pair.

        Where the model reads pictures, text is a dictionary too: a bare string may be taken for an address.
        """
        words = [part.text for part in parts if isinstance(part, TextPart)]
        images = [
            image
            for part in parts
            if not isinstance(part, TextPart)
            for image in ([part.image] if isinstance(part, ImagePart) else part.frames.images)
        ]
        kinds = tuple(name for name, content in (("image", images), ("text", words)) if content)
        if not self.model.supports(kinds[0] if len(kinds) == 1 else kinds):
            raise IncompatibleModel(
                f"{self.info.name} does not read {' with '.join(kinds)}",
                hint="choose a multimodal reranker, such as qwen3-vl-reranker-2b",
            )
        text = "\n".join(words)
        if not self.model.supports("image"):
            return text
        side: dict[str, Any] = {"text": text} if words else {}
        return side | ({"image": images[0] if len(images) == 1 else images} if images else {})

    def _is_long(self, query: Side, document: Side) -> bool:
        """Whether a pair is longer than a model of texts reads."""
        tokenizer, limit = getattr(self.model, "tokenizer", None), self.model.max_seq_length
        if isinstance(query, dict) or isinstance(document, dict) or not callable(tokenizer) or limit is None:
            return False
        ids: list[int] = tokenizer(query, document, truncation=False, verbose=False)["input_ids"]
        return len(ids) > int(limit)


def _count(lengths: list[int], reader: Any, args: tuple[Any, ...]) -> None:
    lengths += token_lengths(args[0], getattr(reader, "config", None))
