"""Open, hash and name local files safely."""

from __future__ import annotations

import hashlib
import os
import re
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from io import BufferedReader
from pathlib import Path

from ume_retrieval.errors import BrokenMedia, MediaNotFound, MediaTooLarge, RemoteNotAllowed
from ume_retrieval.media.limits import Limits
from ume_retrieval.util.files import display_name

_ADDRESS = re.compile(r"\s*(?:[a-z][a-z0-9+.-]*://|data:)", re.IGNORECASE)
_SETTLED_NS = 2_000_000_000


def is_remote(source: object) -> bool:
    """Return whether a `str` is an address with a scheme rather than a path.

    Example:
        >>> is_remote("https://example.org/cat.png"), is_remote("data:image/png;base64,AA"), is_remote("cat.png")
        (True, True, False)
    """
    return isinstance(source, str) and _ADDRESS.match(source) is not None


def local_path(source: str | Path) -> Path:
    """Convert a `str` or `Path` to a path; raises RemoteNotAllowed for an address."""
    if is_remote(source):
        raise RemoteNotAllowed(
            f"{str(source).strip().partition(':')[0].lower()}: addresses are not fetched",
            hint="download the file and pass its path, or name its host in allow_remote",
        )
    return Path(source)


@contextmanager
def open_file(path: Path, limits: Limits) -> Iterator[BufferedReader]:
    """Open a regular file of 1 to `limits.max_bytes` bytes for reading.

    Raises:
        MediaNotFound: When it does not exist, is not a regular file (folders, pipes and devices are never opened) or
            is not readable.
        BrokenMedia: When it is empty.
        MediaTooLarge: When it holds more bytes than allowed.
    """
    status = file_status(path)
    if status.st_size == 0:
        raise BrokenMedia(f"{display_name(path)} is empty", hint="copy or download the file again")
    if status.st_size > limits.max_bytes:
        raise MediaTooLarge(
            f"{display_name(path)} has {status.st_size} bytes, more than {limits.max_bytes}",
            hint="raise Limits.max_bytes or leave the file out",
        )
    try:
        handle = path.open("rb")
    except OSError as error:
        raise cannot_open(path, error) from error
    with handle:
        yield handle


def file_status(path: Path) -> os.stat_result:
    """Stat a regular file, following links; raises MediaNotFound for anything else."""
    try:
        status = path.stat()
    except (OSError, ValueError) as error:
        raise cannot_open(path, error) from error
    if not stat.S_ISREG(status.st_mode):
        raise MediaNotFound(f"{display_name(path)} is not a regular file", hint="pass a file, not a folder or a device")
    return status


def cannot_open(path: Path, error: OSError | ValueError) -> MediaNotFound:
    """Return the error for a path that the system does not open."""
    reason = (error.strerror if isinstance(error, OSError) else None) or str(error)
    return MediaNotFound(f"{display_name(path)} cannot be opened: {reason}", hint="check the path and its permissions")


def file_digest(path: Path, limits: Limits) -> bytes:
    """Return the SHA-256 digest of a file (32 bytes), streamed.

    The digest of a file that has not changed for two seconds is cached by device, inode, size and times, so that a long
    video or PDF is read once and not once per segment or page.

    Raises:
        MediaError: As `open_file`.
    """
    status = file_status(path)
    newest = max(status.st_mtime_ns, status.st_ctime_ns)
    if time.time_ns() - newest < _SETTLED_NS:
        return _digest(path, limits)
    return _settled_digest(path, limits, status.st_dev, status.st_ino, status.st_size, newest)


@lru_cache(maxsize=1024)
def _settled_digest(path: Path, limits: Limits, *_identity: int) -> bytes:
    return _digest(path, limits)


def _digest(path: Path, limits: Limits) -> bytes:
    with open_file(path, limits) as handle:
        try:
            return hashlib.file_digest(handle, "sha256").digest()
        except OSError as error:
            raise cannot_open(path, error) from error
