"""A store in this process: Qdrant Edge, the Rust engine on a directory."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Self, cast

import numpy as np
import qdrant_edge as qe

from ume_qdrant.stores.base import USUAL, Payload, Point, Scored, Vector, VectorName, chosen, is_alias, still_there
from ume_qdrant.stores.edge_folder import META_FILE, Hold, Shelf, check_name, need_room
from ume_qdrant.stores.filters import Filter, any_of
from ume_qdrant.stores.layout import SHORT, Effort, Layout, Quantization
from ume_qdrant.stores.schema import INDEXES, CollectionMeta
from ume_retrieval.errors import StoreError, StoreLocked, StoreMismatch

INDEX_TYPES: Final = {
    "keyword": qe.PayloadSchemaType.Keyword,
    "integer": qe.PayloadSchemaType.Integer,
    "float": qe.PayloadSchemaType.Float,
}

QUANTIZATIONS: Final[Mapping[Quantization, Any]] = {
    "scalar": qe.ScalarQuantizationConfig(qe.ScalarType.Int8, quantile=0.99, always_ram=True),
    "binary": qe.BinaryQuantizationConfig(always_ram=True),
    "product": qe.ProductQuantizationConfig(qe.CompressionRatio.X16, always_ram=True),
}

UNINDEXED: Final = qe.HnswIndexConfig(m=0, ef_construct=100, full_scan_threshold=10_000)

PAGE: Final = 1000
"""Points that are read at a time."""


@dataclass(frozen=True, slots=True)
class _Opened:
    """A collection's engine, with what the collection says of itself."""

    name: str
    hold: Hold
    shard: qe.EdgeShard
    meta: CollectionMeta
    layout: Layout


