"""What documents hold: from the caller's values to items, their digests, and the entries to index."""

from __future__ import annotations

import io
import os
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from hashlib import sha256
from pathlib import Path
from typing import Final, Literal, TypeAlias, TypeVar

import PIL.Image

from ume_qdrant.reports import error_of
from ume_qdrant.stores.metadata import Metadata
from ume_retrieval.checkpoint import VisualBudget
from ume_retrieval.errors import Failure, InputError, UnsupportedMedia
from ume_retrieval.inputs import Clip, Frames, ImageInput, Item, Page
from ume_retrieval.media import Entry, FoundFile, Limits, content_id, display_name, entries, open_image, walk
from ume_retrieval.media.files import file_digest, file_status, is_remote, local_path
from ume_retrieval.media.formats import IMAGE_FORMATS, sniff
from ume_retrieval.media.images import check_bytes
from ume_retrieval.media.remote.fetch import fetch
from ume_retrieval.util.files import atomic_write

Content: TypeAlias = Item | str | bytes | PIL.Image.Image | Path | Page | Clip | Frames
"""The content of a document. A `str` is text, never a path; a `Path` is a file with all of its pages or segments."""

Medium = TypeVar("Medium")

SUFFIXES: Final = {"jpeg": ".jpg", "matroska": ".mkv"}
"""Suffixes of kept files by format, where they differ from its name."""


@dataclass(frozen=True, slots=True)
class Document:
    """One thing of the caller's to index with `index_documents`.

    Attributes:
        content: Text, an image (encoded bytes, PIL image), a file, a page, a clip, frames, or an `Item` of several.
        id: Its name, any text; `hit.id` of its hits. A UUID is used as the point's id as it is. None derives an id from
            the content: the file's path, or a digest.
        metadata: Metadata of your own, for hits and filters.

    Example:
        >>> Document("the last train home", id="note-1", metadata={"owner": "ann"}).id
        'note-1'
    """

    content: Content
    id: str | None = None
    metadata: Metadata = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Reading:
    """How contents are read.

    Attributes:
        limits: Limits on the cost of a content.
        cut: Length and overlap of video segments in seconds.
        allow_remote: Hosts from which images are fetched.
        folder: Folder in which media without a file are kept, or None.
    """

    limits: Limits
    cut: tuple[float, float]
    allow_remote: Sequence[str] = ()
    folder: Path | None = None

    def file(self, path: Path) -> list[Entry]:
        """Return the entries of a file, as `index` makes them.

        Raises:
            MediaError: If the file cannot be used.
            InputError: If it is a folder.
        """
        whole = Path(os.path.abspath(path))  # noqa: PTH100  # keeps links, as in `index`
        if whole.is_dir():
            raise InputError(f"{display_name(path)} is a folder", hint="index folders with index()")
        found = next(walk([whole], limits=self.limits), None)
        if isinstance(found, Failure):
            raise error_of(found)
        if found is None:
            raise UnsupportedMedia(f"{display_name(path)} cannot be indexed")
        return self.entries(found)

    def entries(self, found: FoundFile) -> list[Entry]:
        """Return the entries of a file that was found."""
        segment_s, overlap_s = self.cut
        return entries(found, limits=self.limits, segment_s=segment_s, overlap_s=overlap_s)

    def item(self, item: Item, name: str) -> Entry:
        """Return the entry of an item whose media are local: one point, whatever it holds.

        Args:
            item: The item; see `localize`.
            name: Name of the document, for the source of contents without a file.

        Raises:
            MediaError: If a file cannot be read.
            InputError: If a medium has an unsupported type.
        """
        digest = content_digest(item, self.limits)
        files = [path for path in map(_path_of, (*item.images, *item.videos)) if path is not None]
        source = display_name(files[0]) if len(files) == 1 else display_name(name)
        status = file_status(files[0]) if len(files) == 1 else None
        page = item.images[0] if len(item.images) == 1 and not item.videos else None
        clip = item.videos[0] if len(item.videos) == 1 else None
        kind: Literal["image", "video", "page", "text"] = "page" if isinstance(page, Page) else item.modality
        return Entry(
            source=source,
            path=files[0] if files else Path(),
            kind=kind,
            item=item,
            start_s=clip.start_s if isinstance(clip, Clip) else None,
            end_s=clip.end_s if isinstance(clip, Clip) else None,
            page=page.page if isinstance(page, Page) else None,
            file_digest=digest,
            size=status.st_size if status else len(item.text or ""),
            mtime_ns=status.st_mtime_ns if status else 0,
        )

    def localize(self, item: Item) -> Item:
        """Return an item with absolute paths, and with images fetched, and encoded if they are to be kept.

        Raises:
            MediaError: If an image cannot be fetched or read.
        """
        images = tuple(self._image(image) for image in item.images)
        return replace(item, images=images, videos=tuple(map(_absolute, item.videos)))

    def kept(self, item: Item, owner: str) -> tuple[Item, tuple[Path, ...]]:
        """Write the images that an item holds in memory to the folder, if there is one.

        Args:
            item: The item; see `localize`.
            owner: Id of the point, the beginning of the files' names.

        Returns:
            The item with paths, and the files.
        """
        if self.folder is None:
            return item, ()
        images = tuple(self.keep(image, owner) if isinstance(image, bytes) else image for image in item.images)
        written = [new for new, old in zip(images, item.images, strict=True) if isinstance(old, bytes)]
        return replace(item, images=images), tuple(path for path in written if isinstance(path, Path))

    def keep(self, data: bytes, owner: str) -> Path:
        """Write encoded media to the folder, unless it is there; its name begins with the id of the point.

        Raises:
            UnsupportedMedia: If the bytes are not an image, video or PDF.
            InputError: Without a folder, or if it cannot be written.
        """
        form = sniff(data)
        if form is None:
            raise UnsupportedMedia("the bytes are not an image, video or PDF", hint="give text as a str")
        if self.folder is None:
            raise InputError(f"a {form} in memory needs a file", hint="give its path, or keep_media=… a folder")
        name = f"{owner}-{sha256(data).hexdigest()[:16]}{SUFFIXES.get(form, f'.{form}')}"
        path = Path(os.path.abspath(self.folder)) / name  # noqa: PTH100  # keeps links, as in `index`
        return path if path.exists() else atomic_write(path, data, what="the media")

    def _image(self, image: ImageInput) -> ImageInput:
        if isinstance(image, str) and is_remote(image) and self.allow_remote:
            image = fetch(image, self.limits, hosts=self.allow_remote)
        if self.folder is not None and isinstance(image, PIL.Image.Image):
            encoded = io.BytesIO()
            open_image(image, self.limits).save(encoded, "PNG")
            image = encoded.getvalue()
        return check_bytes(image, self.limits) if isinstance(image, bytes) else _absolute(image)


