"""Count the pictures of a file from its structure, without decoding: frames of animations, pages of TIFFs."""

from __future__ import annotations

import struct
from typing import BinaryIO

from ume_retrieval.media.formats import HEAD_BYTES, is_image_sequence


def count_frames(handle: BinaryIO, form: str, at_most: int | None = None) -> int:
    """Count the frames of an image file, up to `at_most`; 0 if it is truncated or invalid before that.

    Args:
        handle: The file.
        form: Its format; one that holds no animations has one frame.
        at_most: Where to stop.
    """
    if form == "avif":
        handle.seek(0)
        return 2 if is_image_sequence(handle.read(HEAD_BYTES)) else 1
    counter = {"gif": gif_frames, "webp": webp_frames, "png": png_frames}.get(form)
    return counter(handle, at_most) if counter else 1


def gif_frames(handle: BinaryIO, at_most: int | None = None) -> int:
    """Count the frames of a GIF, up to `at_most`; return 0 if it is truncated or invalid before that.

    A GIF that ends between two blocks, without its trailer, counts as complete.
    """
    handle.seek(6)
    screen = handle.read(7)
    if len(screen) < 7:
        return 0
    _skip_colours(handle, screen[4])
    frames = 0
    while frames != at_most:
        match handle.read(1):
            case b"" | b"\x3b":
                break
            case b"\x21":
                handle.seek(1, 1)
            case b"\x2c":
                descriptor = handle.read(9)
                if len(descriptor) < 9:
                    return 0
                _skip_colours(handle, descriptor[8])
                handle.seek(1, 1)
                frames += 1
            case _:
                return 0
        if not _skip_sub_blocks(handle):
            return 0
    return frames


def webp_frames(handle: BinaryIO, at_most: int | None = None) -> int:
    """Count the frames of a WebP, up to `at_most`; a file without animation has one."""
    frames, position = 0, 12
    while frames != at_most:
        handle.seek(position)
        header = handle.read(8)
        if len(header) < 8:
            break
        frames += header[:4] == b"ANMF"
        length = int.from_bytes(header[4:], "little")
        position += 8 + length + length % 2
    return max(1, frames)


def png_frames(handle: BinaryIO, at_most: int | None = None) -> int:
    """Count the frames of a PNG, up to `at_most`, as its animation control chunk gives them; one without."""
    position = 8
    while True:
        handle.seek(position)
        header = handle.read(12)
        if len(header) < 12 or header[4:8] == b"IDAT":
            return 1
        if header[4:8] == b"acTL":
            frames = max(1, int.from_bytes(header[8:12], "big"))
            return frames if at_most is None else min(frames, at_most)
        position += 12 + int.from_bytes(header[:4], "big")


_SUBFILE, _THUMBNAIL_OR_MASK = 254, 0b101
_MOST_ENTRIES = 65_535


def tiff_pages(handle: BinaryIO, at_most: int | None = None) -> tuple[int, ...]:
    """Return the numbers of the directories of a TIFF that are pages, not thumbnails or masks, up to `at_most`.

    Stops at a damaged directory: Pillow reports it when the page is opened.
    """
    handle.seek(0)
    head = handle.read(16)
    order = "<" if head[:2] == b"II" else ">"
    big = head[2:4] in (b"+\0", b"\0+")
    place, count, entry = ("Q", "Q", 20) if big else ("L", "H", 12)
    pages: list[int] = []
    seen: set[int] = set()
    number = 0
    try:
        [position] = struct.unpack_from(order + place, head, 8 if big else 4)
        while position and position not in seen and len(pages) != at_most and number <= _MOST_ENTRIES:
            seen.add(position)
            handle.seek(position)
            [entries] = struct.unpack(order + count, handle.read(struct.calcsize(order + count)))
            table = handle.read(min(entries, _MOST_ENTRIES) * entry)
            if not _subfile(table, order, entry) & _THUMBNAIL_OR_MASK:
                pages.append(number)
            number += 1
            handle.seek(position + struct.calcsize(order + count) + entries * entry)
            [position] = struct.unpack(order + place, handle.read(struct.calcsize(order + place)))
    except (struct.error, OverflowError, OSError, ValueError):
        pass  # ends within a directory, or points out of any range
    return tuple(pages)


def _subfile(table: bytes, order: str, entry: int) -> int:
    for start in range(0, len(table) - entry + 1, entry):
        tag, kind = struct.unpack_from(order + "HH", table, start)
        if tag > _SUBFILE:  # entries are sorted
            break
        if tag == _SUBFILE:
            # A SHORT lies in the first bytes of its field.
            value = struct.unpack_from(order + ("H" if kind == 3 else "L"), table, start + entry // 2 + 2)
            return int(value[0])
    return 0


def _skip_colours(handle: BinaryIO, flags: int) -> None:
    if flags & 0x80:
        handle.seek(3 << (flags & 7) + 1, 1)


def _skip_sub_blocks(handle: BinaryIO) -> bool:
    while length := handle.read(1):
        if length == b"\0":
            return True
        handle.seek(length[0], 1)
    return False
