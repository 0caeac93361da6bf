"""What lies beside the engine's files: what a collection says of itself, and the aliases of a folder of collections."""

from __future__ import annotations

import json
import os
import re
import shutil
import tempfile
import time
import weakref
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from ume_qdrant.stores.layout import Layout
from ume_qdrant.stores.schema import CollectionMeta
from ume_retrieval.errors import CollectionNotFound, InputError, StoreError

ROOM: Final = 64 * 1024**2
"""Free bytes below which nothing is written: two of the engine's 32 MB files."""


def need_room(directory: Path, collection: str) -> None:
    """Refuse to write when the disc is nearly full.

    Raises:
        StoreError: When less than `ROOM` is free.
    """
    there = next((folder for folder in (directory, *directory.absolute().parents) if folder.is_dir()), directory)
    try:
        free = shutil.disk_usage(there).free
    except OSError:  # no answer says nothing about room
        return
    if free < ROOM:
        raise StoreError(
            f"the disc of collection {collection!r} has {free / 1e6:.1f} MB left, and writing needs {ROOM / 1e6:.0f}",
            hint="make room, then give the same command again; what was written stays",
        )


LOCK_FILE: Final = ".lock"


class Hold:
    """An exclusive hold on a folder, against other processes and other holders in this one.

    Where the system has no such locks, the engine's own must do.

    Args:
        folder: The folder; it must be there.

    Raises:
        BlockingIOError: When somebody else holds it.

    Example:
        >>> import tempfile
        >>> folder = Path(tempfile.mkdtemp())
        >>> first = Hold(folder)
        >>> try:
        ...     Hold(folder)
        ... except BlockingIOError:
        ...     print("held")
        held
        >>> first.release()
        >>> Hold(folder).release()
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
        """Let go; once more is no error."""
        self._close()


META_FILE: Final = "collection.json"

ALIASES: Final = ".aliases"
"""Folder of one file an alias, which holds the name of a collection. No collection's name begins with a dot."""

STALE_S: Final = 3600.0
"""Age at which a half-made or half-removed collection of a killed process is swept away."""


def check_name(name: str) -> None:
    """Refuse a name that cannot be a folder.

    Raises:
        InputError: With what names may look like.
    """
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,199}", name):
        raise InputError(
            f"{name!r} cannot name a collection on disk",
            hint='use letters, digits, ".", "_" and "-", beginning with a letter or digit',
        )


@dataclass(frozen=True, slots=True)
class Shelf:
    """A folder of collections.

    Attributes:
        directory: The folder; it need not be there.
    """

    directory: Path

    def names(self) -> list[str]:
        """Collections by name."""
        return sorted(path.parent.name for path in self.directory.glob(f"[!.]*/{META_FILE}"))

    def folder(self, name: str) -> Path:
        """Where a collection, or the one that an alias names, has its files."""
        return self.directory / self.resolve(name)

    def resolve(self, name: str) -> str:
        """The collection that an alias names; any other name stays as it is."""
        try:
            return (self.directory / ALIASES / name).read_text(encoding="utf-8")
        except OSError:
            return name

    def aliases(self) -> dict[str, str]:
        """Every alias, with the collection that it names."""
        found = sorted((self.directory / ALIASES).glob("[!.]*"))
        return {path.name: path.read_text(encoding="utf-8") for path in found}

    def point(self, alias: str, name: str) -> str | None:
        """Let an alias name a collection, in one step, and return what it named before.

        Raises:
            StoreError: When there is a collection of that name.
        """
        check_name(alias)
        if alias in self.names():
            raise StoreError(
                f"{alias!r} is the name of a collection, so it cannot be an alias",
                hint="choose another alias, or remove that collection first",
            )
        before = self.aliases().get(alias)
        (self.directory / ALIASES).mkdir(exist_ok=True)
        write_whole(self.directory / ALIASES / alias, name)
        return before

    def unpoint(self, alias: str) -> None:
        """Forget an alias."""
        check_name(alias)
        (self.directory / ALIASES / alias).unlink(missing_ok=True)

    def make(self, name: str, meta: CollectionMeta, layout: Layout, engine: Callable[[Path], None]) -> None:
        """Make a collection aside and move it into place, so that a process killed on the way leaves no half of it.

        Args:
            name: Name of the collection.
            meta: What it is made with.
            layout: How it keeps its vectors.
            engine: Makes the engine's files in a folder.
        """
        self.directory.mkdir(parents=True, exist_ok=True)
        self._sweep(name)
        aside = Path(tempfile.mkdtemp(prefix=f".{name}.new-", dir=self.directory))
        aside.chmod(0o755)
        engine(aside)
        self.write(aside, meta, layout)
        aside.rename(self.directory / name)

    def write(self, folder: Path, meta: CollectionMeta, layout: Layout) -> None:
        """Write what a collection says of itself."""
        write_whole(folder / META_FILE, json.dumps({**meta.to_dict(), **layout.to_dict()}, indent=2))

    def read(self, name: str) -> dict[str, Any]:
        """What a collection says of itself.

        Raises:
            CollectionNotFound: When it is not there.
            StoreError: When its file cannot be read.
        """
        path = self.folder(name) / META_FILE
        try:
            data: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            raise self.not_found(name) from None
        except (OSError, ValueError) as error:
            raise StoreError(f"cannot read {path}: {error}") from error
        return data

    def remove(self, name: str) -> None:
        """Take a collection out of sight in one step, then remove its files and aliases."""
        for alias, target in self.aliases().items():
            if target == name:
                self.unpoint(alias)
        aside = Path(tempfile.mkdtemp(prefix=f".{name}.old-", dir=self.directory))
        (self.directory / name).rename(aside / name)
        shutil.rmtree(aside, ignore_errors=True)

    def not_found(self, name: str) -> CollectionNotFound:
        """The error for a collection that is not there."""
        others = sorted([*self.names(), *self.aliases()])
        return CollectionNotFound(
            f"{self.directory} has no collection {name!r}",
            hint=f"it has {', '.join(others)}" if others else "index something first",
        )

    def _sweep(self, name: str) -> None:
        for left in [*self.directory.glob(f".{name}.new-*"), *self.directory.glob(f".{name}.old-*")]:
            if time.time() - left.stat().st_mtime > STALE_S:
                shutil.rmtree(left, ignore_errors=True)


def write_whole(path: Path, text: str) -> None:
    """Write a file so that a reader sees the old text or the new one, never a part."""
    aside = path.with_name(f".{path.name}.{os.getpid()}.new")
    with aside.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    aside.replace(path)
