"""The folder of a Qdrant Edge store besides the engine's files: locks, metadata and aliases of its collections."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import tempfile
import time
import weakref
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from ume_qdrant.stores.layout import Layout
from ume_qdrant.stores.schema import CollectionMeta
from ume_retrieval.errors import CollectionNotFound, InputError, StoreDamaged, StoreError
from ume_retrieval.util.files import atomic_write

MIN_FREE: Final = 64 * 1024**2
"""Free bytes below which nothing is written: the size of two of the engine's files."""

LOCK_FILE: Final = ".lock"

META_FILE: Final = "collection.json"

CHECK: Final = "check"
"""Field of the metadata with the checksum of the others."""

ALIASES: Final = ".aliases"
"""Folder with one file per alias, which contains the name of a collection. No collection's name begins with a dot."""

SHARD: Final = "shard"
"""Folder of the engine's files within a collection's folder."""

REPAIR_HINT: Final = "`ume store verify` names the damage, `ume store repair` rebuilds what can be read"

STALE_S: Final = 3600.0
"""Age at which a half-created or half-removed collection of a killed process is deleted."""


def check_disk_space(directory: Path, collection: str) -> None:
    """Raise if the disk is nearly full.

    Raises:
        StoreError: If less than `MIN_FREE` bytes are free.
    """
    existing = next((folder for folder in (directory, *directory.absolute().parents) if folder.is_dir()), directory)
    try:
        free = shutil.disk_usage(existing).free
    except OSError:  # unknown: the write itself will tell
        return
    if free < MIN_FREE:
        raise StoreError(
            f"the disk of collection {collection!r} has {free / 1e6:.1f} MB left; writing needs {MIN_FREE / 1e6:.0f}",
            hint="free some space, then repeat the command; what was written is kept",
        )


class FileLock:
    """An exclusive lock on a folder, against other processes and other locks of this one.

    Its file holds a record of the owner, for processes that find the folder locked. On systems without `fcntl`, only
    the engine's own lock protects the folder.

    Args:
        folder: An existing folder.

    Raises:
        BlockingIOError: If the folder is locked.
        PermissionError: If the folder cannot be written.
        OSError: As PermissionError, for a read-only disk.

    Example:
        >>> import tempfile
        >>> folder = Path(tempfile.mkdtemp())
        >>> first = FileLock(folder)
        >>> try:
        ...     FileLock(folder)
        ... except BlockingIOError:
        ...     print("locked")
        locked
        >>> first.release()
        >>> FileLock(folder).release()
    """

    def __init__(self, folder: Path) -> None:
        self.descriptor = descriptor = os.open(folder / LOCK_FILE, os.O_RDWR | os.O_CREAT, 0o644)
        self._close = weakref.finalize(self, os.close, descriptor)
        try:
            import fcntl
        except ImportError:
            return
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            self._close()
            raise

    def record(self, owner: Mapping[str, Any]) -> None:
        """Replace the record of the owner."""
        os.ftruncate(self.descriptor, 0)
        os.pwrite(self.descriptor, json.dumps(owner).encode(), 0)

    def release(self) -> None:
        """Release the lock; idempotent."""
        self._close()


