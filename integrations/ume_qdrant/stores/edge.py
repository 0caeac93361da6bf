"""`EdgeStore`: a collection in a folder, on Qdrant Edge, the Rust engine."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Self

from ume_qdrant.stores.base import (
    Point,
    RenamedMethods,
    Scored,
    Vector,
    VectorName,
    alias_error,
    check_same_tenants,
)
from ume_qdrant.stores.edge_engine import create_shard
from ume_qdrant.stores.edge_folder import EdgeDirectory, check_disk_space, check_name, is_collection
from ume_qdrant.stores.filters import Filter
from ume_qdrant.stores.layout import DEFAULT_EFFORT, Layout, SearchEffort
from ume_qdrant.stores.schema import CollectionMeta, IndexKind
from ume_qdrant.stores.served import OwnerGone
from ume_qdrant.stores.sharing import Lease, exclusive, lease
from ume_retrieval.errors import StoreError


class EdgeStore(RenamedMethods):
    """One collection on Qdrant Edge, kept in `directory/collection`.

    The engine has a write-ahead log: what a call has written survives a killed process. Any number of threads, stores
    and processes of one user may use a collection at once: the first one opens it, the others' calls go to that process
    (see `ume_qdrant.stores.sharing`). Metadata and aliases are small files next to the engine's, which cannot store
    them.

    A store that is pickled or forked carries its address only, and opens the collection again where it is used.

    Args:
        directory: Folder of collections; created with the first collection.
        collection: Name of the collection or of an alias: letters, digits, ".", "_" and "-".

    Raises:
        InputError: If the name cannot be a folder.
    """

    def __init__(self, directory: str | Path, collection: str) -> None:
        check_name(collection)
        self._folder = EdgeDirectory(Path(directory))
        self._collection = collection
        self._opened: tuple[str, Lease] | None = None

    def __repr__(self) -> str:
        return f"EdgeStore({self.location!r}, {self._collection!r})"

    def __reduce__(self) -> tuple[type[EdgeStore], tuple[Path, str]]:
        return EdgeStore, (self._folder.directory, self._collection)

    @property
    def location(self) -> str:
        """The directory of collections."""
        return str(self._folder.directory)

    @property
    def collection(self) -> str:
        """Name of the collection."""
        return self._collection

    @property
    def folder(self) -> Path:
        """Folder of the collection, or of the one that the alias points to now."""
        return self._folder.folder(self._collection)

    @property
    def folders(self) -> tuple[Path, ...]:
        """Folders of all collections in the directory."""
        return tuple(folder.absolute() for folder in self._folder.folders())

    def exists(self) -> bool:
        """Return whether the collection exists."""
        return is_collection(self.folder)

    def create(self, meta: CollectionMeta, layout: Layout | None = None) -> None:
        """Create the collection unless it exists."""
        wanted = layout or Layout()
        wanted.check(meta.dimension)
        try:
            if not self.exists():
                check_disk_space(self._folder.directory, self._collection)
                self._folder.create(self._collection, meta, wanted, lambda folder: create_shard(folder, meta, wanted))
        except OSError as error:
            if not self.exists():
                raise StoreError(
                    f"cannot make collection {self._collection!r} in {self.location}: {error.strerror}",
                    hint="check that the folder is writable and the disk has space",
                ) from error
        self.layout().match(layout, self._collection)

    def meta(self) -> CollectionMeta:
        """Return which models made the collection."""
        return CollectionMeta.from_dict(self._folder.read(self._collection), self._collection)

    def layout(self) -> Layout:
        """Return how the collection stores its vectors."""
        return Layout.from_dict(self._folder.read(self._collection), self._collection)

    def set_metadata(self, meta: CollectionMeta) -> None:
        """Replace the metadata about models."""
        self._call("set_metadata", meta)

    def upsert(self, points: Sequence[Point]) -> None:
        """Write whole points."""
        self._call("upsert", list(points))

    def update(self, points: Sequence[Point]) -> None:
        """Set vectors, then payload fields, of existing points."""
        self._call("update", list(points))

    def delete(self, ids: Sequence[str]) -> None:
        """Remove points."""
        self._call("delete", list(ids))

    def retrieve(
        self, ids: Sequence[str], *, vectors: Sequence[VectorName] = (), fields: Sequence[str] | None = None
    ) -> list[Point]:
        """Read points by id."""
        points: list[Point] = self._call("retrieve", list(ids), vectors=vectors, fields=fields)
        return points

    def scroll(
        self, where: Filter | None = None, *, vectors: Sequence[VectorName] = (), fields: Sequence[str] | None = None
    ) -> Iterator[Point]:
        """Read every point that matches, ordered by id."""
        offset: str | None = None
        while True:
            points, offset = self._call("page", offset, where, vectors=vectors, fields=fields)
            yield from points
            if offset is None:
                return

    def search(
        self,
        name: VectorName,
        vector: Vector,
        *,
        limit: int,
        where: Filter | None = None,
        effort: SearchEffort = DEFAULT_EFFORT,
        fields: Sequence[str] | None = None,
    ) -> list[Scored]:
        """Return the points nearest to `vector`, best first."""
        hits: list[Scored] = self._call("search", name, vector, limit=limit, where=where, effort=effort, fields=fields)
        return hits

    def count(self, where: Filter | None = None) -> int:
        """Return how many points match."""
        number: int = self._call("count", where)
        return number

    def create_index(self, key: str, kind: IndexKind) -> None:
        """Create an index on a value of metadata."""
        self._call("create_index", key, kind)

    def indexes(self) -> dict[str, IndexKind]:
        """Return the kinds of indexes on metadata, by key."""
        found: dict[str, IndexKind] = self._call("indexes")
        return found

    def optimize(self) -> None:
        """Merge segments, and build the vector index if the engine finds it worthwhile (some thousand points)."""
        self._call("optimize")

    def aliases(self) -> dict[str, str]:
        """Return every alias in the directory with the collection it points to."""
        return self._folder.aliases()

    def set_alias(self, alias: str) -> str | None:
        """Point `alias` at this collection, atomically, and return the collection it pointed to before.

        A store that has opened the former collection by the alias opens this one at its next call.
        """
        self.meta()  # raises unless the collection exists
        former = self._folder.aliases().get(alias)
        if former and is_collection(self._folder.directory / former):
            check_same_tenants(alias, Layout.from_dict(self._folder.read(former), former), self.layout())
        return self._folder.set_alias(alias, self._folder.resolve(self._collection))

    def drop_alias(self, alias: str) -> None:
        """Remove an alias."""
        self._folder.drop_alias(alias)

    def drop(self) -> None:
        """Delete the collection, its points and its aliases, unless another process has it open."""
        if self._folder.resolve(self._collection) != self._collection:
            raise alias_error(self._collection)
        if self.exists():
            self.close()
            with exclusive(self.folder):
                self._folder.remove(self._collection)

    def close(self) -> None:
        """End the use of the collection; the last use in this process flushes and closes it."""
        self._exchange(self._opened, None)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def _call(self, method: str, *args: Any, **kwargs: Any) -> Any:
        """Call a method of the opened collection, wherever it is open.

        Every call may be made twice: reading changes nothing, and every write is idempotent.
        """
        while True:
            opened = self._open()
            try:
                return opened.call(method, *args, **kwargs)
            except OwnerGone:
                continue  # `_open` waits for the next owner, or fails

    def _open(self) -> Lease:
        """Open the collection, or the one that the alias points to now."""
        seen, name = self._opened, self._folder.resolve(self._collection)
        if seen is not None and seen[0] == name and seen[1].usable:
            return seen[1]
        self.meta()  # raises unless the collection exists
        fresh = lease(self._folder.directory / name)
        if not self._exchange(seen, (name, fresh)):
            fresh.release()  # another thread was faster
            return self._open()
        return fresh

    def _exchange(self, seen: tuple[str, Lease] | None, new: tuple[str, Lease] | None) -> bool:
        """Replace what is opened, unless another thread has done so since it was `seen`, and release the former."""
        with _EXCHANGE:
            if self._opened is not seen:
                return False
            self._opened = new
        if seen is not None:
            seen[1].release()
        return True


_EXCHANGE = threading.RLock()
"""Held for two instructions by all stores, and by a fork, so that no process begins with it locked."""

if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_EXCHANGE.acquire, after_in_parent=_EXCHANGE.release, after_in_child=_EXCHANGE.release)
