"""Walk files and folders and tell what each file is: a stat and a look at its first bytes, no decoding, no hashing."""

from __future__ import annotations

import codecs
import errno
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeAlias

from ume_retrieval.errors import BrokenMedia, Failure, MediaError, MediaNotFound, MediaTooLarge, UnsupportedMedia
from ume_retrieval.media.containers import gif_frames
from ume_retrieval.media.files import (
    HEAD_BYTES,
    IMAGE_FORMATS,
    MEDIA_SUFFIXES,
    TEXT_SUFFIXES,
    cannot_open,
    display_name,
    file_status,
    local_path,
    sniff,
)
from ume_retrieval.media.limits import DEFAULT_LIMITS, Limits

FileKind: TypeAlias = Literal["image", "video", "pdf", "text"]


@dataclass(frozen=True, slots=True)
class FoundFile:
    """A file that can be indexed, before it is read.

    Attributes:
        path: Absolute path; through the link where one was followed.
        source: The path as text that is safe to show and to store; see `display_name`.
        size: Bytes.
        mtime_ns: Time of the last change in nanoseconds. With `size` it tells an unchanged file without hashing.
        kind: What its bytes are. A GIF of several frames is a video.
    """

    path: Path
    source: str
    size: int
    mtime_ns: int
    kind: FileKind


def walk(
    paths: Iterable[str | Path], *, limits: Limits = DEFAULT_LIMITS, follow_symlinks: bool = False
) -> Iterator[FoundFile | Failure]:
    """Find every file that can be indexed, in a fixed order, each once.

    Folders are walked depth first, names in byte order, links after everything else. Hidden files and folders are
    skipped, unless they are named in `paths`. What a file is, its bytes say: an image called `notes.txt` is an image.
    Files that are neither media by their bytes nor media or text by their name are skipped silently.

    A link that stays inside the folder it was found in is followed (what it leads to is reported once, under its own
    name if that is visible); one that leads out is a failure unless `follow_symlinks`. Loops of links, dead links,
    empty and unreadable files, unreadable folders and foreign bytes under a media name are failures too. Pipes, sockets
    and devices are never opened.

    Args:
        paths: Files and folders.
        limits: Its `max_bytes` is checked here.
        follow_symlinks: Follow links out of the given folders.

    Yields:
        A file, or a failure whose `index` counts what was yielded before.
    """
    for index, found in enumerate(_Walk(limits, follow_symlinks).over(paths)):
        if isinstance(found, FoundFile):
            yield found
        else:
            yield Failure.of(found.error, index=index, source=display_name(found.path))


@dataclass(frozen=True, slots=True)
class _Refused:
    path: str | Path
    error: MediaError


@dataclass(frozen=True, slots=True)
class _Link:
    """A symbolic link: where it was seen, the real folder that holds it, the real folder that must not be left."""

    path: Path
    parent: str
    root: str


class _Walk:
    def __init__(self, limits: Limits, follow: bool) -> None:  # noqa: FBT001  # private; the public name is a keyword
        self._limits = limits
        self._follow = follow
        self._seen: set[str] = set()
        self._links: list[_Link] = []
        self._bridges: list[tuple[str, str]] = []

    def over(self, paths: Iterable[str | Path]) -> Iterator[FoundFile | _Refused]:
        for given in paths:
            try:
                path, real = _named(Path.cwd() / local_path(given))
            except MediaError as error:
                yield _Refused(given, error)
                continue
            if Path(real).is_dir():
                yield from self._tree(path, real, real)
            else:
                yield from self._file(path, real, named=True)
        while self._links:
            yield from self._linked()

    def _tree(self, path: Path, real: str, root: str) -> Iterator[FoundFile | _Refused]:
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
                            continue
                        if entry.is_symlink():
                            self._links.append(_Link(path / entry.name, real, root))
                        else:
                            is_folder = entry.is_dir(follow_symlinks=False)
                            stack.append((path / entry.name, os.path.join(real, entry.name), is_folder))  # noqa: PTH118  # kept as str: a key
            except OSError as error:
                yield _Refused(path, cannot_open(path, error))

    def _linked(self) -> Iterator[FoundFile | _Refused]:
        links, self._links = sorted(self._links, key=lambda link: os.fsencode(link.path)), []
        leading: list[tuple[_Link, str]] = []
        for link in links:
            try:
                target = _resolve(link.path)
            except MediaError as error:
                yield _Refused(link.path, error)
                continue
            if self._follow or _within(target, link.root):
                leading.append((link, target))
                self._bridges.append((link.parent, target))
            elif Path(target).is_dir() or link.path.suffix.lower() in MEDIA_SUFFIXES | TEXT_SUFFIXES:
                yield _Refused(link.path, _leads_out(link.path))
        for link, target in leading:
            if not Path(target).is_dir():
                yield from self._file(link.path, target)
            elif self._leads_back(target, link.parent):
                yield _Refused(link.path, _loops(link.path))
            else:
                yield from self._tree(link.path, target, link.root)

    def _leads_back(self, target: str, parent: str) -> bool:
        """Tell whether walking `target` and the links in it would come to `parent`."""
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

    def _file(self, path: Path, real: str, *, named: bool = False) -> Iterator[FoundFile | _Refused]:
        if real in self._seen:
            return
        self._seen.add(real)
        wanted = named or path.suffix.lower() in MEDIA_SUFFIXES | TEXT_SUFFIXES
        try:
            found = _look(path, self._limits, wanted=wanted)
        except MediaError as error:
            yield _Refused(path, error)
        else:
            if found:
                yield found


def _look(path: Path, limits: Limits, *, wanted: bool) -> FoundFile | None:
    """Tell what a file is; None when it is nothing to us and not `wanted` by name."""
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
            if form == "gif":
                # None that is whole up to its second frame: let the video reader say what is wrong.
                return "image" if gif_frames(handle, at_most=2) == 1 else "video"
    except OSError as error:
        raise cannot_open(path, error) from error
    if form is None:
        return "text" if path.suffix.lower() in TEXT_SUFFIXES else None
    if form == "pdf":
        return "pdf"
    return "image" if form in IMAGE_FORMATS else "video"


def _named(path: Path) -> tuple[Path, str]:
    """A path without "." and "..", and where it leads."""
    real = _resolve(path)
    plain = Path(os.path.normpath(path))
    # Behind a link ".." is the parent of what it leads to, which is elsewhere.
    return (plain if os.path.realpath(plain) == real else Path(real)), real


def _unsupported(path: Path) -> UnsupportedMedia:
    name = display_name(path)
    if path.suffix.lower() not in MEDIA_SUFFIXES and _is_text(path):
        return UnsupportedMedia(
            f"{name} is text, but no text by its name",
            hint=f"give it a name that ends in {' or '.join(sorted(TEXT_SUFFIXES))}",
        )
    return UnsupportedMedia(
        f"{name} holds no image, video, PDF or text that can be read",
        hint="convert it to JPEG, PNG, MP4, WebM or PDF, or leave it out",
    )


def _is_text(path: Path) -> bool:
    """Whether a file begins with UTF-8 and no control character that only data has."""
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
