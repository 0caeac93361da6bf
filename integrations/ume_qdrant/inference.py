"""Our models behind Qdrant's own inference: `models.Document` and `models.Image` that name them.

qdrant-client resolves such objects through the registries of FastEmbed (`pip install 'ume-retrieval[fastembed]'`).
`register_inference` adds a class of ours to them, in this process. What does not fit through that door:

- A query by picture: the client embeds every `models.Image` as a document. Encode it with `encode_query` and pass the
  vector.
- Videos, pages, and texts together with pictures: there is no such object. Use `index`.
- Reasons: only a vector comes back, so no trace is stored, and hits by the bare client carry no evidence.
- Worker processes (`upload_points(..., parallel=2)`), which know nothing of this process's registry.
- Async: `AsyncQdrantClient` embeds in the event loop and blocks it meanwhile. Encode with `aencode_query` instead.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any, Final, get_args

import numpy as np
import numpy.typing as npt

from ume_retrieval.errors import InputError, MissingExtra
from ume_retrieval.inputs import Item
from ume_retrieval.pipeline.embedder import ReasoningEmbedder
from ume_retrieval.pipeline.encode_options import ReasoningMode

if TYPE_CHECKING:
    from pathlib import Path

    import PIL.Image

Row = npt.NDArray[np.float32]

REGISTERED: Final[dict[str, tuple[type, type]]] = {}
"""Classes for texts and for images, by model name."""


def register_inference(embedder: ReasoningEmbedder, name: str | None = None) -> str:
    """Let qdrant-client find a model by name, for texts (both sides) and for images (documents).

    By default nothing is reasoned over; `options={"reasoning": "always"}` in a `Document` or `Image` asks for it.

    Args:
        embedder: The models.
        name: What `models.Document(model=...)` says; by default "ume/" and the Embedder's name.

    Returns:
        The name.

    Raises:
        MissingExtra: When FastEmbed is not installed.
        InputError: When the name is taken.
    """
    try:
        from fastembed import ImageEmbedding, TextEmbedding
    except ImportError as error:
        raise MissingExtra(
            "inference by qdrant-client needs FastEmbed", hint="pip install 'ume-retrieval[fastembed]'"
        ) from error
    called = name or f"ume/{embedder.info.embedder.name}"
    known = [*TextEmbedding.list_supported_models(), *ImageEmbedding.list_supported_models()]
    if called.lower() in {entry["model"].lower() for entry in known}:
        raise InputError(f"FastEmbed has a model {called!r} already", hint="pass another name, or unregister it first")
    classes = _text_class(embedder, called), _image_class(embedder, called)
    TextEmbedding.EMBEDDINGS_REGISTRY.append(classes[0])
    ImageEmbedding.EMBEDDINGS_REGISTRY.append(classes[1])
    REGISTERED[called] = classes
    return called


def unregister_inference(name: str) -> None:
    """Forget a name. Clients that have used it keep their reference to the models.

    Raises:
        InputError: When the name was not registered here.
    """
    if name not in REGISTERED:
        raise InputError(f"{name!r} is not registered", hint=f"registered: {', '.join(REGISTERED) or 'nothing'}")
    from fastembed import ImageEmbedding, TextEmbedding

    text, image = REGISTERED.pop(name)
    TextEmbedding.EMBEDDINGS_REGISTRY.remove(text)
    ImageEmbedding.EMBEDDINGS_REGISTRY.remove(image)


def _description(embedder: ReasoningEmbedder, name: str) -> Any:
    from fastembed.common.model_description import DenseModelDescription, ModelSource

    # FastEmbed asks every model where it could be downloaded from; ours is in memory already.
    return DenseModelDescription(
        model=name,
        sources=ModelSource(url="memory"),
        model_file="",
        description=f"{embedder.info.embedder.name}@{embedder.info.embedder.revision}",
        license="",
        size_in_GB=0.0,
        dim=embedder.dimension,
    )


def _mode(options: dict[str, Any]) -> ReasoningMode:
    mode = options.pop("reasoning", "never")
    if mode not in get_args(ReasoningMode):
        raise InputError(f"unknown reasoning {mode!r}", hint="use 'always' or 'never'")
    chosen: ReasoningMode = mode
    return chosen


def _text_class(embedder: ReasoningEmbedder, name: str) -> type:
    from fastembed.text.text_embedding_base import TextEmbeddingBase

    class UmeTextEmbedding(TextEmbeddingBase):  # type: ignore[misc]  # FastEmbed may be missing where types are checked
        """Texts as documents and as queries."""

        def __init__(self, model_name: str, *args: Any, **options: Any) -> None:
            self._reasoning = _mode(options)
            super().__init__(model_name, *args)

        @classmethod
        def _list_supported_models(cls) -> list[Any]:
            return [_description(embedder, name)]

        @property
        def embedding_size(self) -> int:
            """Values of a vector."""
            return embedder.dimension

        def embed(self, documents: str | Iterable[str], *_: Any, **__: Any) -> Iterator[Row]:
            """Embed documents."""
            yield from embedder.encode_corpus(_listed(documents), reasoning=self._reasoning)

        def query_embed(self, query: str | Iterable[str], **_: Any) -> Iterator[Row]:
            """Embed queries."""
            yield from embedder.encode_query(_listed(query), reasoning=self._reasoning)

    return UmeTextEmbedding


def _image_class(embedder: ReasoningEmbedder, name: str) -> type:
    from fastembed.image.image_embedding_base import ImageEmbeddingBase

    class UmeImageEmbedding(ImageEmbeddingBase):  # type: ignore[misc]  # as above
        """Images as documents."""

        def __init__(self, model_name: str, *args: Any, **options: Any) -> None:
            self._reasoning = _mode(options)
            super().__init__(model_name, *args)

        @classmethod
        def _list_supported_models(cls) -> list[Any]:
            return [_description(embedder, name)]

        @property
        def embedding_size(self) -> int:
            """Values of a vector."""
            return embedder.dimension

        def embed(self, images: Iterable[str | Path | PIL.Image.Image], *_: Any, **__: Any) -> Iterator[Row]:
            """Embed images: paths or PIL images."""
            items = [Item(images=(image,)) for image in images]
            yield from embedder.encode_corpus(items, reasoning=self._reasoning)

    return UmeImageEmbedding


def _listed(texts: str | Iterable[str]) -> list[str]:
    return [texts] if isinstance(texts, str) else list(texts)
