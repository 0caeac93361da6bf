"""Names of files in a collection, and from a point back to its file."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final, Self

from ume_qdrant.stores.base import Payload, Store
from ume_qdrant.stores.filters import ANY_TENANT, Filter
from ume_retrieval.errors import Failure, InputError, ItemWarning, MediaNotFound
from ume_retrieval.inputs import Clip, Item, Page
from ume_retrieval.media import display_name
from ume_retrieval.media.files import is_remote

MEDIA_ROOT: Final = "UME_MEDIA_ROOT"
"""Environment variable with the folder of files that have relative names; by default the working folder."""

_ESCAPE: Final = re.compile(r"\\(?:\\|x([0-9a-f]{2})|u([0-9a-f]{4})|U([0-9a-f]{8}))")


@dataclass(frozen=True, slots=True)
class Naming:
    """How files are named: by absolute paths, or relative to a folder.

    Attributes:
        base: That folder with a separator at its end; empty for absolute names.

    Example:
        >>> Naming("/data/").of("/data/films/a.mp4"), Naming().of("/data/films/a.mp4")
        ('films/a.mp4', '/data/films/a.mp4')
    """

    base: str = ""

    @classmethod
    def below(cls, folder: str | Path | None, roots: Sequence[str | Path]) -> Self:
        """Return names relative to a folder, or absolute ones for None.

        Args:
            folder: The folder.
            roots: Absolute paths of what is named.

        Raises:
            InputError: If a root is not below the folder.
        """
        if folder is None:
            return cls()
        path = os.path.abspath(folder)  # noqa: PTH100  # as `roots_of` makes roots absolute
        for root in roots:
            if not Path(root).is_relative_to(path):
                raise InputError(
                    f"{display_name(root)} is not below {display_name(path)}",
                    hint="name a folder that contains everything that is indexed",
                )
        return cls(display_name(path).rstrip(os.sep) + os.sep)

    def of(self, source: str) -> str:
        """Return the name for an absolute name; "." is the folder itself."""
        return (source + os.sep).removeprefix(self.base).rstrip(os.sep) or os.curdir if self.base else source

    def of_failure(self, failure: Failure) -> Failure:
        """Return a failure with its files named so."""
        if not self.base:
            return failure
        return replace(failure, source=self.of(failure.source), message=failure.message.replace(self.base, ""))

    def of_warning(self, warning: ItemWarning) -> ItemWarning:
        """Return a warning with its file named so."""
        if not self.base:
            return warning
        return ItemWarning(self.of(warning.source), warning.message.replace(self.base, ""))

    def check(self, store: Store) -> None:
        """Raise if the collection names files in the other way, which would add each file twice.

        Raises:
            InputError: With the way that the collection uses.
        """
        # `within` contains the root folder for absolute names, "." for relative ones.
        other = Path(self.base).anchor if self.base else os.curdir
        if next(iter(store.scroll(Filter(under=(other,), tenant=ANY_TENANT), fields=("source",))), None) is not None:
            way, hint = ("absolute", "leave relative_to out") if self.base else ("relative", "give relative_to too")
            raise InputError(
                f"files have {way} names in {store.collection!r}", hint=f"{hint}, or use another collection"
            )


def is_relative(source: str) -> bool:
    """Return whether a file has a relative name; addresses are absolute."""
    return "://" not in source and not Path(source).is_absolute()


def source_path(source: str, folder: str | Path | None = None) -> Path:
    r"""Return the path of a source, the inverse of `ume_retrieval.util.files.display_name`.

    Args:
        source: The name.
        folder: Folder of relative names; by default UME_MEDIA_ROOT, or the working folder.

    Example:
        >>> source_path("holiday/caf\\xe9.jpg")
        PosixPath('holiday/caf\udce9.jpg')
    """
    root = os.environ.get(MEDIA_ROOT, "") if folder is None else folder
    if os.sep == "\\":
        return Path(root, source)

    def character(match: re.Match[str]) -> str:
        byte, *codes = match.groups()
        if byte:
            return chr(0xDC00 + int(byte, 16))
        return next((chr(int(code, 16)) for code in codes if code), "\\")

    return Path(root, _ESCAPE.sub(character, source))


DOCUMENT_FIELD: Final = "ume_document"
"""Payload field of documents: what their other fields do not say about their content, see `stored_item`."""


def item_of(payload: Payload, folder: str | Path | None = None) -> Item:
    """Return a point's media as an input: an image, video segment or page in its file, or the stored text.

    Args:
        payload: The point's fields.
        folder: Folder of files with relative names; see `source_path`.

    Raises:
        MediaNotFound: If it was indexed from memory, and its media were not kept.
    """
    known = payload.get(DOCUMENT_FIELD)
    document = known if isinstance(known, Mapping) else {}
    if document.get("in_memory"):
        raise MediaNotFound(
            f"the media of {payload['source']} were in memory when it was indexed",
            hint="index it again with keep_media=…, a folder to keep them in",
        )
    if "images" in document or "videos" in document:
        return Item(
            text=document.get("text"),
            images=tuple(_medium(one, folder) for one in document.get("images", ())),
            videos=tuple(Clip(source_path(p, folder), start, end) for p, start, end in document.get("videos", ())),
            instruction=document.get("instruction"),
        )
    source = payload["source"]
    # An address is kept as it is, so that the pipeline can refuse it by name.
    path: Any = source if is_remote(source) else source_path(source, folder)
    match payload["kind"]:
        case "video" if is_remote(source):
            return Item(videos=(path,))
        case "video":
            return Item(videos=(Clip(path, payload.get("start_s") or 0.0, payload.get("end_s")),))
        case "page":
            return Item(images=(Page(path, payload["page"]),))
        case "image":
            return Item(images=(path,))
        case _:
            return Item(text=document.get("text", payload["text"]), instruction=document.get("instruction"))


def stored_item(item: Item) -> dict[str, Any]:
    """Return an item as JSON values, from which `item_of` makes it again; {"in_memory": True} if it cannot.

    Example:
        >>> stored_item(Item(text="which tower is this", images=("tower.png",)))
        {'text': 'which tower is this', 'images': [['tower.png', None]]}
    """
    images = [
        [display_name(one.path), one.page] if isinstance(one, Page) else [display_name(one), None]
        for one in item.images
        if isinstance(one, (str, Path, Page))
    ]
    clips = [Clip(Path(one)) if isinstance(one, (str, Path)) else one for one in item.videos]
    videos = [[display_name(one.path), one.start_s, one.end_s] for one in clips if isinstance(one, Clip)]
    if len(images) < len(item.images) or len(videos) < len(item.videos):
        return {"in_memory": True}
    stored = {"text": item.text, "instruction": item.instruction, "images": images, "videos": videos}
    return {name: value for name, value in stored.items() if value}


def _medium(stored: Sequence[Any], folder: str | Path | None) -> Path | Page:
    name, page = stored
    path = source_path(name, folder)
    return path if page is None else Page(path, page)
