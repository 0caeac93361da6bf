"""`EdgeStore`: a collection in this process, on Qdrant Edge, the Rust engine on a directory."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Self

import qdrant_edge as qe

from ume_qdrant.stores.base import (
    Point,
    RenamedMethods,
    Scored,
    Vector,
    VectorName,
    alias_error,
    check_same_tenants,
    check_tenants,
    floats,
    named_vectors,
    payload_selector,
    point_of,
    still_stored,
    with_metadata,
)
from ume_qdrant.stores.edge_folder import META_FILE, EdgeDirectory, FileLock, check_disk_space, check_name
from ume_qdrant.stores.edge_payload import create_indexes, create_meta_index, edge_filter, meta_indexes
from ume_qdrant.stores.filters import Filter
from ume_qdrant.stores.layout import DEFAULT_EFFORT, TRUNCATED, Layout, Quantization, SearchEffort
from ume_qdrant.stores.schema import CollectionMeta, IndexKind, check_index
from ume_retrieval.errors import StoreError, StoreLocked, StoreMismatch, TenantRequired

QUANTIZATIONS: Final[Mapping[Quantization, Any]] = {
    "scalar": qe.ScalarQuantizationConfig(qe.ScalarType.Int8, quantile=0.99, always_ram=True),
    "binary": qe.BinaryQuantizationConfig(always_ram=True),
    "product": qe.ProductQuantizationConfig(qe.CompressionRatio.X16, always_ram=True),
}

UNINDEXED: Final = qe.HnswIndexConfig(m=0, ef_construct=100, full_scan_threshold=10_000)

PAGE: Final = 1000
"""Points per scroll request."""


@dataclass(frozen=True, slots=True)
class _Opened:
    """An open collection: its lock, its engine and its metadata."""

    name: str
    lock: FileLock
    shard: qe.EdgeShard
    meta: CollectionMeta
    layout: Layout


class EdgeStore(RenamedMethods):
    """One collection on Qdrant Edge, kept in `directory/collection`.

    The engine has a write-ahead log: what a call has written survives a killed process. One process at a time can open
    a collection; it is opened at its first use and locked until `close`. Threads of that process may share the store.
    Metadata and aliases are small files next to the engine's, which cannot store them.

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
        self._opened: _Opened | None = None
        self._lock = threading.RLock()

    def __repr__(self) -> str:
        return f"EdgeStore({self.location!r}, {self._collection!r})"

    @property
    def location(self) -> str:
        """The directory of collections."""
        return str(self._folder.directory)

    @property
    def collection(self) -> str:
        """Name of the collection."""
        return self._collection

    @property
    def folders(self) -> tuple[Path, ...]:
        """Folders of all collections in the directory."""
        return tuple(path.parent.absolute() for path in self._folder.directory.glob(f"*/{META_FILE}"))

    def exists(self) -> bool:
        """Return whether the collection exists."""
        return (self._folder.folder(self._collection) / META_FILE).is_file()

    def create(self, meta: CollectionMeta, layout: Layout | None = None) -> None:
        """Create the collection unless it exists."""
        wanted = layout or Layout()
        wanted.check(meta.dimension)
        try:
            if not self.exists():
                check_disk_space(self._folder.directory, self._collection)
                self._folder.create(
                    self._collection, meta, wanted, lambda folder: self._create_shard(folder, meta, wanted)
                )
        except OSError as error:
            if not self.exists():
                raise StoreError(
                    f"cannot make collection {self._collection!r} in {self.location}: {error.strerror}",
                    hint="check that the folder is writable and the disk has space",
                ) from error
        self.layout().match(layout, self._collection)

    def _create_shard(self, folder: Path, meta: CollectionMeta, layout: Layout) -> None:
        with self._engine():
            config = qe.EdgeConfig(vectors=_vectors_config(meta.dimension, layout))
            shard = qe.EdgeShard.create(str(folder / "shard"), config)
            create_indexes(shard, layout)
            shard.close()

    def meta(self) -> CollectionMeta:
        """Return which models made the collection."""
        return CollectionMeta.from_dict(self._folder.read(self._collection), self._collection)

    def layout(self) -> Layout:
        """Return how the collection stores its vectors."""
        return Layout.from_dict(self._folder.read(self._collection), self._collection)

    def set_metadata(self, meta: CollectionMeta) -> None:
        """Replace the metadata about models."""
        check_disk_space(self._folder.directory, self._collection)
        opened = self._open()
        self._folder.write(self._folder.directory / opened.name, meta, opened.layout)

    def upsert(self, points: Sequence[Point]) -> None:
        """Write whole points."""
        check_disk_space(self._folder.directory, self._collection)
        opened = self._open()
        check_tenants(points, opened.layout, self._collection)
        rows = [
            qe.Point(point.id, named_vectors(point, opened.meta, opened.layout, self._collection), dict(point.payload))
            for point in points
        ]
        if rows:
            with self._engine():
                opened.shard.update(qe.UpdateOperation.upsert_points(rows))

    def update(self, points: Sequence[Point]) -> None:
        """Set vectors, then payload fields, of existing points."""
        check_disk_space(self._folder.directory, self._collection)
        try:
            self._update(points)
        except (StoreMismatch, TenantRequired):
            raise
        except StoreError:
            # The engine refuses the whole batch if another thread has removed one of its points.
            left = still_stored(points, self.retrieve([point.id for point in points], fields=()))
            if len(left) == len(points):
                raise
            self.update(left)

    def _update(self, points: Sequence[Point]) -> None:
        opened = self._open()
        check_tenants(with_metadata(points), opened.layout, self._collection)
        shard = opened.shard
        rows = [
            qe.PointVectors(point.id, named_vectors(point, opened.meta, opened.layout, self._collection))
            for point in points
            if point.vectors
        ]
        with self._engine():
            if rows:
                shard.update(qe.UpdateOperation.update_vectors(rows))
            for point in points:
                if point.payload:
                    shard.update(qe.UpdateOperation.set_payload([point.id], dict(point.payload)))

    def delete(self, ids: Sequence[str]) -> None:
        """Remove points."""
        shard = self._open().shard
        if ids:
            with self._engine():
                shard.update(qe.UpdateOperation.delete_points(list(ids)))

    def retrieve(
        self, ids: Sequence[str], *, vectors: Sequence[VectorName] = (), fields: Sequence[str] | None = None
    ) -> list[Point]:
        """Read points by id."""
        shard = self._open().shard
        with self._engine():
            records = shard.retrieve(list(ids), payload_selector(fields), list(vectors) or False)
            found = {str(record.id): record for record in records}
        return [point_of(found[key]) for key in ids if key in found]

    def scroll(
        self, where: Filter | None = None, *, vectors: Sequence[VectorName] = (), fields: Sequence[str] | None = None
    ) -> Iterator[Point]:
        """Read every point that matches, ordered by id."""
        offset: Any = None
        while True:
            opened = self._open()
            request = qe.ScrollRequest(
                offset=offset,
                limit=PAGE,
                filter=edge_filter(where, opened.layout, self._collection),
                with_payload=payload_selector(fields),
                with_vector=list(vectors) or False,
            )
            with self._engine():
                records, offset = opened.shard.scroll(request)
            yield from map(point_of, records)
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
        opened = self._open()
        opened.meta.check_length(vector, self._collection)
        short, params = opened.layout.matryoshka_dim, _params(opened.layout, effort)
        matching = edge_filter(where, opened.layout, self._collection)
        stages: dict[str, Any] = {"filter": matching, "params": params}
        if short is not None and not effort.exact:
            first = qe.Query.Nearest(floats(vector[:short]), name + TRUNCATED)
            stages = {
                "prefetches": [qe.Prefetch(effort.candidates(limit), first, params=params, filter=matching)],
                "params": _params(opened.layout, SearchEffort(exact=True)),
            }
        nearest = qe.Query.Nearest(floats(vector), name)
        request = qe.QueryRequest(limit=limit, query=nearest, with_payload=payload_selector(fields), **stages)
        with self._engine():
            return [Scored(str(hit.id), hit.score, hit.payload or {}) for hit in opened.shard.query(request)]

    def count(self, where: Filter | None = None) -> int:
        """Return how many points match."""
        opened = self._open()
        matching = edge_filter(where, opened.layout, self._collection)
        with self._engine():
            return opened.shard.count(qe.CountRequest(exact=True, filter=matching))

    def create_index(self, key: str, kind: IndexKind) -> None:
        """Create an index on a value of metadata."""
        check_index(key, kind)
        check_disk_space(self._folder.directory, self._collection)
        shard = self._open().shard
        with self._engine():
            create_meta_index(shard, key, kind)

    def indexes(self) -> dict[str, IndexKind]:
        """Return the kinds of indexes on metadata, by key."""
        shard = self._open().shard
        with self._engine():
            return meta_indexes(shard)

    def optimize(self) -> None:
        """Merge segments, and build the vector index if the engine finds it worthwhile (some thousand points)."""
        check_disk_space(self._folder.directory, self._collection)
        shard = self._open().shard
        with self._engine():
            shard.optimize()
            shard.flush()

    def aliases(self) -> dict[str, str]:
        """Return every alias in the directory with the collection it points to."""
        return self._folder.aliases()

    def set_alias(self, alias: str) -> str | None:
        """Point `alias` at this collection, atomically, and return the collection it pointed to before.

        A process that has opened the former collection by the alias opens this one at its next call, and locks it; so
        close this store.
        """
        self.meta()  # raises unless the collection exists
        former = self._folder.aliases().get(alias)
        if former in self._folder.names():  # an alias on disk may hold anything
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
            self._open()  # raises if another process has it open
            self.close()
            self._folder.remove(self._collection)

    def close(self) -> None:
        """Flush the engine and release the lock."""
        with self._lock:
            if self._opened is not None:
                opened, self._opened = self._opened, None
                try:
                    with self._engine():
                        opened.shard.flush()
                        opened.shard.close()
                finally:
                    opened.lock.release()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def _open(self) -> _Opened:
        """Open the collection, or the one that the alias points to now."""
        with self._lock:
            name = self._folder.resolve(self._collection)
            if self._opened is None or self._opened.name != name:
                if self._opened is not None:
                    # Another thread may be searching the former one, so it is closed by garbage collection.
                    self._opened.shard.flush()
                    self._opened = None
                meta, layout = self.meta(), self.layout()
                folder = self._folder.directory / name
                with self._engine():
                    lock = FileLock(folder)
                    try:
                        shard = qe.EdgeShard.load(str(folder / "shard"))
                    except BaseException:
                        lock.release()
                        raise
                self._opened = _Opened(name, lock, shard, meta, layout)
            return self._opened

    @contextmanager
    def _engine(self) -> Iterator[None]:
        try:
            yield
        except Exception as error:
            # The engine raises bare Exceptions, which differ only in their text.
            text = str(error)
            if isinstance(error, BlockingIOError) or "WouldBlock" in text:
                raise StoreLocked(
                    f"collection {self._collection!r} in {self.location} is in use by another process",
                    hint="close the store that has it open, or wait; a Qdrant server can be shared by processes",
                    retryable=True,
                ) from error
            raise StoreError(f"Qdrant Edge, collection {self._collection!r}: {text.splitlines()[0]}") from error


