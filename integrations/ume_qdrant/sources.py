"""From what a point says of its file back to the file."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Final

from ume_qdrant.store import Payload
from ume_retrieval.inputs import Clip, Item, Page

_ESCAPE: Final = re.compile(r"\\(?:\\|x([0-9a-f]{2})|u([0-9a-f]{4})|U([0-9a-f]{8}))")


def source_path(source: str) -> Path:
    r"""The path that `ume_retrieval.media.files.display_name` wrote.

    Example:
        >>> source_path("holiday/caf\\xe9.jpg")
        PosixPath('holiday/caf\udce9.jpg')
    """
    if os.sep == "\\":
        return Path(source)

    def character(match: re.Match[str]) -> str:
        byte, *codes = match.groups()
        if byte:
            return chr(0xDC00 + int(byte, 16))
        return next((chr(int(code, 16)) for code in codes if code), "\\")

    return Path(_ESCAPE.sub(character, source))


def item_of(payload: Payload) -> Item:
    """A point's media as an input: an image, stretch of video or page in its file; of a text what the point keeps."""
    path = source_path(payload["source"])
    match payload["kind"]:
        case "video":
            return Item(videos=(Clip(path, payload.get("start_s") or 0.0, payload.get("end_s")),))
        case "page":
            return Item(images=(Page(path, payload["page"]),))
        case "image":
            return Item(images=(path,))
        case _:
            return Item(text=payload["text"])
