"""Turn files into entries to index: an image, segments of a video, pages of a PDF, or a text."""

from __future__ import annotations

import codecs
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from ume_retrieval.errors import BrokenMedia, Failure, MediaTooLarge, UmeError
from ume_retrieval.inputs import Clip, Item, Page
from ume_retrieval.media.files import file_digest, open_file
from ume_retrieval.media.isolation.decoder import decoder
from ume_retrieval.media.limits import DEFAULT_LIMITS, Limits
from ume_retrieval.media.segments import OVERLAP_S, SEGMENT_S, check_segments, segments
from ume_retrieval.media.walking import FoundFile, walk

_UTF8_MAX_BYTES = 4


@dataclass(frozen=True, slots=True)
class Entry:
    """One thing to index: an image, a segment of a video, a page of a PDF or a text.

    Attributes:
        source: The file's path as text that is safe to display and store.
        path: The file.
        kind: Kind of the entry.
        item: The item to embed.
        start_s: Start of a video segment in seconds, else None.
        end_s: End of a video segment in seconds (exclusive), else None.
        page: Number of a PDF page, 1-based, else None.
        file_digest: SHA-256 of the whole file's bytes, hexadecimal; the same for all entries of a file.
        size: Bytes of the file.
        mtime_ns: Time of the last change in nanoseconds.
        warnings: What the user should know about the file though it can be used, such as that it is cut short.
    """

    source: str
    path: Path
    kind: Literal["image", "video", "page", "text"]
    item: Item
    start_s: float | None
    end_s: float | None
    page: int | None
    file_digest: str
    size: int
    mtime_ns: int
    warnings: tuple[str, ...] = ()


def discover(
    paths: Iterable[str | Path],
    *,
    limits: Limits = DEFAULT_LIMITS,
    segment_s: float = SEGMENT_S,
    overlap_s: float = OVERLAP_S,
    follow_symlinks: bool = False,
) -> Iterator[Entry | Failure]:
    """Find everything to index in files and folders; a bad file becomes a failure.

    Combines `walk` and `entries`; an indexer that recognises a file by size and time calls them itself and skips the
    second.

    Args:
        paths: Files and folders.
        limits: Limits on the cost of a file.
        segment_s: Length of a video segment in seconds, > 0.
        overlap_s: Least overlap of neighbouring segments in seconds, less than `segment_s`.
        follow_symlinks: Follow links out of the given folders.

    Returns:
        Entries and failures, in the order of `walk`. A failure's `index` counts the files before it.

    Raises:
        InputError: When the segment length or overlap is out of range.
    """
    check_segments(segment_s, overlap_s)
    return _discover(walk(paths, limits=limits, follow_symlinks=follow_symlinks), limits, segment_s, overlap_s)


def _discover(
    found_files: Iterable[FoundFile | Failure], limits: Limits, segment_s: float, overlap_s: float
) -> Iterator[Entry | Failure]:
    for index, found in enumerate(found_files):
        if isinstance(found, Failure):
            yield found
            continue
        try:
            yield from entries(found, limits=limits, segment_s=segment_s, overlap_s=overlap_s)
        except UmeError as error:
            yield Failure.of(error, index=index, source=found.source)


def entries(
    found: FoundFile, *, limits: Limits = DEFAULT_LIMITS, segment_s: float = SEGMENT_S, overlap_s: float = OVERLAP_S
) -> list[Entry]:
    """Read one file: the header of an image, the duration of a video, the pages of a PDF, or a text.

    Hashes the file. Does not decode images: damage after the header shows when the image is loaded.

    Returns:
        At least one entry, in order of time or page.

    Raises:
        MediaError: When the file cannot be used; see `check_image`, `probe_video` and `count_pages`.
        InputError: When the segment length or overlap is out of range.
    """
    path, place = found.path, decoder(limits)
    warnings: tuple[str, ...] = ()
    rows: list[tuple[Literal["image", "video", "page", "text"], Item, tuple[float, float] | None, int | None]]
    if found.kind == "image":
        place.check_image(path, limits)
        rows = [("image", Item(images=(path,)), None, None)]
    elif found.kind == "video":
        info = place.probe_video(path, limits)
        warnings = info.warnings
        spans = segments(info.duration_s, segment_s, overlap_s)
        rows = [("video", Item(videos=(Clip(path, *span),)), span, None) for span in spans]
    elif found.kind in ("pdf", "pages"):
        pages = range(1, place.count_pages(path, limits) + 1)
        rows = [("page", Item(images=(Page(path, page),)), None, page) for page in pages]
    else:
        rows = [("text", Item(text=_text(found, limits)), None, None)]
    digest = file_digest(path, limits).hex()
    return [
        Entry(found.source, path, kind, item, start_s, end_s, page, digest, found.size, found.mtime_ns, warnings)
        for kind, item, span, page in rows
        for start_s, end_s in [span or (None, None)]
    ]


def _text(found: FoundFile, limits: Limits) -> str:
    most = limits.max_text_chars
    # These bytes hold more characters than allowed, so the rest need not be read.
    enough = _UTF8_MAX_BYTES * (most + 1)
    with open_file(found.path, limits) as handle:
        data = handle.read(enough)
    is_whole = len(data) < enough
    try:
        # Tolerates only a character that the limit itself has cut.
        text = codecs.getincrementaldecoder("utf-8-sig")().decode(data, final=is_whole)
    except UnicodeDecodeError as error:
        raise BrokenMedia(f"{found.source} is not UTF-8 text", hint="save it as UTF-8") from error
    if len(text) > most or not is_whole:
        raise MediaTooLarge(
            f"{found.source} has more than {most} characters", hint="split the text or raise Limits.max_text_chars"
        )
    if not text.strip():
        raise BrokenMedia(f"{found.source} is blank", hint="leave it out")
    return text
