"""The seal of a closed collection: its counts, and sizes, times and checksums of its files.

The engine itself does not notice most damages: points vanish, or lose their payload. So a collection is sealed when it
is closed, and compared with its seal when it is opened. Opening removes the seal, because the engine writes to its
files even to read; a process that is killed therefore leaves none, and the engine recovers from its write-ahead log.

Small files are kept in the seal as they are, so that `ume store repair` can put them back.
"""

from __future__ import annotations

import base64
import errno
import hashlib
import json
import mmap
import os
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, BinaryIO, Final

from ume_qdrant.stores.schema import IndexKind
from ume_retrieval.errors import InputError
from ume_retrieval.util.files import atomic_write

SEAL_FILE: Final = ".seal"

VERSION: Final = 1

BLOCK: Final = 1 << 16
"""Bytes per block; blocks of zeros are skipped, because the engine's files are mostly holes."""

SMALL: Final = 1024
"""Most bytes of a file that is kept in the seal."""

_ZEROS: Final = bytes(BLOCK)


@dataclass(frozen=True, slots=True)
class FileState:
    """A file as it was when its collection was closed.

    Attributes:
        size: Its length in bytes.
        mtime_ns: Time of its last change.
        digest: SHA-256 of its blocks, hex.
        content: All of it in base64 if it is small, or None.
    """

    size: int
    mtime_ns: int
    digest: str
    content: str | None = None

    @classmethod
    def of(cls, path: Path) -> FileState:
        """Read a file."""
        stat = path.stat()
        small = base64.b64encode(path.read_bytes()).decode() if stat.st_size <= SMALL else None
        return cls(stat.st_size, stat.st_mtime_ns, digest(path), small)

    def fits(self, path: Path, *, by_time: bool) -> bool:
        """Return whether a file is unchanged; `by_time` trusts its size and time if both are those of the seal."""
        try:
            stat = path.stat()
            if stat.st_size != self.size:
                return False
            return (by_time and stat.st_mtime_ns == self.mtime_ns) or digest(path) == self.digest
        except OSError:
            return False


@dataclass(frozen=True, slots=True)
class Seal:
    """The state of a closed collection.

    Attributes:
        points: Number of its points.
        vectors: Number of points that have each named vector.
        indexes: Kinds of its indexes on metadata, by key.
        files: Its files by their names within the collection's folder.
    """

    points: int
    vectors: Mapping[str, int]
    indexes: Mapping[str, IndexKind]
    files: Mapping[str, FileState]

    @classmethod
    def make(
        cls,
        folder: Path,
        points: int,
        vectors: Mapping[str, int],
        indexes: Mapping[str, IndexKind],
        former: Seal | None,
    ) -> Seal:
        """Describe a collection that no engine has open; files that `former` describes are not read if unchanged."""
        known = former.files if former is not None and _times_change_with_mapped_writes(folder) else {}
        files = {}
        for name in sealed_files(folder):
            path, state = folder / name, known.get(name)
            stat = path.stat()
            same = state is not None and (stat.st_size, stat.st_mtime_ns) == (state.size, state.mtime_ns)
            files[name] = state if state is not None and same else FileState.of(path)
        return cls(points, vectors, indexes, files)

    def write(self, folder: Path) -> None:
        """Seal a folder."""
        content = json.dumps(asdict(self), separators=(",", ":"))
        sealed = {"version": VERSION, "digest": hashlib.sha256(content.encode()).hexdigest(), "content": content}
        atomic_write(folder / SEAL_FILE, json.dumps(sealed), what="the collection's seal")

    @classmethod
    def read(cls, folder: Path) -> Seal | None:
        """Return the seal of a folder, or None if it has none, or a damaged or newer one."""
        try:
            sealed = json.loads((folder / SEAL_FILE).read_text(encoding="utf-8"))
            content = sealed["content"]
            if sealed["version"] != VERSION or hashlib.sha256(content.encode()).hexdigest() != sealed["digest"]:
                return None
            data = json.loads(content)
            files = {name: FileState(**state) for name, state in data["files"].items()}
            return cls(data["points"], data["vectors"], data["indexes"], files)
        except (OSError, ValueError, TypeError, KeyError, AttributeError):
            return None

    def damaged(self, folder: Path, *, by_time: bool) -> list[str]:
        """Return the files that are missing, changed or new, by name.

        Args:
            folder: The collection's folder.
            by_time: Read only files whose size or time differs from the seal; otherwise all.
        """
        new = set(sealed_files(folder)) - self.files.keys()
        changed = {name for name, state in self.files.items() if not state.fits(folder / name, by_time=by_time)}
        return sorted(new | changed)


