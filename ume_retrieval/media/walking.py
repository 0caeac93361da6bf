"""Walk files and folders and classify each file by a stat and its first bytes, without decoding or hashing."""

from __future__ import annotations

import codecs
import errno
import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, TypeAlias

from ume_retrieval.errors import BrokenMedia, Failure, MediaError, MediaNotFound, MediaTooLarge, UnsupportedMedia
from ume_retrieval.media.counting import count_frames, tiff_pages
from ume_retrieval.media.files import cannot_open, file_status, local_path
from ume_retrieval.media.formats import (
    ANIMATIONS,
    FORMAT_NAMED,
    HEAD_BYTES,
    MEDIA_SUFFIXES,
    TEXT_SUFFIXES,
    sniff,
)
from ume_retrieval.media.limits import DEFAULT_LIMITS, Limits
from ume_retrieval.util.files import display_name

FileKind: TypeAlias = Literal["image", "video", "pdf", "pages", "text"]


@dataclass(frozen=True, slots=True)
class FoundFile:
    """A file that can be indexed, before it is read.

    Attributes:
        path: Absolute path; through the link if one was followed.
        source: The path as text that is safe to display and store; see `display_name`.
        size: Bytes.
        mtime_ns: Time of the last change in nanoseconds; with `size` it identifies an unchanged file without hashing.
        kind: Kind by its bytes. A GIF, APNG, WebP or AVIF of several frames is a video; "pages" is a TIFF of several.
    """

    path: Path
    source: str
    size: int
    mtime_ns: int
    kind: FileKind


def walk(
    paths: Iterable[str | Path],
    *,
    limits: Limits = DEFAULT_LIMITS,
    follow_symlinks: bool = False,
    on_skipped: Callable[[Path], None] | None = None,
) -> Iterator[FoundFile | Failure]:
    """Find every file that can be indexed, in a fixed order, each once.

    Walks folders depth first, names in byte order, links last. Skips hidden files and folders, unless `paths` names
    them. Bytes decide the kind of a file: an image called `notes.txt` is an image. Skips files that are neither
    media by their bytes nor media or text by their name.

    Follows a link within the folder that holds it (its target is reported once, under its own name if visible); one
    that leads out is a failure unless `follow_symlinks`. Loops of links, dead links, empty and unreadable files,
    unreadable folders and other bytes under a media name are failures too. Never opens pipes, sockets and devices.

    Args:
        paths: Files and folders.
        limits: Only `max_bytes` is checked here.
        follow_symlinks: Follow links out of the given folders.
        on_skipped: Called with the path of each file that is skipped, and of each hidden folder.

    Yields:
        A file, or a failure whose `index` counts the preceding results.
    """
    for index, found in enumerate(_Walk(limits, follow_symlinks, on_skipped or (lambda _: None)).over(paths)):
        yield found if isinstance(found, FoundFile) else replace(found, index=index)


def _refused(path: str | Path, error: MediaError) -> Failure:
    return Failure.of(error, index=0, source=display_name(path))


@dataclass(frozen=True, slots=True)
class _Link:
    """A symbolic link, the real folder that holds it, and the real folder that it must not leave."""

    path: Path
    parent: str
    root: str


class _Walk:
    def __init__(self, limits: Limits, follow: bool, skip: Callable[[Path], None]) -> None:  # noqa: FBT001  # private
        self._limits = limits
        self._skip = skip
        self._follow = follow
        self._seen: set[str] = set()
        self._links: list[_Link] = []
        self._bridges: list[tuple[str, str]] = []

    def over(self, paths: Iterable[str | Path]) -> Iterator[FoundFile | Failure]:
        for given in paths:
            try:
                path, real = _named(Path.cwd() / local_path(given))
            except MediaError as error:
                yield _refused(given, error)
                continue
            if Path(real).is_dir():
                yield from self._tree(path, real, real)
            else:
                yield from self._file(path, real, named=True)
        while self._links:
            yield from self._linked()

    def _tree(self, path: Path, real: str, root: str) -> Iterator[FoundFile | Failure]:
        stack = [(path, real, True)]
        while stack:
            path, real, is_folder = stack.pop()
            if not is_folder:
                yield from self._file(path, real)
                continue
            if real in self._seen:
                continue
            self._seen.add(real)
            try:
                with os.scandir(path) as scan:
                    for entry in sorted(scan, key=lambda entry: os.fsencode(entry.name), reverse=True):
                        if entry.name.startswith("."):
                            self._skip(path / entry.name)
                            continue
                        if entry.is_symlink():
                            self._links.append(_Link(path / entry.name, real, root))
                        else:
                            is_folder = entry.is_dir(follow_symlinks=False)
                            stack.append((path / entry.name, os.path.join(real, entry.name), is_folder))  # noqa: PTH118  # kept as str: a key
            except OSError as error:
                yield _refused(path, cannot_open(path, error))

    def _linked(self) -> Iterator[FoundFile | Failure]:
        links, self._links = sorted(self._links, key=lambda link: os.fsencode(link.path)), []
        leading: list[tuple[_Link, str]] = []
        for link in links:
            try:
                target = _resolve(link.path)
            except MediaError as error:
                yield _refused(link.path, error)
                continue
            if self._follow or _within(target, link.root):
                leading.append((link, target))
                self._bridges.append((link.parent, target))
            elif Path(target).is_dir() or link.path.suffix.lower() in MEDIA_SUFFIXES | TEXT_SUFFIXES:
                yield _refused(link.path, _leads_out(link.path))
            else:
                self._skip(link.path)
        for link, target in leading:
            if not Path(target).is_dir():
                yield from self._file(link.path, target)
            elif self._leads_back(target, link.parent):
                yield _refused(link.path, _loops(link.path))
            else:
                yield from self._tree(link.path, target, link.root)

    def _leads_back(self, target: str, parent: str) -> bool:
        """Return whether walking `target` and its links would reach `parent`."""
        ahead, met = [target], {target}
        while ahead:
            folder = ahead.pop()
            if _within(parent, folder):
                return True
            for origin, onward in self._bridges:
                if onward not in met and _within(origin, folder):
                    met.add(onward)
                    ahead.append(onward)
        return False

    def _file(self, path: Path, real: str, *, named: bool = False) -> Iterator[FoundFile | Failure]:
        if real in self._seen:
            return
        self._seen.add(real)
        wanted = named or path.suffix.lower() in MEDIA_SUFFIXES | TEXT_SUFFIXES
        try:
            found = _look(path, self._limits, wanted=wanted)
        except MediaError as error:
            yield _refused(path, error)
        else:
            if found:
                yield found
            else:
                self._skip(path)


