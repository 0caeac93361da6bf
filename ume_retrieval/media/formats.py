"""Recognise media formats by their first bytes, never by a file's name."""

from __future__ import annotations

from typing import Literal, TypeAlias

HEAD_BYTES = 1024
"""Number of first bytes that `sniff` needs."""

ImageFormat: TypeAlias = Literal["jpeg", "png", "webp", "gif", "bmp", "tiff"]
VideoFormat: TypeAlias = Literal["mp4", "matroska", "avi", "gif"]
Format: TypeAlias = ImageFormat | VideoFormat | Literal["pdf"]
"""`mp4` is the whole ISO base media family (MP4, MOV, M4V, 3GP), `matroska` is MKV and WebM."""

IMAGE_FORMATS: frozenset[Format] = frozenset({"jpeg", "png", "webp", "gif", "bmp", "tiff"})
VIDEO_FORMATS: frozenset[Format] = frozenset({"mp4", "matroska", "avi", "gif"})

_READ_SUFFIXES = (
    *(".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".apng", ".webp", ".gif", ".bmp", ".dib", ".tif", ".tiff"),
    *(".mp4", ".m4v", ".mov", ".qt", ".3gp", ".mkv", ".webm", ".avi", ".pdf"),
)
_OTHER_SUFFIXES = (
    *(".heic", ".heif", ".avif", ".jxl", ".jp2", ".svg"),
    *(".wmv", ".flv", ".mpg", ".mpeg", ".mts", ".m2ts", ".ogv"),
)
MEDIA_SUFFIXES = frozenset((*_READ_SUFFIXES, *_OTHER_SUFFIXES))
"""Suffixes of media files, including unsupported formats, whose files are reported rather than skipped."""

TEXT_SUFFIXES = frozenset({".txt", ".md"})

_BMP_HEADER_BYTES = (12, 16, 40, 52, 56, 64, 108, 124)
_NO_VIDEO_BRANDS = frozenset(b"M4A ,M4B ,M4P ,avif,avis,heic,heix,hevc,heim,mif1,msf1,crx ".split(b","))
_SIGNATURES: dict[bytes, Format] = {
    b"\xff\xd8\xff": "jpeg",
    b"\x89PNG\r\n\x1a\n": "png",
    **dict.fromkeys((b"GIF87a", b"GIF89a"), "gif"),
    **dict.fromkeys((b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"), "tiff"),
}
_PDF_PREFIXES = b"\xef\xbb\xbf\0\t\r\n "


def sniff(head: bytes) -> Format | None:
    r"""Name the format that the first `HEAD_BYTES` bytes belong to, or None for an unsupported format.

    Example:
        >>> sniff(b"GIF89a"), sniff(b"\x1a\x45\xdf\xa3 webm"), sniff(b"Dear John")
        ('gif', 'matroska', None)
    """
    tests: tuple[tuple[bool, Format], ...] = (
        *((head.startswith(signature), form) for signature, form in _SIGNATURES.items()),
        (head.startswith(b"RIFF") and head[8:12] == b"WEBP", "webp"),
        (head.startswith(b"RIFF") and head[8:12] == b"AVI ", "avi"),
        (head.startswith(b"\x1a\x45\xdf\xa3") and (b"webm" in head or b"matroska" in head), "matroska"),
        (head.lstrip(_PDF_PREFIXES).startswith(b"%PDF-"), "pdf"),
        (_is_bmp(head), "bmp"),
        (_is_mp4(head), "mp4"),
    )
    return next((form for matches, form in tests if matches), None)


def _is_bmp(head: bytes) -> bool:
    # Text may begin with "BM" too.
    return head.startswith(b"BM") and int.from_bytes(head[14:18], "little") in _BMP_HEADER_BYTES


def _is_mp4(head: bytes) -> bool:
    kind = head[4:8]
    if kind == b"ftyp":
        return head[8:12] not in _NO_VIDEO_BRANDS
    if kind in (b"moov", b"mdat"):
        return True
    # Old QuickTime files without `ftyp` may begin with filler; text may hold these words, but not such a small length.
    return kind in (b"wide", b"free", b"skip", b"pnot") and 8 <= int.from_bytes(head[:4], "big") <= 1 << 20