class EdgeStore:
    """One collection on Qdrant Edge, kept in `directory/collection`.

    The engine writes ahead: what a call has written survives the death of the process. One process at a time can open a
    collection; it is opened at first use and held until `close`. Threads of that process may share the store. Metadata
    stand in a JSON file next to the engine's own files, which have no place for them; so do aliases.

    Args:
        directory: Folder of collections; made when the first collection is.
        collection: Name of the collection or of an alias: letters, digits, ".", "_" and "-".

    Raises:
        InputError: When the name cannot be a folder.
    """

    def __init__(self, directory: str | Path, collection: str) -> None:
        check_name(collection)
        self._shelf = Shelf(Path(directory))
        self._collection = collection
        self._opened: _Opened | None = None
        self._lock = threading.RLock()

    def __repr__(self) -> str:
        return f"EdgeStore({self.location!r}, {self._collection!r})"

    @property
    def location(self) -> str:
        """The folder of collections."""
        return str(self._shelf.directory)

    @property
    def collection(self) -> str:
        """Name of the collection."""
        return self._collection

    @property
    def folders(self) -> tuple[Path, ...]:
        """Folders of all collections in the directory."""
        return tuple(path.parent.absolute() for path in self._shelf.directory.glob(f"*/{META_FILE}"))

    def exists(self) -> bool:
        """Whether the collection is there."""
        return (self._shelf.folder(self._collection) / META_FILE).is_file()

    def create(self, meta: CollectionMeta, layout: Layout | None = None) -> None:
        """Make the collection; keep it when it is already there."""
        wanted = layout or Layout()
        wanted.check(meta.dimension)
        try:
            if not self.exists():
                need_room(self._shelf.directory, self._collection)
                self._shelf.make(self._collection, meta, wanted, lambda aside: self._make_shard(aside, meta, wanted))
        except OSError as error:
            if not self.exists():
                raise StoreError(
                    f"cannot make collection {self._collection!r} in {self.location}: {error.strerror}",
                    hint="check that the folder can be written and the disc has room",
                ) from error
        self.layout().match(layout, self._collection)

    def _make_shard(self, aside: Path, meta: CollectionMeta, layout: Layout) -> None:
        with self._engine():
            config = qe.EdgeConfig(vectors=_vectors_config(meta.dimension, layout))
            shard = qe.EdgeShard.create(str(aside / "shard"), config)
            for field, kind in INDEXES.items():
                shard.update(qe.UpdateOperation.create_field_index(field, INDEX_TYPES[kind]))
            shard.close()

    def meta(self) -> CollectionMeta:
        """What the collection was made with."""
        return CollectionMeta.from_dict(self._shelf.read(self._collection), self._collection)

    def layout(self) -> Layout:
        """How the collection keeps its vectors."""
        return Layout.from_dict(self._shelf.read(self._collection), self._collection)

    def pin(self, meta: CollectionMeta) -> None:
        """Replace what the collection says of its models."""
        need_room(self._shelf.directory, self._collection)
        opened = self._open()
        self._shelf.write(self._shelf.directory / opened.name, meta, opened.layout)

    def upsert(self, points: Sequence[Point]) -> None:
        """Write points whole."""
        need_room(self._shelf.directory, self._collection)
        opened = self._open()
        rows = [qe.Point(point.id, self._rows(point, opened), dict(point.payload)) for point in points]
        if rows:
            with self._engine():
                opened.shard.update(qe.UpdateOperation.upsert_points(rows))

    def update(self, points: Sequence[Point]) -> None:
        """Set vectors, then payload fields, of points that exist."""
        need_room(self._shelf.directory, self._collection)
        try:
            self._update(points)
        except StoreMismatch:
            raise
        except StoreError:
            # One that another thread has removed meanwhile makes the engine refuse all.
            left = still_there(points, self.retrieve([point.id for point in points], fields=()))
            if len(left) == len(points):
                raise
            self.update(left)

    def _update(self, points: Sequence[Point]) -> None:
        opened = self._open()
        shard = opened.shard
        rows = [qe.PointVectors(point.id, self._rows(point, opened)) for point in points if point.vectors]
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
            records = shard.retrieve(list(ids), chosen(fields), list(vectors) or False)
            found = {str(record.id): record for record in records}
        return [_point(found[key]) for key in ids if key in found]

    def scroll(
        self, where: Filter | None = None, *, vectors: Sequence[VectorName] = (), fields: Sequence[str] | None = None
    ) -> Iterator[Point]:
        """Read every point that matches, ordered by id."""
        offset: Any = None
        while True:
            request = qe.ScrollRequest(
                offset=offset,
                limit=PAGE,
                filter=_filter(where),
                with_payload=chosen(fields),
                with_vector=list(vectors) or False,
            )
            shard = self._open().shard
            with self._engine():
                records, offset = shard.scroll(request)
            yield from map(_point, records)
            if offset is None:
                return

    def search(
        self,
        name: VectorName,
        vector: Vector,
        *,
        limit: int,
        where: Filter | None = None,
        effort: Effort = USUAL,
        fields: Sequence[str] | None = None,
    ) -> list[Scored]:
        """The points nearest to `vector`, best first."""
        opened = self._open()
        opened.meta.check_length(vector, self._collection)
        short, params = opened.layout.short, _params(opened.layout, effort)
        stages: dict[str, Any] = {"filter": _filter(where), "params": params}
        if short is not None and not effort.exact:
            first = qe.Query.Nearest(_floats(vector[:short]), name + SHORT)
            stages = {
                "prefetches": [qe.Prefetch(effort.candidates(limit), first, params=params, filter=_filter(where))],
                "params": _params(opened.layout, Effort(exact=True)),
            }
        nearest = qe.Query.Nearest(_floats(vector), name)
        request = qe.QueryRequest(limit=limit, query=nearest, with_payload=chosen(fields), **stages)
        with self._engine():
            return [Scored(str(hit.id), hit.score, hit.payload or {}) for hit in opened.shard.query(request)]

    def count(self, where: Filter | None = None) -> int:
        """How many points match."""
        shard = self._open().shard
        with self._engine():
            return shard.count(qe.CountRequest(exact=True, filter=_filter(where)))

    def optimize(self) -> None:
        """Merge segments and build the vector index where the engine finds it worth while (some thousand points)."""
        need_room(self._shelf.directory, self._collection)
        shard = self._open().shard
        with self._engine():
            shard.optimize()
            shard.flush()

    def aliases(self) -> dict[str, str]:
        """Every alias in the folder, with the collection that it names."""
        return self._shelf.aliases()

    def point_alias(self, alias: str) -> str | None:
        """Let `alias` name this collection, at once, and return what it named before.

        A process that has the former collection open by the alias goes over to this one at its next call. Until it
        does, it holds the former one; once it does, this one, so close this store.
        """
        self.meta()  # it must be there
        return self._shelf.point(alias, self._shelf.resolve(self._collection))

    def drop_alias(self, alias: str) -> None:
        """Forget an alias."""
        self._shelf.unpoint(alias)

    def drop(self) -> None:
        """Remove the collection with its points and aliases, unless another process holds it."""
        if self._shelf.resolve(self._collection) != self._collection:
            raise is_alias(self._collection)
        if self.exists():
            self._open()  # refused when another process holds it
            self.close()
            self._shelf.remove(self._collection)

    def close(self) -> None:
        """Flush and let go of the directory."""
        with self._lock:
            if self._opened is not None:
                opened, self._opened = self._opened, None
                try:
                    with self._engine():
                        opened.shard.flush()
                        opened.shard.close()
                finally:
                    opened.hold.release()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def _open(self) -> _Opened:
        """The engine of the collection, or of the one that the alias names by now."""
        with self._lock:
            name = self._shelf.resolve(self._collection)
            if self._opened is None or self._opened.name != name:
                if self._opened is not None:
                    # Another thread may be searching in the former one: it closes when nobody uses it any more.
                    self._opened.shard.flush()
                    self._opened = None
                meta, layout = self.meta(), self.layout()
                folder = self._shelf.directory / name
                with self._engine():
                    hold = Hold(folder)
                    try:
                        shard = qe.EdgeShard.load(str(folder / "shard"))
                    except BaseException:
                        hold.release()
                        raise
                self._opened = _Opened(name, hold, shard, meta, layout)
            return self._opened

    def _rows(self, point: Point, opened: _Opened) -> dict[str, Any]:
        rows: dict[str, Any] = {}
        for name, vector in point.vectors.items():
            opened.meta.check_length(vector, self._collection)
            rows[name] = _floats(vector)
            if opened.layout.short is not None:
                rows[name + SHORT] = _floats(vector[: opened.layout.short])
        return rows

    @contextmanager
    def _engine(self) -> Iterator[None]:
        try:
            yield
        except Exception as error:
            # The engine raises bare Exceptions; its text is all that tells them apart.
            text = str(error)
            if isinstance(error, BlockingIOError) or "WouldBlock" in text:
                raise StoreLocked(
                    f"collection {self._collection!r} in {self.location} is in use by another process",
                    hint="close the store that holds it, or wait; processes can share a collection on a Qdrant server",
                    retryable=True,
                ) from error
            raise StoreError(f"Qdrant Edge, collection {self._collection!r}: {text.splitlines()[0]}") from error