def _vectors_config(dimension: int, layout: Layout) -> dict[str, qe.EdgeVectorParams]:
    quantization = QUANTIZATIONS[layout.quantization] if layout.quantization else None
    cosine, on_disk = qe.Distance.Cosine, layout.on_disk or None
    if layout.matryoshka_dim is None:
        full = qe.EdgeVectorParams(dimension, cosine, on_disk=on_disk, quantization_config=quantization)
        return {"direct": full, "reasoned": full}
    # Full vectors only rescore the candidates of the truncated ones, so they need no index.
    full = qe.EdgeVectorParams(dimension, cosine, on_disk=on_disk, hnsw_config=UNINDEXED)
    short = qe.EdgeVectorParams(layout.matryoshka_dim, cosine, quantization_config=quantization)
    return {"direct": full, "reasoned": full, "direct" + TRUNCATED: short, "reasoned" + TRUNCATED: short}


def _params(layout: Layout, effort: SearchEffort) -> qe.SearchParams:
    if effort.exact:
        return qe.SearchParams(exact=True, quantization=qe.QuantizationSearchParams(ignore=True))
    rescored = qe.QuantizationSearchParams(rescore=True, oversampling=effort.oversampling)
    return qe.SearchParams(hnsw_ef=effort.ef, quantization=rescored if layout.quantization else None)