def _look(path: Path, limits: Limits, *, wanted: bool) -> FoundFile | None:
    """Classify a file; return None for an unsupported one that is not `wanted` by name."""
    name = display_name(path)
    try:
        status = file_status(path)
    except MediaNotFound:
        if wanted or path.is_file():
            raise
        return None
    if status.st_size == 0:
        if wanted:
            raise BrokenMedia(f"{name} is empty", hint="copy or download the file again")
        return None
    kind = _kind(path)
    if kind is None:
        if wanted:
            raise _unsupported(path)
        return None
    if status.st_size > limits.max_bytes:
        raise MediaTooLarge(
            f"{name} has {status.st_size} bytes, more than {limits.max_bytes}",
            hint="raise Limits.max_bytes or leave the file out",
        )
    return FoundFile(path, name, status.st_size, status.st_mtime_ns, kind)


def _kind(path: Path) -> FileKind | None:
    try:
        with path.open("rb") as handle:
            form = sniff(handle.read(HEAD_BYTES))
            if form in ANIMATIONS:
                # If truncated before its second frame, the video reader reports the error.
                return "image" if count_frames(handle, form, at_most=2) == 1 else "video"
            if form == "tiff":
                return "pages" if len(tiff_pages(handle, at_most=2)) == 2 else "image"
    except OSError as error:
        raise cannot_open(path, error) from error
    if form is None:
        return "text" if path.suffix.lower() in TEXT_SUFFIXES else None
    return FORMAT_NAMED[form].kind


def _named(path: Path) -> tuple[Path, str]:
    """Return a path without "." and "..", and its target."""
    real = _resolve(path)
    plain = Path(os.path.normpath(path))
    # After a link, ".." is the parent of the link's target.
    return (plain if os.path.realpath(plain) == real else Path(real)), real


def _unsupported(path: Path) -> UnsupportedMedia:
    name = display_name(path)
    if path.suffix.lower() not in MEDIA_SUFFIXES and _is_text(path):
        return UnsupportedMedia(
            f"{name} is text without a text suffix",
            hint=f"give it a name that ends in {' or '.join(sorted(TEXT_SUFFIXES))}",
        )
    return UnsupportedMedia(
        f"{name} is not a supported image, video, PDF or text",
        hint="convert it to JPEG, PNG, MP4, WebM or PDF, or leave it out",
    )


def _is_text(path: Path) -> bool:
    """Return whether a file begins with UTF-8 without control characters."""
    try:
        with path.open("rb") as handle:
            head = codecs.getincrementaldecoder("utf-8-sig")().decode(handle.read(HEAD_BYTES))
    except (OSError, UnicodeDecodeError):
        return False
    return all(character.isprintable() or character.isspace() for character in head)


def _resolve(path: Path) -> str:
    try:
        return os.path.realpath(path, strict=True)
    except OSError as error:
        raise (_loops(path) if error.errno == errno.ELOOP else cannot_open(path, error)) from error
    except ValueError as error:
        raise cannot_open(path, error) from error


def _within(path: str, folder: str) -> bool:
    return path == folder or path.startswith(folder.rstrip(os.sep) + os.sep)


def _loops(path: Path) -> MediaNotFound:
    return MediaNotFound(f"{display_name(path)} is a link that leads back to itself", hint="remove the link")


def _leads_out(path: Path) -> MediaNotFound:
    return MediaNotFound(
        f"{display_name(path)} is a link that leads out of the folder",
        hint="allow it with follow_symlinks=True, or name what it leads to",
    )