def _filter(where: Filter | None) -> qe.Filter | None:
    if where is None:
        return None
    must: list[Any] = [qe.FieldCondition(field, match=qe.MatchAny(values)) for field, values in any_of(where)]
    if where.time is not None:
        start, end = where.time
        must.append(qe.FieldCondition("start_s", range=qe.RangeFloat(lt=end)))
        must.append(qe.FieldCondition("end_s", range=qe.RangeFloat(gt=start)))
    if where.ids is not None:
        must.append(qe.HasIdCondition(set(where.ids)))
    return qe.Filter(must=must)


def _floats(vector: Vector) -> list[float]:
    return cast("list[float]", np.asarray(vector, dtype=np.float32).tolist())


def _vectors_config(dimension: int, layout: Layout) -> dict[str, qe.EdgeVectorParams]:
    quantization = QUANTIZATIONS[layout.quantization] if layout.quantization else None
    cosine, on_disk = qe.Distance.Cosine, True if layout.full == "disk" else None
    if layout.short is None:
        full = qe.EdgeVectorParams(dimension, cosine, on_disk=on_disk, quantization_config=quantization)
        return {"direct": full, "reasoned": full}
    # Full vectors only score what the truncated ones have found: they need no index.
    full = qe.EdgeVectorParams(dimension, cosine, on_disk=on_disk, hnsw_config=UNINDEXED)
    short = qe.EdgeVectorParams(layout.short, cosine, quantization_config=quantization)
    return {"direct": full, "reasoned": full, "direct" + SHORT: short, "reasoned" + SHORT: short}


def _params(layout: Layout, effort: Effort) -> qe.SearchParams:
    if effort.exact:
        return qe.SearchParams(exact=True, quantization=qe.QuantizationSearchParams(ignore=True))
    rescored = qe.QuantizationSearchParams(rescore=True, oversampling=effort.oversampling)
    return qe.SearchParams(hnsw_ef=effort.ef, quantization=rescored if layout.quantization else None)


def _point(record: qe.Record) -> Point:
    vectors = cast("dict[VectorName, list[float]]", record.vector or {})
    payload: Payload = record.payload or {}
    return Point(str(record.id), {name: np.asarray(v, dtype=np.float32) for name, v in vectors.items()}, payload)
