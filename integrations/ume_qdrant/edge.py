"""A store in this process: Qdrant Edge, the Rust engine on a directory."""

from __future__ import annotations

import json
import os
import re
import shutil
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, Self, cast

import numpy as np
import qdrant_edge as qe

from ume_qdrant.filters import Filter, any_of
from ume_qdrant.schema import INDEXES, CollectionMeta
from ume_qdrant.store import Payload, Point, Scored, Vector, VectorName
from ume_retrieval.errors import CollectionNotFound, InputError, StoreError, StoreLocked

META_FILE: Final = "collection.json"
INDEX_TYPES: Final = {
    "keyword": qe.PayloadSchemaType.Keyword,
    "integer": qe.PayloadSchemaType.Integer,
    "float": qe.PayloadSchemaType.Float,
}

PAGE: Final = 1000
"""Points that are read at a time."""

STALE_S: Final = 3600.0
"""Age at which a half-made collection of a killed process is removed."""


class EdgeStore:
    """One collection on Qdrant Edge, kept in `directory/collection`.

    The engine writes ahead: what a call has written survives the death of the process. One process at a time can open a
    collection; it is opened at first use and held until `close`. Metadata stand in a JSON file next to the engine's own
    files, which have no place for them.

    Args:
        directory: Folder of collections; made when the first collection is.
        collection: Name of letters, digits, ".", "_" and "-".

    Raises:
        InputError: When the name cannot be a folder.
    """

    def __init__(self, directory: str | Path, collection: str) -> None:
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,199}", collection):
            raise InputError(
                f"{collection!r} cannot name a collection on disk",
                hint='use letters, digits, ".", "_" and "-", beginning with a letter or digit',
            )
        self._directory = Path(directory)
        self._collection = collection
        self._shard: qe.EdgeShard | None = None

    def __repr__(self) -> str:
        return f"EdgeStore({self.location!r}, {self._collection!r})"

    @property
    def location(self) -> str:
        """The folder of collections."""
        return str(self._directory)

    @property
    def collection(self) -> str:
        """Name of the collection."""
        return self._collection

    @property
    def folders(self) -> tuple[Path, ...]:
        """Folders of all collections in the directory."""
        return tuple(path.parent.absolute() for path in self._directory.glob(f"*/{META_FILE}"))

    @property
    def _folder(self) -> Path:
        return self._directory / self._collection

    def exists(self) -> bool:
        """Whether the collection is there."""
        return (self._folder / META_FILE).is_file()

    def create(self, meta: CollectionMeta) -> None:
        """Make the collection; keep it when it is already there.

        It is made aside and moved into place, so that a process killed on the way leaves no half of it.
        """
        if self.exists():
            return
        try:
            self._directory.mkdir(parents=True, exist_ok=True)
            self._sweep()
            aside = Path(tempfile.mkdtemp(prefix=f".{self._collection}.new-", dir=self._directory))
            aside.chmod(0o755)
            self._make_shard(aside / "shard", meta.dimension)
            _write_whole(aside / META_FILE, meta)
            aside.rename(self._folder)
        except OSError as error:
            if self.exists():
                return
            raise StoreError(
                f"cannot make collection {self._collection!r} in {self.location}: {error.strerror}",
                hint="check that the folder can be written and the disc has room",
            ) from error

    def _make_shard(self, folder: Path, dimension: int) -> None:
        params = qe.EdgeVectorParams(size=dimension, distance=qe.Distance.Cosine)
        with self._engine():
            shard = qe.EdgeShard.create(str(folder), qe.EdgeConfig(vectors={"direct": params, "reasoned": params}))
            for field, kind in INDEXES.items():
                shard.update(qe.UpdateOperation.create_field_index(field, INDEX_TYPES[kind]))
            shard.close()

    def _sweep(self) -> None:
        for left in self._directory.glob(f".{self._collection}.new-*"):
            if time.time() - left.stat().st_mtime > STALE_S:
                shutil.rmtree(left, ignore_errors=True)

    def meta(self) -> CollectionMeta:
        """What the collection was made with."""
        try:
            data = json.loads((self._folder / META_FILE).read_text(encoding="utf-8"))
        except FileNotFoundError:
            raise self._not_found() from None
        except (OSError, ValueError) as error:
            raise StoreError(f"cannot read {self._folder / META_FILE}: {error}") from error
        return CollectionMeta.from_dict(data, self._collection)

    def pin(self, meta: CollectionMeta) -> None:
        """Replace what the collection says of itself."""
        self._open()
        _write_whole(self._folder / META_FILE, meta)

    def upsert(self, points: Sequence[Point]) -> None:
        """Write points whole."""
        shard = self._open()
        rows = [qe.Point(point.id, _lists(point), dict(point.payload)) for point in points]
        if rows:
            with self._engine():
                shard.update(qe.UpdateOperation.upsert_points(rows))

    def update(self, points: Sequence[Point]) -> None:
        """Set vectors, then payload fields, of points that exist."""
        shard = self._open()
        rows = [qe.PointVectors(point.id, _lists(point)) for point in points if point.vectors]
        with self._engine():
            if rows:
                shard.update(qe.UpdateOperation.update_vectors(rows))
            for point in points:
                if point.payload:
                    shard.update(qe.UpdateOperation.set_payload([point.id], dict(point.payload)))

    def delete(self, ids: Sequence[str]) -> None:
        """Remove points."""
        shard = self._open()
        if ids:
            with self._engine():
                shard.update(qe.UpdateOperation.delete_points(list(ids)))

    def retrieve(self, ids: Sequence[str], *, vectors: Sequence[VectorName] = ()) -> list[Point]:
        """Read points by id."""
        shard = self._open()
        with self._engine():
            found = {str(record.id): record for record in shard.retrieve(list(ids), True, list(vectors) or False)}
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
                with_payload=True if fields is None else list(fields),
                with_vector=list(vectors) or False,
            )
            shard = self._open()
            with self._engine():
                records, offset = shard.scroll(request)
            yield from map(_point, records)
            if offset is None:
                return

    def search(self, name: VectorName, vector: Vector, *, limit: int, where: Filter | None = None) -> list[Scored]:
        """The points nearest to `vector`, best first."""
        nearest = qe.Query.Nearest(_floats(vector), name)
        request = qe.QueryRequest(limit=limit, query=nearest, filter=_filter(where), with_payload=True)
        shard = self._open()
        with self._engine():
            return [Scored(str(hit.id), hit.score, hit.payload or {}) for hit in shard.query(request)]

    def count(self, where: Filter | None = None) -> int:
        """How many points match."""
        shard = self._open()
        with self._engine():
            return shard.count(qe.CountRequest(exact=True, filter=_filter(where)))

    def optimize(self) -> None:
        """Merge segments and build the vector index where the engine finds it worth while (some thousand points)."""
        shard = self._open()
        with self._engine():
            shard.optimize()
            shard.flush()

    def close(self) -> None:
        """Flush and let go of the directory."""
        if self._shard is not None:
            shard, self._shard = self._shard, None
            with self._engine():
                shard.flush()
                shard.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def _open(self) -> qe.EdgeShard:
        if self._shard is None:
            if not self.exists():
                raise self._not_found()
            with self._engine():
                self._shard = qe.EdgeShard.load(str(self._folder / "shard"))
        return self._shard

    def _not_found(self) -> CollectionNotFound:
        others = sorted(path.parent.name for path in self._directory.glob(f"[!.]*/{META_FILE}"))
        return CollectionNotFound(
            f"{self.location} has no collection {self._collection!r}",
            hint=f"it has {', '.join(others)}" if others else "index something first",
        )

    @contextmanager
    def _engine(self) -> Iterator[None]:
        try:
            yield
        except Exception as error:
            # The engine raises bare Exceptions; its text is all that tells them apart.
            text = str(error)
            if "WouldBlock" in text:
                raise StoreLocked(
                    f"collection {self._collection!r} in {self.location} is in use by another process",
                    hint="wait until it ends or end it; to share a collection between processes use a Qdrant server",
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


def _lists(point: Point) -> dict[str, Any]:
    return {name: _floats(vector) for name, vector in point.vectors.items()}


def _point(record: qe.Record) -> Point:
    vectors = cast("dict[VectorName, list[float]]", record.vector or {})
    payload: Payload = record.payload or {}
    return Point(str(record.id), {name: np.asarray(v, dtype=np.float32) for name, v in vectors.items()}, payload)


def _write_whole(path: Path, meta: CollectionMeta) -> None:
    """Write the file so that a reader sees the old text or the new one, never a part."""
    aside = path.with_suffix(".json.new")
    with aside.open("w", encoding="utf-8") as file:
        json.dump(meta.to_dict(), file, indent=2)
        file.flush()
        os.fsync(file.fileno())
    aside.replace(path)
