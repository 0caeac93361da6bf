"""`EdgeEngine`: an opened collection of Qdrant Edge, in the process that owns its folder."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import qdrant_edge as qe

from ume_qdrant.stores.base import (
    VECTORS,
    Point,
    Scored,
    Vector,
    VectorName,
    check_tenants,
    floats,
    named_vectors,
    payload_selector,
    point_of,
    still_stored,
    with_metadata,
)
from ume_qdrant.stores.edge_folder import REPAIR_HINT, SHARD, EdgeDirectory, check_disk_space
from ume_qdrant.stores.edge_requests import (
    create_indexes,
    create_meta_index,
    edge_filter,
    meta_indexes,
    search_params,
    vectors_config,
)
from ume_qdrant.stores.filters import Filter
from ume_qdrant.stores.layout import TRUNCATED, Layout, SearchEffort
from ume_qdrant.stores.schema import CollectionMeta, IndexKind, check_index
from ume_qdrant.stores.seal import Seal, seal, unseal
from ume_retrieval.errors import StoreDamaged, StoreError, StoreLocked, StoreMismatch, TenantRequired, UmeError

PAGE: Final = 1000
"""Points per scroll request."""

NEW_SHARD: Final = ".shard.new"
"""The engine's files that a repair has made, until they replace the damaged ones."""

logger = logging.getLogger(__name__)

READS: Final = frozenset({"retrieve", "page", "search", "count", "indexes"})
"""Methods that only read."""

CALLS: Final = READS | {"upsert", "update", "delete", "create_index", "optimize", "set_metadata"}
"""Methods that stores call, also those of other processes."""