def unseal(folder: Path) -> None:
    """Remove the seal durably, before the engine may write."""
    (folder / SEAL_FILE).unlink(missing_ok=True)
    with suppress(OSError):  # some file systems cannot sync a folder
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def seal(
    folder: Path, points: int, vectors: Mapping[str, int], indexes: Mapping[str, IndexKind], former: Seal | None
) -> None:
    """Seal a collection that no engine has open; a folder that cannot be written stays without a seal."""
    with suppress(OSError, InputError):
        Seal.make(folder, points, vectors, indexes, former).write(folder)


def sealed_files(folder: Path) -> list[str]:
    """List what belongs to a collection: all files whose names begin with no dot, by name."""
    found: list[str] = []
    for place, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".")]
        found += [os.path.relpath(os.path.join(place, name), folder) for name in names if not name.startswith(".")]  # noqa: PTH118  # as os.walk gives strings
    return sorted(found)


def digest(path: Path) -> str:
    """Return the SHA-256 of a file's blocks that are not zero, with their places, hex."""
    hasher = hashlib.sha256()
    for place, block in blocks(path):
        hasher.update(place.to_bytes(8, "big"))
        hasher.update(block)
    return hasher.hexdigest()


def blocks(path: Path) -> Iterator[tuple[int, bytes]]:
    """Yield the blocks of a file that are not all zero, each with its place; holes are not read."""
    with path.open("rb", buffering=0) as file:
        size = os.fstat(file.fileno()).st_size
        place = 0
        while place < size:
            if hasattr(os, "SEEK_DATA"):
                try:
                    data = os.lseek(file.fileno(), place, os.SEEK_DATA)
                except OSError as error:
                    if error.errno == errno.ENXIO:  # only a hole is left
                        return
                    data = place  # the file system does not know
                place = data - data % BLOCK
            file.seek(place)
            block = file.read(BLOCK)
            if not block:
                return
            if block != _ZEROS[: len(block)]:
                yield place, block
            place += BLOCK


def copy_sparse(source: Path, target: Path) -> None:
    """Copy a file without its holes."""
    target.parent.mkdir(parents=True, exist_ok=True)
    with target.open("wb") as file:
        write_sparse(file, source.stat().st_size, blocks(source))


def write_sparse(file: BinaryIO, size: int, content: Iterable[tuple[int, bytes]]) -> None:
    """Write blocks at their places into a new file of this size; the rest stays a hole."""
    file.truncate(size)
    for place, block in content:
        file.seek(place)
        file.write(block)


def blocks_of(stream: IO[bytes]) -> Iterator[tuple[int, bytes]]:
    """Yield the blocks of a stream that are not all zero, each with its place."""
    place = 0
    while block := stream.read(BLOCK):
        if block != _ZEROS[: len(block)]:
            yield place, block
        place += len(block)


def copy_collection(folder: Path, target: Path) -> None:
    """Copy a collection that no engine has open, without holes and seal."""
    for name in sealed_files(folder):
        copy_sparse(folder / name, target / name)


def _times_change_with_mapped_writes(folder: Path) -> bool:
    """Whether the file system changes a file's time if its memory is written, as tmpfs does not."""
    with tempfile.NamedTemporaryFile(dir=folder, prefix=".probe-") as file:
        file.write(_ZEROS)
        file.flush()
        os.utime(file.name, ns=(0, 0))
        with mmap.mmap(file.fileno(), BLOCK) as memory:
            memory[0] = 1
            memory.flush()
        return os.stat(file.name).st_mtime_ns != 0  # noqa: PTH116


def small_content(state: FileState) -> bytes | None:
    """Return a small file's content, or None."""
    return None if state.content is None else base64.b64decode(state.content)
