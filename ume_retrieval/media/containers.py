"""Detect truncated video files from their container structure, without decoding.

Decoders do not report truncation: the rest decodes, only shorter. ISO base media (MP4, MOV), Matroska and RIFF files
declare the sizes of their parts, so a file that ends before its declared end was truncated.
"""

from __future__ import annotations

from typing import BinaryIO

_ISO_BOXES = frozenset(
    b"ftyp moov mdat moof mfra free skip wide uuid sidx ssix styp emsg prft pdin meta udta pnot".split()
)
_EBML_HEADER = 0x1A45DFA3
_MATROSKA_SEGMENT = 0x18538067
_UNKNOWN_RIFF_SIZES = (0, 0xFFFFFFFF)


def is_cut_short(handle: BinaryIO, form: str, size: int) -> bool:
    """Return whether a seekable file ends before the size that its structure declares, and rewind it.

    A file of unknown length (a live recording) or of a format that declares no sizes counts as complete.
    """
    end = {"mp4": _iso_end, "matroska": _matroska_end, "avi": _riff_end, "webp": _riff_end}.get(form)
    handle.seek(0)
    needed = end(handle, size) if end else size
    handle.seek(0)
    return needed > size


def _iso_end(handle: BinaryIO, size: int) -> int:
    position = 0
    while position + 8 <= size:
        handle.seek(position)
        header = handle.read(16)
        length = int.from_bytes(header[:4], "big")
        if header[4:8] not in _ISO_BOXES or length == 0:
            # Cameras append proprietary data after the last box; length 0 means "to the end of the file".
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
    """Read an EBML number (RFC 8794, section 4); return None for "unknown" and at the end of the file."""
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