def lock_record(folder: Path) -> dict[str, Any]:
    """Read what the owner of a folder, or the last one, has recorded; empty if that is nothing or half written."""
    try:
        record = json.loads((folder / LOCK_FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return record if isinstance(record, dict) else {}


def check_name(name: str) -> None:
    """Raise if a name cannot be a folder.

    Raises:
        InputError: With the rules for names.
    """
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,199}", name):
        raise InputError(
            f"{name!r} cannot name a collection on disk",
            hint='use letters, digits, ".", "_" and "-", beginning with a letter or digit',
        )


@dataclass(frozen=True, slots=True)
class EdgeDirectory:
    """A folder of collections.

    Attributes:
        directory: The folder; it need not exist.
    """

    directory: Path

    def names(self) -> list[str]:
        """List the collections by name."""
        return sorted(folder.name for folder in self.folders())

    def folders(self) -> list[Path]:
        """List the folders of all collections, also of damaged ones."""
        return [folder for folder in self.directory.glob("[!.]*") if is_collection(folder)]

    def folder(self, name: str) -> Path:
        """Return the folder of a collection, given its name or an alias."""
        return self.directory / self.resolve(name)

    def resolve(self, name: str) -> str:
        """Return the collection that an alias points to; any other name is returned unchanged.

        Raises:
            StoreDamaged: If the alias does not contain what was written.
        """
        try:
            target = _alias_target(self.directory / ALIASES / name)
        except OSError:
            return name
        if not target:
            raise StoreDamaged(
                f"alias {name!r} in {self.directory} is damaged",
                hint=f"point it again with `ume store alias {name} --collection …`, or use the collection's own name",
            )
        return target

    def aliases(self) -> dict[str, str]:
        """Return every alias with the collection it points to, "" for a damaged one."""
        found = sorted((self.directory / ALIASES).glob("[!.]*"))
        return {path.name: _alias_target(path) for path in found}

    def set_alias(self, alias: str, name: str) -> str | None:
        """Point an alias at a collection, atomically, and return the collection it pointed to before.

        Raises:
            StoreError: If a collection has that name.
        """
        check_name(alias)
        if alias in self.names():
            raise StoreError(
                f"{alias!r} is the name of a collection, so it cannot be an alias",
                hint="choose another alias, or remove that collection first",
            )
        before = self.aliases().get(alias)
        _write(self.directory / ALIASES / alias, f"{name}\n{_check_sum(name)}\n")
        return before or None

    def drop_alias(self, alias: str) -> None:
        """Remove an alias."""
        check_name(alias)
        (self.directory / ALIASES / alias).unlink(missing_ok=True)

    def create(self, name: str, meta: CollectionMeta, layout: Layout, engine: Callable[[Path], None]) -> None:
        """Create a collection, so that a killed process leaves no half of it.

        Args:
            name: Name of the collection.
            meta: Its metadata about models.
            layout: How it stores its vectors.
            engine: Creates the engine's files in a folder.

        Raises:
            OSError: If the folder cannot be written, or another writer has created the collection meanwhile.
        """

        def fill(folder: Path) -> None:
            engine(folder)
            self.write(folder, meta, layout)

        self.install(name, fill)

    def install(self, name: str, fill: Callable[[Path], None]) -> None:
        """Fill a temporary folder, and rename it to a collection's.

        Raises:
            OSError: If the folder cannot be written, or another writer has created the collection meanwhile.
        """
        self.directory.mkdir(parents=True, exist_ok=True)
        self._remove_stale(name)
        temporary = Path(tempfile.mkdtemp(prefix=f".{name}.new-", dir=self.directory))
        try:
            temporary.chmod(0o755)
            fill(temporary)
            temporary.rename(self.directory / name)
        except BaseException:
            shutil.rmtree(temporary, ignore_errors=True)
            raise

    def write(self, folder: Path, meta: CollectionMeta, layout: Layout) -> None:
        """Write a collection's metadata."""
        data = {**meta.to_dict(), **layout.to_dict()}
        _write(folder / META_FILE, json.dumps({**data, CHECK: _check_sum(json.dumps(data))}, indent=2))

    def read(self, name: str) -> dict[str, Any]:
        """Read a collection's metadata.

        Raises:
            CollectionNotFound: If the collection does not exist.
            StoreDamaged: If its file is missing or not as it was written.
            StoreError: If the file cannot be read.
        """
        folder = self.folder(name)
        try:
            return parse_metadata((folder / META_FILE).read_bytes())
        except (FileNotFoundError, NotADirectoryError):
            if not is_collection(folder):
                raise self._not_found(name) from None
            reason = "is missing"
        except OSError as error:
            raise StoreError(f"cannot read {folder / META_FILE}: {error.strerror}") from error
        except ValueError as error:
            reason = f"cannot be read: {error}"
        raise StoreDamaged(f"{folder / META_FILE} {reason}", hint=REPAIR_HINT)

    def remove(self, name: str) -> None:
        """Hide a collection by one rename, then delete its files and aliases."""
        for alias, target in self.aliases().items():
            if target == name:
                self.drop_alias(alias)
        hidden = Path(tempfile.mkdtemp(prefix=f".{name}.old-", dir=self.directory))
        (self.directory / name).rename(hidden / name)
        shutil.rmtree(hidden, ignore_errors=True)

    def _not_found(self, name: str) -> CollectionNotFound:
        others = sorted([*self.names(), *self.aliases()])
        return CollectionNotFound(
            f"{self.directory} has no collection {name!r}",
            hint=f"it has {', '.join(others)}" if others else "index something first",
        )

    def _remove_stale(self, name: str) -> None:
        for left in [*self.directory.glob(f".{name}.new-*"), *self.directory.glob(f".{name}.old-*")]:
            with suppress(FileNotFoundError):  # another process has finished with it
                if time.time() - left.stat().st_mtime > STALE_S:
                    shutil.rmtree(left, ignore_errors=True)


def is_collection(folder: Path) -> bool:
    """Return whether a folder is a collection, whole or damaged."""
    return (folder / META_FILE).exists() or (folder / SHARD).is_dir()


def parse_metadata(content: bytes) -> dict[str, Any]:
    """Read a collection's metadata from its file.

    Raises:
        ValueError: If it is not what was written; files of former versions have no checksum.
    """
    data = json.loads(content.decode("utf-8"))
    if not isinstance(data, dict):
        raise ValueError("it holds no JSON object")  # noqa: TRY004  # as for other content
    check = data.pop(CHECK, None)
    if check is not None and check != _check_sum(json.dumps(data)):
        raise ValueError("its checksum differs")
    return data


def _alias_target(path: Path) -> str:
    """Return the name in an alias, or "" if it is not what was written; former versions wrote the name alone."""
    try:
        name, _, check = path.read_bytes().decode("utf-8").partition("\n")
        check_name(name)
    except (UnicodeDecodeError, InputError):
        return ""
    return name if check.strip() in {"", _check_sum(name)} else ""


def _check_sum(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _write(path: Path, text: str) -> None:
    try:
        atomic_write(path, text, what="the collection's metadata")
    except InputError as error:
        raise StoreError(error.message, hint=error.hint) from error