class EdgeEngine:
    """An opened collection. Several threads may call its methods at once, through `call`.

    Args:
        folder: The collection's folder.

    Raises:
        CollectionNotFound: If it holds no collection.
        StoreError: If its metadata cannot be read, or the engine cannot load its files.
        StoreLocked: If the engine of another process holds its files.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._directory = EdgeDirectory(folder.parent)
        stored = self._directory.read(folder.name)
        finish_replacement(folder)
        self._seal = Seal.read(folder)
        if self._seal is not None and (damaged := self._seal.damaged(folder, by_time=True)):
            raise damaged_files(folder, damaged)
        self._meta = CollectionMeta.from_dict(stored, folder.name)
        self._layout = Layout.from_dict(stored, folder.name)
        unseal(folder)
        self._shard = load_shard(folder)
        try:
            self._reconcile()
        except BaseException:
            with engine_errors(folder):
                self._shard.close()
            raise

    def _reconcile(self) -> None:
        """Compare the engine's counts with those of the seal, or with each other after a killed process."""
        points, vectors = self._counts()
        if self._seal is not None and (points, vectors) != (self._seal.points, self._seal.vectors):
            raise StoreDamaged(
                f"collection {self.folder.name!r} has {points} points, but had {self._seal.points} when it was closed",
                hint=REPAIR_HINT,
            )
        if lacking := points - vectors["direct"]:
            logger.warning(
                "collection %r has %d points without their direct vector: `ume store verify` names them",
                self.folder.name,
                lacking,
            )

    def _counts(self) -> tuple[int, dict[str, int]]:
        """Return the number of points, and of those that have each vector."""
        whole = qe.CountRequest(exact=True)
        having = {
            name: qe.CountRequest(exact=True, filter=qe.Filter(must=[qe.HasVectorCondition(name)])) for name in VECTORS
        }
        with engine_errors(self.folder):
            return self._shard.count(whole), {name: self._shard.count(request) for name, request in having.items()}

    def call(self, method: str, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
        """Call one of `CALLS`; every failure is a typed error.

        Raises:
            StoreError: As `engine_errors` does, or for another method.
        """
        if method not in CALLS:
            raise StoreError(f"a collection has no call {method!r}", hint="use one version of the library everywhere")
        with engine_errors(self.folder):
            return getattr(self, method)(*args, **kwargs)

    def close(self) -> None:
        """Flush what was written, release the engine's files and seal them."""
        try:
            points, vectors = self._counts()
            with engine_errors(self.folder):
                indexes = self.indexes()
                self._shard.flush()
        finally:
            with engine_errors(self.folder):
                self._shard.close()
        seal(self.folder, points, vectors, indexes, self._seal)

    def set_metadata(self, meta: CollectionMeta) -> None:
        """Replace the metadata about models."""
        check_disk_space(self._directory.directory, self.folder.name)
        self._directory.write(self.folder, meta, self._layout)

    def upsert(self, points: Sequence[Point]) -> None:
        """Write whole points."""
        check_disk_space(self._directory.directory, self.folder.name)
        check_tenants(points, self._layout, self.folder.name)
        rows = [
            qe.Point(point.id, named_vectors(point, self._meta, self._layout, self.folder.name), dict(point.payload))
            for point in points
        ]
        if rows:
            self._shard.update(qe.UpdateOperation.upsert_points(rows))

    def update(self, points: Sequence[Point]) -> None:
        """Set vectors, then payload fields, of existing points."""
        check_disk_space(self._directory.directory, self.folder.name)
        try:
            self._update(points)
        except (StoreMismatch, StoreDamaged, TenantRequired):
            raise
        except StoreError:
            # The engine refuses the whole batch if another thread has removed one of its points.
            left = still_stored(points, self.retrieve([point.id for point in points], fields=()))
            if len(left) == len(points):
                raise
            self.update(left)

    def _update(self, points: Sequence[Point]) -> None:
        check_tenants(with_metadata(points), self._layout, self.folder.name)
        rows = [
            qe.PointVectors(point.id, named_vectors(point, self._meta, self._layout, self.folder.name))
            for point in points
            if point.vectors
        ]
        with engine_errors(self.folder):
            if rows:
                self._shard.update(qe.UpdateOperation.update_vectors(rows))
            for point in points:
                if point.payload:
                    self._shard.update(qe.UpdateOperation.set_payload([point.id], dict(point.payload)))

    def delete(self, ids: Sequence[str]) -> None:
        """Remove points."""
        if ids:
            self._shard.update(qe.UpdateOperation.delete_points(list(ids)))

    def retrieve(
        self, ids: Sequence[str], *, vectors: Sequence[VectorName] = (), fields: Sequence[str] | None = None
    ) -> list[Point]:
        """Read points by id."""
        records = self._shard.retrieve(list(ids), payload_selector(fields), list(vectors) or False)
        found = {str(record.id): record for record in records}
        return [point_of(found[key]) for key in ids if key in found]

    def page(
        self,
        offset: str | None,
        where: Filter | None,
        *,
        vectors: Sequence[VectorName] = (),
        fields: Sequence[str] | None = None,
    ) -> tuple[list[Point], str | None]:
        """Read the next points that match, ordered by id, and the id that the page after them begins with."""
        request = qe.ScrollRequest(
            offset=offset,
            limit=PAGE,
            filter=self._filter(where),
            with_payload=payload_selector(fields),
            with_vector=list(vectors) or False,
        )
        records, after = self._shard.scroll(request)
        return [point_of(record) for record in records], None if after is None else str(after)

    def search(
        self,
        name: VectorName,
        vector: Vector,
        *,
        limit: int,
        where: Filter | None,
        effort: SearchEffort,
        fields: Sequence[str] | None,
    ) -> list[Scored]:
        """Return the points nearest to `vector`, best first."""
        self._meta.check_length(vector, self.folder.name)
        short, params = self._layout.matryoshka_dim, search_params(self._layout, effort)
        matching = self._filter(where)
        stages: dict[str, Any] = {"filter": matching, "params": params}
        if short is not None and not effort.exact:
            first = qe.Query.Nearest(floats(vector[:short]), name + TRUNCATED)
            stages = {
                "prefetches": [qe.Prefetch(effort.candidates(limit), first, params=params, filter=matching)],
                "params": search_params(self._layout, SearchEffort(exact=True)),
            }
        nearest = qe.Query.Nearest(floats(vector), name)
        request = qe.QueryRequest(limit=limit, query=nearest, with_payload=payload_selector(fields), **stages)
        return [Scored(str(hit.id), hit.score, hit.payload or {}) for hit in self._shard.query(request)]

    def count(self, where: Filter | None) -> int:
        """Return how many points match."""
        return self._shard.count(qe.CountRequest(exact=True, filter=self._filter(where)))

    def create_index(self, key: str, kind: IndexKind) -> None:
        """Create an index on a value of metadata."""
        check_index(key, kind)
        check_disk_space(self._directory.directory, self.folder.name)
        create_meta_index(self._shard, key, kind)

    def indexes(self) -> dict[str, IndexKind]:
        """Return the kinds of indexes on metadata, by key."""
        return meta_indexes(self._shard)

    def _filter(self, where: Filter | None) -> qe.Filter | None:
        return edge_filter(where, self._layout, self.folder.name)

    def optimize(self) -> None:
        """Merge segments, and build the vector index if the engine finds it worthwhile (some thousand points)."""
        check_disk_space(self._directory.directory, self.folder.name)
        self._shard.optimize()
        self._shard.flush()


def load_shard(folder: Path) -> qe.EdgeShard:
    """Load a collection's engine.

    Raises:
        StoreLocked: If another process holds its files.
        StoreDamaged: If it cannot be loaded.
    """
    try:
        with engine_errors(folder):
            return qe.EdgeShard.load(str(folder / SHARD))
    except (StoreLocked, StoreDamaged):
        raise
    except StoreError as error:
        raise StoreDamaged(f"cannot open {error.message}", hint=REPAIR_HINT) from error


def read_pages(folder: Path, vectors: Sequence[VectorName]) -> Iterator[list[Point]]:
    """Yield the points of a folder, in pages; a point that cannot be read has neither payload nor vectors.

    Raises:
        StoreError: If the engine fails.
    """
    shard = load_shard(folder)
    offset: Any = None
    while True:
        bare = qe.ScrollRequest(offset=offset, limit=PAGE, with_payload=False, with_vector=False)
        with engine_errors(folder):
            records, offset = shard.scroll(bare)
        ids = [record.id for record in records]
        try:
            yield _read(shard, folder, ids, vectors)
        except StoreError:
            yield [point for key in ids for point in _read_one(shard, folder, key, vectors)]
        if offset is None:
            return


def _read(shard: qe.EdgeShard, folder: Path, ids: list[Any], vectors: Sequence[VectorName]) -> list[Point]:
    with engine_errors(folder):
        return [point_of(record) for record in shard.retrieve(ids, True, list(vectors))]


def _read_one(shard: qe.EdgeShard, folder: Path, key: Any, vectors: Sequence[VectorName]) -> list[Point]:
    try:
        return _read(shard, folder, [key], vectors)
    except StoreError:
        return [Point(str(key))]


def finish_replacement(folder: Path) -> None:
    """Complete a repair whose process was killed between its last two steps."""
    if not (folder / SHARD).exists() and (folder / NEW_SHARD).is_dir():
        (folder / NEW_SHARD).rename(folder / SHARD)


def damaged_files(folder: Path, names: Sequence[str]) -> StoreDamaged:
    """Return the error for files that are not as the engine has written them."""
    more = f" and {len(names) - 1} more files" if len(names) > 1 else ""
    return StoreDamaged(
        f"collection {folder.name!r} in {folder.parent} is damaged: {names[0]}{more} changed while it was closed",
        hint=REPAIR_HINT,
    )


def create_shard(folder: Path, meta: CollectionMeta, layout: Layout) -> None:
    """Create the engine's files of an empty collection."""
    with engine_errors(folder):
        config = qe.EdgeConfig(vectors=vectors_config(meta.dimension, layout))
        shard = qe.EdgeShard.create(str(folder / SHARD), config)
        create_indexes(shard, layout)
        shard.close()


@contextmanager
def engine_errors(folder: Path) -> Iterator[None]:
    """Turn every failure of the engine into a typed error.

    Raises:
        StoreLocked: If another process holds the engine's files.
        StoreDamaged: If the engine panics, which damaged files make it do.
        StoreError: If it refuses a request.
    """
    try:
        yield
    except UmeError:
        raise
    except Exception as error:
        # The engine raises bare Exceptions, which differ only in their text.
        if "WouldBlock" in (text := str(error)):
            raise locked(folder) from error
        raise StoreError(f"Qdrant Edge, collection {folder.name!r}: {(text.splitlines() or [''])[0]}") from error
    except BaseException as error:
        # A panic of the engine is no Exception; its class cannot be imported.
        if type(error).__name__ != "PanicException":
            raise
        raise StoreDamaged(
            f"Qdrant Edge, collection {folder.name!r}, failed inside: {(str(error).splitlines() or [''])[0]}",
            hint=REPAIR_HINT,
        ) from error


def locked(folder: Path, by: str = "another process") -> StoreLocked:
    """Return the error for a collection that another process holds, and does not share."""
    return StoreLocked(
        f"collection {folder.name!r} in {folder.parent} is in use by {by}",
        hint="close the store that has it open, or wait; a Qdrant server can be shared by processes",
        retryable=True,
    )
