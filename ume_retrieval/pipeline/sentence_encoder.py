"""`SentenceEncoder`: a `ReasoningEmbedder` that is called as sentence-transformers' `SentenceTransformer` is."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal

from ume_retrieval.errors import InputError
from ume_retrieval.pipeline.embedder import ReasoningEmbedder
from ume_retrieval.pipeline.encode_options import EncodeProgress, Inputs, ReasoningMode
from ume_retrieval.vectors import Precision

if TYPE_CHECKING:
    import torch
    from sentence_transformers import SentenceTransformerModelCardData

SIDES = {"query": "query", "document": "corpus", "corpus": "corpus"}
"""Side of each prompt name."""


class SentenceEncoder:
    """Encodes with sentence-transformers' methods and keywords, so that its evaluators run on a `ReasoningEmbedder`.

    Args:
        embedder: Makes the vectors.
        reasoning: "always" reasons about each input; "never" embeds directly.

    Attributes:
        similarity_fn_name: Similarity of two vectors, which `similarity` computes.

    Example:
        >>> from ume_retrieval.testing import fake_embedder
        >>> encoder = SentenceEncoder(fake_embedder())
        >>> encoder.encode_query(["a red circle"], batch_size=8, normalize_embeddings=True).shape
        (1, 64)
    """

    similarity_fn_name = "cosine"

    def __init__(self, embedder: ReasoningEmbedder, *, reasoning: ReasoningMode = "always") -> None:
        self.embedder = embedder
        self.reasoning = reasoning

    @cached_property
    def model_card_data(self) -> SentenceTransformerModelCardData:
        """The record in which evaluators note their metrics."""
        from sentence_transformers import SentenceTransformerModelCardData

        return SentenceTransformerModelCardData()

    def encode_query(self, inputs: Inputs, *, prompt_name: str | None = None, **keywords: Any) -> Any:
        """Encode queries; see `encode`."""
        return self.encode(inputs, prompt_name=prompt_name or "query", **keywords)

    def encode_document(self, inputs: Inputs, *, prompt_name: str | None = None, **keywords: Any) -> Any:
        """Encode documents; see `encode`."""
        return self.encode(inputs, prompt_name=prompt_name or "document", **keywords)

    def encode(
        self,
        inputs: Inputs,
        *,
        prompt_name: str = "document",
        prompt: str | None = None,
        batch_size: int = 32,
        show_progress_bar: bool | None = None,
        output_value: Literal["sentence_embedding"] | None = "sentence_embedding",
        precision: Precision = "float32",
        convert_to_numpy: bool = True,
        convert_to_tensor: bool = False,
        device: str | None = None,
        normalize_embeddings: bool = False,
        truncate_dim: int | None = None,
    ) -> Any:
        """Encode one input or several with the keywords of `SentenceTransformer.encode`.

        Args:
            inputs: As in `ReasoningEmbedder.encode_query`.
            prompt_name: "query" or "document": which prompts are used.
            prompt: Only None; an instruction belongs into `Item(instruction=...)`.
            batch_size: Accepted for compatibility; engines fill their batches by tokens, and vectors do not depend
                on it.
            show_progress_bar: Whether to show a progress bar of embedded inputs.
            output_value: Only "sentence_embedding".
            precision: How vectors are stored, see `vectors.quantize`.
            convert_to_numpy: Return one array; without it and `convert_to_tensor`, a list of tensors.
            convert_to_tensor: Return one tensor.
            device: Only None; the engine was given its device when it was loaded.
            normalize_embeddings: Accepted for compatibility; vectors always have length 1.
            truncate_dim: Keep the first components only and normalise again.

        Returns:
            Shape (n, dim), or (dim,) for a single input.

        Raises:
            InputError: When a keyword asks for what a `ReasoningEmbedder` does not do.
            UmeError: As `ReasoningEmbedder.encode_query` does.
        """
        del batch_size, normalize_embeddings
        if prompt_name not in SIDES:
            raise InputError(f"unknown prompt_name {prompt_name!r}", hint=f"use one of {', '.join(SIDES)}")
        for name, value, only in (
            ("prompt", prompt, None),
            ("device", device, None),
            ("output_value", output_value, "sentence_embedding"),
        ):
            if value != only:
                hint = "put an instruction into Item(instruction=...)" if name == "prompt" else f"use {only!r}"
                raise InputError(f"{name} is {value!r}, and a ReasoningEmbedder takes {only!r} only", hint=hint)
        encode = self.embedder.encode_query if SIDES[prompt_name] == "query" else self.embedder.encode_corpus
        with _progress_bar() if show_progress_bar else nullcontext() as on_progress:
            vectors = encode(
                inputs,
                reasoning=self.reasoning,
                precision=precision,
                truncate_dim=truncate_dim,
                on_progress=on_progress,
            )
        if convert_to_numpy and not convert_to_tensor:
            return vectors
        import torch

        tensor = torch.from_numpy(vectors)
        return tensor if convert_to_tensor or tensor.ndim == 1 else list(tensor)

    def similarity(self, a: Any, b: Any) -> torch.Tensor:
        """Cosine similarity of every row of `a` with every row of `b` as a tensor, shape (n, m)."""
        import torch

        return torch.from_numpy(self.embedder.similarity(a, b))


@contextmanager
def _progress_bar() -> Iterator[EncodeProgress]:
    from tqdm.auto import tqdm  # type: ignore[import-untyped]  # the bar of sentence-transformers, without stubs

    with tqdm(desc="embed") as bar:

        def show(done: int, total: int, stage: str) -> None:
            if stage == "embed":
                bar.total, bar.n = total, done
                bar.refresh()

        yield show
