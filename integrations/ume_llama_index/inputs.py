"""LlamaIndex's words for media as this library's inputs, and what an event calls them."""

from __future__ import annotations

from io import BytesIO
from pathlib import Path

from llama_index.core.schema import ImageType

from ume_retrieval.inputs import Item
from ume_retrieval.media.files import display_name, is_remote


def image_of(image: ImageType) -> str | Path | bytes:
    """A path, encoded bytes, or an address, which the pipeline refuses unless it is told otherwise.

    Example:
        >>> image_of("cat.png"), image_of("https://example.org/cat.png")
        (PosixPath('cat.png'), 'https://example.org/cat.png')
    """
    if isinstance(image, BytesIO):
        return image.getvalue()
    return image if is_remote(image) else Path(image)


def image_item(image: ImageType) -> Item:
    """An image alone."""
    return Item(images=(image_of(image),))


def name_of(item: Item | str) -> str:
    """What an event calls an item: its words, then kinds and files of its media. Addresses may hold secrets.

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
