"""Convert LlamaIndex's queries and media to inputs of this library."""

from __future__ import annotations

from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path

from llama_index.core.schema import ImageType, QueryBundle

from ume_retrieval.errors import InputError
from ume_retrieval.inputs import Clip, ImageInput, Item
from ume_retrieval.media.files import is_remote
from ume_retrieval.util.files import display_name


@dataclass
class MediaQuery(QueryBundle):
    """A query of text, images and videos in any combination, for every LlamaIndex call that takes a `QueryBundle`.

    Attributes:
        query_str: The text; may be empty. A query engine shows it to the language model.
        image_path: An image.
        images: Further images: files, encoded bytes, or images in memory.
        videos: Videos, or segments of them.
        instruction: The task ("Find a page that answers the question"), or None.

    Example:
        >>> item_of_query(MediaQuery("now in green", images=["circle.png"])).modality
        'image'
    """

    query_str: str = ""
    images: list[ImageInput] = field(default_factory=list)
    videos: list[str | Path | Clip] = field(default_factory=list)
    instruction: str | None = None


def item_of_query(query: QueryBundle) -> Item:
    """Return a query as an input of the models.

    `custom_embedding_strs`, set by query transforms, replace `query_str` and are joined to one text.

    Raises:
        InputError: If the query is empty, or `images` or `videos` is not a list.
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
        raise InputError("the query is empty", hint="give text, image_path, or MediaQuery(images=…, videos=…)")
    return Item(
        text=text if text.strip() else None,
        images=tuple(Path(image) if isinstance(image, str) and not is_remote(image) else image for image in images),
        videos=tuple(videos),
        instruction=instruction,
    )


def image_of(image: ImageType) -> str | Path | bytes:
    """Return a path, encoded bytes, or an address (which the pipeline refuses unless allowed).

    Example:
        >>> image_of("cat.png"), image_of("https://example.org/cat.png")
        (PosixPath('cat.png'), 'https://example.org/cat.png')
    """
    if isinstance(image, BytesIO):
        return image.getvalue()
    return image if is_remote(image) else Path(image)


def image_item(image: ImageType) -> Item:
    """Return an input of one image."""
    return Item(images=(image_of(image),))


def name_of(item: Item | str) -> str:
    """Return an item's name in events: its text, then kinds and files of its media, without addresses.

    Example:
        >>> name_of(Item(text="now in green", images=("circle.png", "https://key@example.org/a.png")))
        'now in green, image circle.png, image'
    """
    if isinstance(item, str):
        return item
    words = [item.text] if item.text else []
    for kind, media in (("image", item.images), ("video", item.videos)):
        for one in media:
            path = getattr(one, "path", one)
            if isinstance(path, (str, Path)) and not is_remote(path):
                words.append(f"{kind} {display_name(path)}")
            else:
                words.append(kind)
    return ", ".join(words)
