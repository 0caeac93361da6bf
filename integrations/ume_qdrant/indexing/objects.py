"""List and fetch files: folders that every worker sees, and object stores through pyarrow and fsspec."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Any, Final, TypeAlias

from ume_qdrant.indexing.plan import roots_of
from ume_retrieval.errors import Failure, InputError, MediaNotFound, MediaTooLarge, MissingExtra, UmeError
from ume_retrieval.inputs import Clip, Item, Page
from ume_retrieval.media import Entry, FoundFile, Limits, display_name, walk
from ume_retrieval.media.files import is_remote
from ume_retrieval.media.formats import MEDIA_SUFFIXES, TEXT_SUFFIXES

NOT_STORES: Final = frozenset({"http", "https", "data", "ftp"})
"""Schemes of single resources, which `allow_remote` fetches; they are not sources of files."""

_SECRET: Final = re.compile(r"://[^/]*@|[?&](?:access_key|secret_key|session_token|key|token|sig)=", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class StoredObject:
    """An object in a store, as listed; `source` is its address, safe to display, `mtime_ns` is 0 if unknown."""

    source: str
    address: str
    size: int
    mtime_ns: int


Listed: TypeAlias = FoundFile | StoredObject | Failure
"""An entry of a listing."""


def places_of(paths: str | Path | Sequence[str | Path]) -> tuple[str, ...]:
    """Normalise paths and addresses: local paths become absolute.

    Raises:
        InputError: Without paths, for another kind of address, or for an address with a key.

    Example:
        >>> places_of(["s3://lake/films/", "/data"])
        ('s3://lake/films', '/data')
    """
    places: list[str] = []
    for root in roots_of(paths):
        if not is_remote(root):
            places.append(str(root))
            continue
        address = str(root).strip()
        scheme = address.partition(":")[0].lower()
        if scheme in NOT_STORES:
            raise InputError(f"{scheme}: is not a store of files", hint="give a folder, or an address such as s3://…")
        if _SECRET.search(address):
            raise InputError(
                f"the {scheme} address holds a key or a user",
                hint="leave them out: pyarrow and fsspec take keys from each machine's environment or role",
            )
        places.append(address.rstrip("/"))
    return tuple(places)


def is_address(place: str) -> bool:
    """Return whether a place is in an object store.

    Example:
        >>> is_address("s3://lake/films"), is_address("/data/films")
        (True, False)
    """
    return is_remote(place)


def below(place: str) -> str:
    """Return a place in the notation of `Filter.under`.

    Example:
        >>> below("s3://lake/films"), below("/data/films")
        ('s3:/lake/films', '/data/films')
    """
    return str(PurePosixPath(display_name(place))) if is_address(place) else display_name(place)


def listed(
    places: Sequence[str], *, limits: Limits, follow_symlinks: bool, leave_out: Sequence[str]
) -> Iterator[Listed]:
    """List everything that may be indexed; folders as `ume_retrieval.media.walk` does.

    In an object store, only objects with a media or text suffix and without a hidden name: checking the first bytes of
    every other object would cost a request each.

    `places` are folders, or one address; `leave_out` are folders to skip, each ending in a separator.
    """
    local = [place for place in places if not is_address(place)]
    for found in walk(local, limits=limits, follow_symlinks=follow_symlinks):
        if not found.source.startswith(tuple(leave_out)):
            yield found
    for place in places:
        if is_address(place):
            yield from _objects(place, limits)


@contextmanager
def at_hand(one: FoundFile | StoredObject, limits: Limits) -> Iterator[FoundFile | Failure]:
    """Yield the file on this machine; an object is fetched, and deleted after the block."""
    if isinstance(one, FoundFile):
        yield one
        return
    with tempfile.TemporaryDirectory(prefix="ume-") as folder:
        copy = Path(folder) / f"object{PurePosixPath(one.address).suffix.lower()}"
        _fetch(one, copy, limits)
        for found in walk([copy], limits=limits):
            if isinstance(found, FoundFile):
                yield replace(found, source=one.source, size=one.size, mtime_ns=one.mtime_ns)
            else:
                yield replace(found, source=one.source, message=renamed(found.message, copy, one.source))


def item_at(entry: Entry, path: Path) -> Item:
    """Return the item of an entry, with its media in a local copy of the file."""
    if entry.path == path:
        return entry.item
    match entry.kind:
        case "video":
            return Item(videos=(Clip(path, entry.start_s or 0.0, entry.end_s),))
        case "page":
            return Item(images=(Page(path, entry.page or 1),))
        case "image":
            return Item(images=(path,))
        case _:
            return entry.item


def renamed(message: str, copy: Path, source: str) -> str:
    """Return a message that names the object instead of its copy.

    Example:
        >>> renamed("/tmp/x/object.png is cut", Path("/tmp/x/object.png"), "s3://lake/cat.png")
        's3://lake/cat.png is cut'
    """
    return message.replace(display_name(copy), source)


def _objects(place: str, limits: Limits) -> Iterator[StoredObject | Failure]:
    try:
        filesystem, root = _filesystem(place)
        start = filesystem.get_file_info(root)
    except (OSError, ValueError, ImportError) as error:
        yield Failure.of(_refused(place, error), index=0, source=display_name(place))
        return
    head = place[: -len(root)] if root and place.endswith(root) else f"{place.partition('://')[0]}://"
    if start.type.name == "NotFound":
        missing = MediaNotFound(f"{display_name(place)} does not exist", hint="check the bucket and the prefix")
        yield Failure.of(missing, index=0, source=display_name(place))
        return
    waiting = [start]
    while waiting:
        info = waiting.pop()
        source = display_name(head + info.path)
        if info.type.name == "Directory":
            try:
                waiting += _inside(filesystem, info.path)
            except OSError as error:
                yield Failure.of(_refused(source, error), index=0, source=source)
        elif Path(info.path).suffix.lower() in MEDIA_SUFFIXES | TEXT_SUFFIXES:
            if info.size > limits.max_bytes:
                large = MediaTooLarge(f"{source} has {info.size} bytes, more than {limits.max_bytes}")
                yield Failure.of(large, index=0, source=source)
            else:
                yield StoredObject(source, head + info.path, info.size or 0, info.mtime_ns or 0)


def _inside(filesystem: Any, folder: str) -> list[Any]:
    """Return the contents of a folder without hidden names, in reverse order."""
    from pyarrow.fs import FileSelector

    found = filesystem.get_file_info(FileSelector(folder))
    shown = [info for info in found if not info.base_name.startswith(".")]
    return sorted(shown, key=lambda info: str(info.path), reverse=True)


def _fetch(one: StoredObject, copy: Path, limits: Limits) -> None:
    size = 0
    try:
        filesystem, path = _filesystem(one.address)
        with filesystem.open_input_stream(path) as stream, copy.open("wb") as file:
            while chunk := stream.read(1 << 20):
                size += len(chunk)
                if size > limits.max_bytes:  # whatever the listing said
                    raise MediaTooLarge(
                        f"{one.source} has more than {limits.max_bytes} bytes", hint="raise Limits.max_bytes"
                    )
                file.write(chunk)
    except FileNotFoundError as error:
        raise MediaNotFound(f"{one.source} does not exist any more") from error
    except OSError as error:
        raise _refused(one.source, error) from error


def _filesystem(address: str) -> tuple[Any, str]:
    """Return a pyarrow file system and the path in it; fsspec handles schemes unknown to pyarrow."""
    try:
        import pyarrow.fs
    except ImportError as error:
        raise MissingExtra("pyarrow is not installed", hint="pip install 'ume-retrieval[remote]'") from error
    try:
        return pyarrow.fs.FileSystem.from_uri(address)  # type: ignore[no-any-return]
    except pyarrow.ArrowInvalid:
        import fsspec  # type: ignore[import-untyped]  # untyped package

        filesystem, path = fsspec.core.url_to_fs(address)
        return pyarrow.fs.PyFileSystem(pyarrow.fs.FSSpecHandler(filesystem)), path


def _refused(source: str, error: Exception) -> UmeError:
    said = (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
    return MediaNotFound(
        f"{display_name(source)} cannot be read: {display_name(said)}",
        hint="check the address, the rights, and that the package for its scheme is installed (s3fs, gcsfs, adlfs)",
        retryable=isinstance(error, OSError),
    )
