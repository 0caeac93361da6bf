"""One archive per collection on disk: write it, and restore a collection from it."""

from __future__ import annotations

import tarfile
import zlib
from pathlib import Path
from typing import Final

from ume_qdrant.admin.verify import edge_folder, edge_store
from ume_qdrant.stores.base import Store
from ume_qdrant.stores.edge_engine import damaged_files
from ume_qdrant.stores.edge_folder import EdgeDirectory, check_disk_space
from ume_qdrant.stores.filters import EVERYTHING
from ume_qdrant.stores.seal import SEAL_FILE, Seal, blocks_of, sealed_files, write_sparse
from ume_qdrant.stores.sharing import exclusive
from ume_retrieval.errors import InputError, StoreDamaged, StoreError
from ume_retrieval.util.files import atomic_path, display_name

FORMAT: Final = "w:gz"


def snapshot(store: Store, path: str | Path) -> int:
    """Write a collection on disk to one archive (tar, gzip) with its checksums, atomically; return its points.

    Args:
        store: The collection; not in use anywhere.
        path: The archive; replaced if it exists.

    Raises:
        CollectionNotFound: If the collection does not exist.
        StoreLocked: If a process has it open.
        StoreDamaged: If its files are not as they were written.
        InputError: If the archive cannot be written.
    """
    folder = edge_folder(store)
    store.count(EVERYTHING)  # opens and closes it, so that it is sealed
    store.close()
    with exclusive(folder):
        seal = Seal.read(folder)
        if seal is None:
            raise StoreError(f"collection {folder.name!r} cannot be sealed", hint="check that its folder is writable")
        if damaged := seal.damaged(folder, by_time=False):
            raise damaged_files(folder, damaged)
        with atomic_path(path, what="the snapshot") as part, tarfile.open(part, FORMAT, compresslevel=1) as archive:
            for name in (SEAL_FILE, *sealed_files(folder)):
                archive.add(folder / name, name, recursive=False)
    return seal.points


def restore(store: Store, path: str | Path) -> int:
    """Create a collection on disk from an archive that `snapshot` wrote, and return the number of its points.

    Args:
        store: The collection to create; it must not exist.
        path: The archive.

    Raises:
        InputError: If the collection exists, or the file is no archive of a collection.
        StoreDamaged: If the archive is damaged.
    """
    target = edge_store(store)
    if target.exists():
        raise InputError(
            f"collection {store.collection!r} exists in {store.location}",
            hint="restore under another name and point an alias at it, or drop it first",
        )
    directory = EdgeDirectory(Path(target.location))
    check_disk_space(directory.directory, target.collection)
    seals: list[Seal] = []
    directory.install(target.collection, lambda folder: seals.append(_unpack(Path(path), folder)))
    return seals[0].points


def _unpack(path: Path, folder: Path) -> Seal:
    """Unpack the files that the archive's seal names, and compare them with it."""
    try:
        with tarfile.open(path, "r:gz") as archive:
            first = archive.next()
            if first is None or first.name != SEAL_FILE:
                raise tarfile.ReadError("it does not begin with a seal")
            _write(archive, first, folder / SEAL_FILE)
            seal = Seal.read(folder)
            if seal is None:
                raise tarfile.ReadError("its seal is damaged")
            while (member := archive.next()) is not None:
                if member.name in seal.files:
                    _write(archive, member, folder / member.name)
    except FileNotFoundError as error:
        raise InputError(f"{display_name(path)} does not exist", hint="name a file that `snapshot` wrote") from error
    except (tarfile.TarError, zlib.error, EOFError, ValueError, OSError) as error:
        raise StoreDamaged(f"{display_name(path)} cannot be restored: {error}", hint="use another snapshot") from error
    if damaged := seal.damaged(folder, by_time=False):
        raise StoreDamaged(
            f"{display_name(path)} is damaged: {damaged[0]} is not as it was written", hint="use another snapshot"
        )
    return seal


def _write(archive: tarfile.TarFile, member: tarfile.TarInfo, target: Path) -> None:
    content = archive.extractfile(member)
    if content is None:
        raise tarfile.ReadError(f"{member.name} is no file")
    target.parent.mkdir(parents=True, exist_ok=True)
    with content, target.open("wb") as file:
        write_sparse(file, member.size, blocks_of(content))
