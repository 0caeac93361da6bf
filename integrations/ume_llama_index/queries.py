"""What can be asked: LlamaIndex's query bundle, and one that holds videos and several images."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from llama_index.core.schema import QueryBundle

from ume_retrieval.errors import InputError
from ume_retrieval.inputs import Clip, ImageInput, Item
from ume_retrieval.media.files import is_remote


@dataclass
class MediaQuery(QueryBundle):
    """A query of text, images and videos in any mix, for every LlamaIndex call that takes a `QueryBundle`.

    Attributes:
        query_str: The words; may be empty. A query engine shows them to the language model.
        image_path: An image.
        images: Further images: files, encoded bytes, or pictures in memory.
        videos: Videos, or stretches of them.
        instruction: What is wanted ("Find a page that answers the question"), or None.

    Example:
        >>> item_of_query(MediaQuery("now in green", images=["circle.png"])).modality
        'image'
    """

    query_str: str = ""
    images: list[ImageInput] = field(default_factory=list)
    videos: list[str | Path | Clip] = field(default_factory=list)
    instruction: str | None = None


def item_of_query(query: QueryBundle) -> Item:
    """What the models are to see of a query.

    `custom_embedding_strs`, as a query transform sets them, take the place of `query_str` and are read as one text.

    Raises:
        InputError: When the query is empty, or a single file stands where a list belongs.
    """
    text = "\n".join(query.embedding_strs)
    images: list[ImageInput] = [query.image_path] if query.image_path else []
    videos: list[str | Path | Clip] = []
    instruction = None
    if isinstance(query, MediaQuery):
        if isinstance(query.images, (str, Path)) or isinstance(query.videos, (str, Path)):
            raise InputError("images and videos of a MediaQuery take lists", hint='write images=["cat.png"]')
        images = [*images, *query.images]
        videos = list(query.videos)
        instruction = query.instruction
    if not (text.strip() or images or videos):
        raise InputError("the query is empty", hint="give words, image_path, or MediaQuery(images=…, videos=…)")
    return Item(
        text=text if text.strip() else None,
        images=tuple(Path(image) if isinstance(image, str) and not is_remote(image) else image for image in images),
        videos=tuple(videos),
        instruction=instruction,
    )