def item_of_content(content: object) -> Item:
    """Return a content as an item; a `Path` is not one, as it may be several.

    Raises:
        InputError: If it has another type, or is empty.
        UnsupportedMedia: If bytes are not an image.

    Example:
        >>> item_of_content("the last train home").text
        'the last train home'
    """
    match content:
        case Item():
            return content
        case str():
            return Item(text=content)
        case bytes():
            if content and sniff(content) not in IMAGE_FORMATS:
                raise UnsupportedMedia("the bytes are not an image", hint="give text as a str, other media as a path")
            return Item(images=(content,))
        case PIL.Image.Image() | Page():
            return Item(images=(content,))
        case Clip() | Frames():
            return Item(videos=(content,))
    raise InputError(
        f"a document cannot hold a {type(content).__name__}",
        hint="give an Item, text, bytes of an image, a PIL image, Path, Page, Clip or Frames",
    )


def content_digest(item: Item, limits: Limits) -> str:
    """Return a digest of an item's content, hexadecimal; that of the file where the item is one file.

    So a document shares vectors with an indexed file of the same bytes.

    Raises:
        MediaError: If a file cannot be read.
        InputError: If the text is too long or not Unicode, or a medium has an unsupported type.
    """
    if item.text is not None:
        _check_text(item.text, limits)
    media = (*item.images, *item.videos)
    if item.instruction is None and not media and item.text is not None:
        return sha256(item.text.encode()).hexdigest()
    if item.instruction is None and item.text is None and len(media) == 1:
        [medium] = media
        if isinstance(medium, bytes):
            return sha256(check_bytes(medium, limits)).hexdigest()
        path = _path_of(medium)
        if path is not None:
            return file_digest(path, limits).hex()
    return content_id(item, VisualBudget(), limits)


def _check_text(text: str, limits: Limits) -> None:
    if len(text) > limits.max_text_chars:
        raise InputError(
            f"the text has more than {limits.max_text_chars} characters",
            hint="split it, or raise Limits.max_text_chars",
        )
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise InputError("the text is not valid Unicode", hint="decode it with errors='replace'") from error


def _path_of(medium: object) -> Path | None:
    if isinstance(medium, (Page, Clip)):
        return medium.path
    return local_path(medium) if isinstance(medium, (str, Path)) else None


def _absolute(medium: Medium) -> Medium | Path:
    path = _path_of(medium)
    if path is None:
        return medium
    whole = Path(os.path.abspath(path))  # noqa: PTH100  # keeps links, as in `index`
    return replace(medium, path=whole) if isinstance(medium, (Page, Clip)) else whole
