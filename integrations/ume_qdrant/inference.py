"""Our models in qdrant-client's inference, by name in `models.Document` and `models.Image`.

qdrant-client resolves such objects through the registries of FastEmbed (`pip install 'ume-retrieval[fastembed]'`), to
which `register_inference` adds our classes, in this process. Limits of this interface:

- Queries by image: the client embeds every `models.Image` as a document. Encode it with `encode_query` and pass the
  vector.
- Videos, pages, and text together with images cannot be expressed. Use `index`.
- Evidence: only a vector is returned, so no trace is stored.
- Worker processes (`upload_points(..., parallel=2)`) lack this process's registry.
- Async: `AsyncQdrantClient` embeds in the event loop and blocks it. Use `aencode_query` instead.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
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
"""Text and image classes by model name."""


def register_inference(embedder: ReasoningEmbedder, name: str | None = None) -> str:
    """Let qdrant-client find a model by name, for texts (both sides) and for images (documents).

    Items are embedded without reasoning unless a `Document` or `Image` has `options={"reasoning": "always"}`.

    Args:
        embedder: The models.
        name: Name for `models.Document(model=...)`; by default "ume/" and the Embedder's name.

    Returns:
        The name.

    Raises:
        MissingExtra: If FastEmbed is not installed.
        InputError: If the name is taken.
    """
    try:
        from fastembed import ImageEmbedding, TextEmbedding
        from fastembed.image.image_embedding_base import ImageEmbeddingBase
        from fastembed.text.text_embedding_base import TextEmbeddingBase
    except ImportError as error:
        raise MissingExtra(
            "inference by qdrant-client needs FastEmbed", hint="pip install 'ume-retrieval[fastembed]'"
        ) from error
    called = name or f"ume/{embedder.info.embedder.name}"
    known = [*TextEmbedding.list_supported_models(), *ImageEmbedding.list_supported_models()]
    if called.lower() in {entry["model"].lower() for entry in known}:
        raise InputError(f"FastEmbed has a model {called!r} already", hint="pass another name, or unregister it first")
    classes = (
        _model_class(TextEmbeddingBase, embedder, called, _texts),
        _model_class(ImageEmbeddingBase, embedder, called, _images),
    )
    TextEmbedding.EMBEDDINGS_REGISTRY.append(classes[0])
    ImageEmbedding.EMBEDDINGS_REGISTRY.append(classes[1])
    REGISTERED[called] = classes
    return called


def unregister_inference(name: str) -> None:
    """Remove a name. Clients that have used it keep their reference to the models.

    Raises:
        InputError: If the name is not registered.
    """
    if name not in REGISTERED:
        raise InputError(f"{name!r} is not registered", hint=f"registered: {', '.join(REGISTERED) or 'nothing'}")
    from fastembed import ImageEmbedding, TextEmbedding

    text, image = REGISTERED.pop(name)
    TextEmbedding.EMBEDDINGS_REGISTRY.remove(text)
    ImageEmbedding.EMBEDDINGS_REGISTRY.remove(image)


def _description(embedder: ReasoningEmbedder, name: str) -> Any:
    from fastembed.common.model_description import DenseModelDescription, ModelSource

    # FastEmbed requires a download source of every model; ours is in memory.
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


def _model_class(
    base: Any, embedder: ReasoningEmbedder, name: str, items_of: Callable[[Any], list[Item | str]]
) -> type[Any]:
    """Create a class for a registry of FastEmbed.

    Args:
        base: Its base class there.
        embedder: The models.
        name: Name of the model.
        items_of: Converts the inputs of a call.
    """

    class UmeModel(base):  # type: ignore[misc]  # the base is chosen at run time
        """Documents, and queries if they are texts."""

        def __init__(self, model_name: str, *args: Any, **options: Any) -> None:
            self._reasoning = _mode(options)
            super().__init__(model_name, *args)

        @classmethod
        def _list_supported_models(cls) -> list[Any]:
            return [_description(embedder, name)]

        @property
        def embedding_size(self) -> int:
            """Length of a vector."""
            return embedder.dimension

        def embed(self, inputs: Any, *_: Any, **__: Any) -> Iterator[Row]:
            """Embed documents."""
            yield from embedder.encode_corpus(items_of(inputs), reasoning=self._reasoning)

        def query_embed(self, query: str | Iterable[str], **_: Any) -> Iterator[Row]:
            """Embed queries."""
            yield from embedder.encode_query(items_of(query), reasoning=self._reasoning)

    return UmeModel


def _texts(texts: str | Iterable[str]) -> list[Item | str]:
    return [texts] if isinstance(texts, str) else list(texts)


def _images(images: Iterable[str | Path | PIL.Image.Image]) -> list[Item | str]:
    return [Item(images=(image,)) for image in images]
