"""The formats of media files, as one table, and their recognition by first bytes, never by names.

A new format is one more row of `FORMATS`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, TypeAlias

HEAD_BYTES = 1024
"""Number of first bytes that `sniff` needs."""

MediaKind: TypeAlias = Literal["image", "video", "pdf"]


@dataclass(frozen=True, slots=True)
class Format:
    """A format of media files.

    Attributes:
        name: Name in messages and in `VideoInfo.format`.
        kind: What its files are. Files of `ANIMATIONS` with several frames are videos.
        suffixes: Usual suffixes, separated by spaces. Files that are called so are reported if their bytes differ;
            suffixes that other files use too (`.ts` is TypeScript) are left out.
        matches: Whether a file that begins with these bytes has this format.
        readers: Pillow's names of an image format, FFmpeg's name of a video container. Nothing else is tried, so that
            a file is never opened as, for example, a playlist that names other files.
    """

    name: str
    kind: MediaKind
    suffixes: str
    matches: Callable[[bytes], bool]
    readers: tuple[str, ...] = ()


def sniff(head: bytes) -> str | None:
    r"""Name the format that the first `HEAD_BYTES` bytes belong to, or None for an unsupported format.

    Example:
        >>> sniff(b"GIF89a"), sniff(b"\x1a\x45\xdf\xa3 webm"), sniff(b"Dear John")
        ('gif', 'matroska', None)
    """
    return next((form.name for form in FORMATS if form.matches(head)), None)


def _starts(*signatures: bytes) -> Callable[[bytes], bool]:
    return lambda head: head.startswith(signatures)


def _riff(kind: bytes) -> Callable[[bytes], bool]:
    return lambda head: head.startswith(b"RIFF") and head[8:12] == kind


_BMP_HEADER_BYTES = (12, 16, 40, 52, 56, 64, 108, 124)


def _is_bmp(head: bytes) -> bool:
    # Text may begin with "BM" too.
    return head.startswith(b"BM") and int.from_bytes(head[14:18], "little") in _BMP_HEADER_BYTES


_AVIF_BRANDS = frozenset((b"avif", b"avis"))
_HEIF_BRANDS = frozenset(
    b"heic heix heim heis hevc hevx hevm hevs mif1 mif2 mif3 msf1 miaf jpeg j2ki avci vvic unif".split()
)
_OTHER_BRANDS = frozenset((b"M4A ", b"M4B ", b"M4P ", b"crx "))


def _brand(head: bytes) -> bytes | None:
    """Return the brand of an ISO base media file; "mif1" and such name the format only among compatible brands."""
    if head[4:8] != b"ftyp":
        return None
    major, end = head[8:12], min(len(head), int.from_bytes(head[:4], "big"))
    if major not in _HEIF_BRANDS:
        return major
    compatible = {head[start : start + 4] for start in range(16, end - 3, 4)}
    return next(iter(compatible & _AVIF_BRANDS), major)


def is_image_sequence(head: bytes) -> bool:
    """Return whether an AVIF or HEIF file says that it is an animation rather than pictures."""
    return head[4:8] == b"ftyp" and head[8:12] in (b"avis", b"hevc", b"hevx", b"msf1")


def _is_mp4(head: bytes) -> bool:
    brand, kind = _brand(head), head[4:8]
    if brand is not None:
        return brand not in _AVIF_BRANDS | _HEIF_BRANDS | _OTHER_BRANDS
    if kind in (b"moov", b"mdat"):
        return True
    # Old QuickTime files without `ftyp` may begin with filler; text may hold these words, but not such a small length.
    return kind in (b"wide", b"free", b"skip", b"pnot") and 8 <= int.from_bytes(head[:4], "big") <= 1 << 20


def _is_matroska(head: bytes) -> bool:
    return head.startswith(b"\x1a\x45\xdf\xa3") and (b"webm" in head or b"matroska" in head)


_PACKET_BYTES, _TIMED_PACKET_BYTES = 188, 192


def _is_mpegts(head: bytes) -> bool:
    """Sync bytes at the start of every packet; Blu-ray and AVCHD put a time of four bytes before each."""
    return any(
        len(head) > 4 * size and all(byte == 0x47 for byte in head[offset::size])
        for offset, size in ((0, _PACKET_BYTES), (4, _TIMED_PACKET_BYTES))
    )


_OGG_VIDEO = (b"\x80theora", b"BBCD\0", b"OVP80", b"\x01video")
"""Theora, Dirac, VP8, and any codec of OGM."""


def _is_ogg_video(head: bytes) -> bool:
    # The first page of every stream comes before any content; most Ogg files are music.
    return head.startswith(b"OggS\0") and any(signature in head for signature in _OGG_VIDEO)


_PDF_PREFIXES = b"\xef\xbb\xbf\0\t\r\n "


def _is_pdf(head: bytes) -> bool:
    return head.lstrip(_PDF_PREFIXES).startswith(b"%PDF-")


FORMATS: tuple[Format, ...] = (
    Format("jpeg", "image", ".jpg .jpeg .jpe .jfif .mpo", _starts(b"\xff\xd8\xff"), ("JPEG", "MPO")),
    Format("png", "image", ".png .apng", _starts(b"\x89PNG\r\n\x1a\n"), ("PNG",)),
    Format("webp", "image", ".webp", _riff(b"WEBP"), ("WEBP",)),
    Format("gif", "image", ".gif", _starts(b"GIF87a", b"GIF89a"), ("GIF",)),
    Format("bmp", "image", ".bmp .dib", _is_bmp, ("BMP",)),
    Format("tiff", "image", ".tif .tiff", _starts(b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"), ("TIFF",)),
    Format("avif", "image", ".avif .avifs", lambda head: _brand(head) in _AVIF_BRANDS, ("AVIF",)),
    Format("heif", "image", ".heic .heif .hif", lambda head: _brand(head) in _HEIF_BRANDS, ("HEIF",)),
    Format(
        "jpeg2000",
        "image",
        ".jp2 .j2k .jpx .jpf .j2c .jpc",
        _starts(b"\0\0\0\x0cjP  \r\n\x87\n", b"\xff\x4f\xff\x51"),
        ("JPEG2000",),
    ),
    Format("jpegxl", "image", ".jxl", _starts(b"\0\0\0\x0cJXL \r\n\x87\n", b"\xff\x0a"), ("JXL",)),
    Format("mp4", "video", ".mp4 .m4v .mov .qt .3gp .3g2 .f4v", _is_mp4, ("mov",)),
    Format("matroska", "video", ".mkv .webm", _is_matroska, ("matroska",)),
    Format("avi", "video", ".avi", _riff(b"AVI "), ("avi",)),
    Format("mpegps", "video", ".mpg .mpeg .vob .m2p", _starts(b"\0\0\1\xba"), ("mpeg",)),
    Format("mpegts", "video", ".m2ts", _is_mpegts, ("mpegts",)),
    Format(
        "asf",
        "video",
        ".wmv .asf",
        _starts(bytes.fromhex("3026b2758e66cf11a6d900aa0062ce6c")),
        ("asf",),
    ),
    Format("flv", "video", ".flv", _starts(b"FLV\1"), ("flv",)),
    Format("ogg", "video", ".ogv .ogm", _is_ogg_video, ("ogg",)),
    Format("mxf", "video", ".mxf", _starts(bytes.fromhex("060e2b34020501010d010201")), ("mxf",)),
    Format("ivf", "video", ".ivf", _starts(b"DKIF\0\0"), ("ivf",)),
    Format("y4m", "video", ".y4m", _starts(b"YUV4MPEG2 "), ("yuv4mpegpipe",)),
    Format("pdf", "pdf", ".pdf", _is_pdf),
)
"""The formats that are read, in the order in which they are tried; `mp4` is the whole ISO base media family (MP4, MOV,
M4V, 3GP), `matroska` is MKV and WebM."""

FORMAT_NAMED = {form.name: form for form in FORMATS}
IMAGE_FORMATS = frozenset(form.name for form in FORMATS if form.kind == "image")
VIDEO_FORMATS = frozenset(form.name for form in FORMATS if form.kind == "video")

ANIMATIONS = frozenset({"gif", "png", "webp", "avif"})
"""Image formats whose files are videos if they hold several frames."""

_OTHER_SUFFIXES = frozenset({".svg"})
"""Suffixes of media that are reported as unsupported rather than skipped."""

MEDIA_SUFFIXES = _OTHER_SUFFIXES.union(*(form.suffixes.split() for form in FORMATS))
"""Suffixes of media files, including unsupported formats, whose files are reported rather than skipped."""

TEXT_SUFFIXES = frozenset({".txt", ".md"})
