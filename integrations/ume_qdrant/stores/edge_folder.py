"""The folder of a Qdrant Edge store besides the engine's files: locks, metadata and aliases of its collections."""

from __future__ import annotations

import json
import os
import re
import shutil
import tempfile
import time
import weakref
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from ume_qdrant.stores.layout import Layout
from ume_qdrant.stores.schema import CollectionMeta
from ume_retrieval.errors import CollectionNotFound, InputError, StoreError
from ume_retrieval.util.files import atomic_write

MIN_FREE: Final = 64 * 1024**2
"""Free bytes below which nothing is written: the size of two of the engine's files."""

LOCK_FILE: Final = ".lock"

META_FILE: Final = "collection.json"

ALIASES: Final = ".aliases"
"""Folder with one file per alias, which contains the name of a collection. No collection's name begins with a dot."""

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

    On systems without `fcntl`, only the engine's own lock protects the folder.

    Args:
        folder: An existing folder.

    Raises:
        BlockingIOError: If the folder is locked.

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
        descriptor = os.open(folder / LOCK_FILE, os.O_RDWR | os.O_CREAT)
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

    def release(self) -> None:
        """Release the lock; idempotent."""
        self._close()


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
        return sorted(path.parent.name for path in self.directory.glob(f"[!.]*/{META_FILE}"))

    def folder(self, name: str) -> Path:
        """Return the folder of a collection, given its name or an alias."""
        return self.directory / self.resolve(name)

    def resolve(self, name: str) -> str:
        """Return the collection that an alias points to; any other name is returned unchanged.

        Raises:
            StoreError: If the alias holds no name of a collection, such as a path out of the folder.
        """
        try:
            target = (self.directory / ALIASES / name).read_text(encoding="utf-8")
            check_name(target)
        except OSError:
            return name
        except (InputError, ValueError) as error:
            raise StoreError(f"the alias {name!r} holds no name of a collection", hint="set the alias again") from error
        return target

    def aliases(self) -> dict[str, str]:
        """Return every alias with the collection it points to."""
        found = sorted((self.directory / ALIASES).glob("[!.]*"))
        return {path.name: path.read_text(encoding="utf-8", errors="replace") for path in found}

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
        _write(self.directory / ALIASES / alias, name)
        return before

    def drop_alias(self, alias: str) -> None:
        """Remove an alias."""
        check_name(alias)
        (self.directory / ALIASES / alias).unlink(missing_ok=True)

    def create(self, name: str, meta: CollectionMeta, layout: Layout, engine: Callable[[Path], None]) -> None:
        """Create a collection in a temporary folder and rename it, so that a killed process leaves no half of it.

        Args:
            name: Name of the collection.
            meta: Its metadata about models.
            layout: How it stores its vectors.
            engine: Creates the engine's files in a folder.

        Raises:
            OSError: If the folder cannot be written, or another writer has created the collection meanwhile.
        """
        self.directory.mkdir(parents=True, exist_ok=True)
        self._remove_stale(name)
        temporary = Path(tempfile.mkdtemp(prefix=f".{name}.new-", dir=self.directory))
        try:
            temporary.chmod(0o755)
            engine(temporary)
            self.write(temporary, meta, layout)
            temporary.rename(self.directory / name)
        except BaseException:
            shutil.rmtree(temporary, ignore_errors=True)
            raise

    def write(self, folder: Path, meta: CollectionMeta, layout: Layout) -> None:
        """Write a collection's metadata."""
        _write(folder / META_FILE, json.dumps({**meta.to_dict(), **layout.to_dict()}, indent=2))

    def read(self, name: str) -> dict[str, Any]:
        """Read a collection's metadata.

        Raises:
            CollectionNotFound: If the collection does not exist.
            StoreError: If the file cannot be read.
        """
        path = self.folder(name) / META_FILE
        try:
            data: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            raise self._not_found(name) from None
        except (OSError, ValueError) as error:
            raise StoreError(f"cannot read {path}: {error}") from error
        return data

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


def _write(path: Path, text: str) -> None:
    try:
        atomic_write(path, text, what="the collection's metadata")
    except InputError as error:
        raise StoreError(error.message, hint=error.hint) from error
