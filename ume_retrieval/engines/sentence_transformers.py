"""The Embedder on sentence-transformers: any multimodal model that the package loads."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ume_retrieval.chat import Chat, ImagePart, Message, TextPart, VideoPart
from ume_retrieval.checkpoint import EmbedderSpec, ModelInfo
from ume_retrieval.engines.base import Embeddings
from ume_retrieval.engines.checkpoint_files import locate, require_safetensors
from ume_retrieval.engines.transformers.loading import (
    cannot_load,
    check_sentence_transformer,
    choose_device,
    choose_dtype,
    known_revision,
    short_name,
)
from ume_retrieval.errors import IncompatibleModel, MissingExtra

BATCH_SIZE = 32
"""sentence-transformers batches by count; it sorts by length on its own."""


class SentenceTransformersEmbedder:
    """Embeds chats with a `SentenceTransformer`; a video travels as its sampled frames.

    Args:
        model: The loaded model.
        info: Which weights these are.
        spec: Visual budget.
    """

    def __init__(self, model: Any, *, info: ModelInfo, spec: EmbedderSpec) -> None:
        self.model = model
        self.info = info
        self.spec = spec

    @classmethod
    def from_pretrained(
        cls,
        name: str,
        *,
        spec: EmbedderSpec,
        revision: str | None = None,
        device: str = "auto",
        dtype: str = "auto",
        trust_remote_code: bool = False,
    ) -> SentenceTransformersEmbedder:
        """Load a folder or a hub id.

        Raises:
            MissingExtra: When sentence-transformers is not installed.
            ModelError: When the model cannot be found or loaded.
            IncompatibleModel: When weights are pickled, missing, misshapen or not finite.
        """
        try:
            from sentence_transformers import SentenceTransformer
        except ImportError as error:
            raise MissingExtra(
                f"{name} needs sentence-transformers",
                hint="pip install 'ume-retrieval[sentence-transformers]'",
            ) from error
        target = choose_device(device)
        located = locate(name, revision, code=trust_remote_code)
        require_safetensors(located.folder)
        try:
            model = SentenceTransformer(
                str(located.folder),
                device=str(target),
                trust_remote_code=trust_remote_code,
                # Other weights than safetensors are pickles, which may run code.
                model_kwargs={"dtype": choose_dtype(dtype, target), "use_safetensors": True},
            )
            check_sentence_transformer(name, located.folder, model)
        except Exception as error:  # files of strangers make it raise almost any type
            raise cannot_load(name, error) from error
        known = known_revision(str(located.folder), located.commit)
        return cls(model, info=ModelInfo(short_name(name), known, "sentence-transformers"), spec=spec)

    @property
    def dimension(self) -> int:
        """Length of a vector."""
        return int(self.model.get_embedding_dimension())

    def embed(self, chats: Sequence[Chat]) -> Embeddings:
        """Embed each chat; the vector of `chats[i]` is row i.

        Raises:
            IncompatibleModel: When an item mixes words and pictures and the model takes one of them at a time.
        """
        inputs = [self._input(chat[-1]) for chat in chats]
        vectors = np.empty((len(chats), self.dimension), dtype=np.float32)
        # sentence-transformers 6.2 rewrites a batch of strings, pictures and messages into messages, and then pictures
        # get other vectors than alone; so each kind travels with its own.
        for kind in {type(one) for one in inputs}:
            rows = [row for row, one in enumerate(inputs) if type(one) is kind]
            vectors[rows] = self.model.encode(
                [inputs[row] for row in rows],
                batch_size=BATCH_SIZE,
                normalize_embeddings=True,
                convert_to_numpy=True,
                show_progress_bar=False,
            )
        return Embeddings(vectors, tokens=0)

    def _input(self, message: Message) -> Any:
        """Words as a string, one picture as itself, everything else as a chat message."""
        words = "\n".join(part.text for part in message.parts if isinstance(part, TextPart))
        pictures = [picture for part in message.parts for picture in _pictures(part)]
        if not pictures:
            return words
        if len(pictures) == 1 and not words:
            return pictures[0]
        if not self.model.supports("message"):
            raise IncompatibleModel(
                f"{self.info.name} takes words or one picture, not a mix",
                hint="use reasoning='never' with items of one kind, or a model that reads chat messages",
            )
        content = [{"type": "image", "image": picture} for picture in pictures]
        return [{"role": "user", "content": [*content, {"type": "text", "text": words}]}]


def _pictures(part: Any) -> list[Any]:
    if isinstance(part, ImagePart):
        return [part.image]
    return list(part.frames.images) if isinstance(part, VideoPart) else []
