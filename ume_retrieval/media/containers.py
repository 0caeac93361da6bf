"""Is a video file whole? Read from its own structure, without decoding.

Decoders do not say when a file was cut: what is left decodes, only shorter. But ISO base media (MP4, MOV), Matroska,
RIFF and GIF files announce how long their parts are, so a file that ends earlier than it says was cut.
"""

from __future__ import annotations

from typing import BinaryIO

from ume_retrieval.errors import BrokenMedia
from ume_retrieval.media.files import VideoFormat

_ISO_BOXES = frozenset(
    b"ftyp moov mdat moof mfra free skip wide uuid sidx ssix styp emsg prft pdin meta udta pnot".split()
)
_EBML_HEADER = 0x1A45DFA3
_MATROSKA_SEGMENT = 0x18538067
_UNKNOWN_RIFF_SIZES = (0, 0xFFFFFFFF)
_CUT_HINT = "copy or download the file again"


def check_whole(handle: BinaryIO, form: VideoFormat, size: int, name: str) -> None:
    """Raise when a file ends before its own structure does. The position of `handle` is at the start afterwards.

    A file whose lengths are unknown (a live recording) passes: nothing says where it should have ended.

    Args:
        handle: The file, seekable.
        form: Its format.
        size: Its size in bytes.
        name: How to call it in the message.

    Raises:
        BrokenMedia: When it was cut, or when its structure is no structure.
    """
    handle.seek(0)
    if form == "mp4":
        needed = _iso_end(handle, size)
    elif form == "matroska":
        needed = _matroska_end(handle, size)
    elif form == "avi":
        needed = _riff_end(handle, size)
    else:
        needed = size if gif_frames(handle) else size + 1
    handle.seek(0)
    if needed > size:
        raise BrokenMedia(f"{name} is cut short: it has {size} bytes and announces more", hint=_CUT_HINT)


def _iso_end(handle: BinaryIO, size: int) -> int:
    position = 0
    while position + 8 <= size:
        handle.seek(position)
        header = handle.read(16)
        length = int.from_bytes(header[:4], "big")
        if header[4:8] not in _ISO_BOXES or length == 0:
            # Cameras append data of their own after the last box; length 0 means "to the end of the file".
            break
        position += int.from_bytes(header[8:16], "big") if length == 1 else max(length, 8)
    return position


def _matroska_end(handle: BinaryIO, size: int) -> int:
    for expected in (_EBML_HEADER, _MATROSKA_SEGMENT):
        if _variable_int(handle, keep_marker=True) != expected:
            return size
        length = _variable_int(handle, keep_marker=False)
        if length is None:
            return size
        end = handle.tell() + length
        handle.seek(end)
    return end


def _variable_int(handle: BinaryIO, *, keep_marker: bool) -> int | None:
    """One EBML number (RFC 8794, section 4); None for "unknown" and at the end of the file."""
    first = handle.read(1)
    if not first or first[0] == 0:
        return None
    extra = 8 - first[0].bit_length()
    raw = first + handle.read(extra)
    value = int.from_bytes(raw, "big")
    if keep_marker:
        return value
    mask = (1 << 7 * (extra + 1)) - 1
    return None if value & mask == mask else value & mask


def _riff_end(handle: BinaryIO, size: int) -> int:
    position = 0
    # Beyond 1 GiB an AVI goes on in further RIFF chunks (OpenDML).
    while position + 8 <= size:
        handle.seek(position)
        header = handle.read(8)
        length = int.from_bytes(header[4:8], "little")
        if header[:4] != b"RIFF" or length in _UNKNOWN_RIFF_SIZES:
            break
        position += 8 + length
        if position < size:
            position += length % 2
    return position


def gif_frames(handle: BinaryIO, at_most: int | None = None) -> int:
    """Count the frames of a GIF up to its end or up to `at_most`; 0 when it is cut or no GIF before that.

    A GIF that ends between two blocks without its trailer counts as whole, since all its frames are.
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


def _skip_colours(handle: BinaryIO, flags: int) -> None:
    if flags & 0x80:
        handle.seek(3 << (flags & 7) + 1, 1)


def _skip_sub_blocks(handle: BinaryIO) -> bool:
    while length := handle.read(1):
        if length == b"\0":
            return True
        handle.seek(length[0], 1)
    return False
