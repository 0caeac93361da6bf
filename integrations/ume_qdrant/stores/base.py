"""The interface of stores, and the values that go in and out of them."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any, Final, Literal, Protocol, Self, TypeAlias, TypeVar, runtime_checkable

import numpy as np
import numpy.typing as npt

from ume_qdrant.stores.filters import Filter
from ume_qdrant.stores.layout import DEFAULT_EFFORT, TRUNCATED, Layout, SearchEffort
from ume_qdrant.stores.metadata import META_FIELD
from ume_qdrant.stores.schema import CollectionMeta, IndexKind
from ume_retrieval.errors import StoreError, StoreMismatch, TenantRequired

T = TypeVar("T")

Vector: TypeAlias = npt.NDArray[np.float32]
"""One vector, shape (dimension,), L2-normalised."""

VectorName: TypeAlias = Literal["direct", "reasoned"]
"""`direct` embeds an item as it is, `reasoned` embeds it with its T-CoT."""

VECTORS: Final[tuple[VectorName, ...]] = ("direct", "reasoned")

Payload: TypeAlias = Mapping[str, Any]
"""JSON values by field; see `ume_qdrant.stores.schema` for the fields."""


@dataclass(frozen=True, slots=True, eq=False)
class Point:
    """One searchable unit: an image, a segment of a video, a page or a text.

    Attributes:
        id: A UUID in its canonical form; see `ume_qdrant.stores.schema.point_id`.
        vectors: By name; `reasoned` may be missing. Empty if read without vectors.
        payload: Fields by name; may be a selection if read.
    """

    id: str
    vectors: Mapping[VectorName, Vector] = field(default_factory=dict)
    payload: Payload = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Scored:
    """A point that a search found.

    Attributes:
        id: The point's id.
        score: Cosine similarity, -1..1.
        payload: Fields by name; may be a selection.
    """

    id: str
    score: float
    payload: Payload


@runtime_checkable
class Store(Protocol):
    """One collection of points.

    A write has reached the engine when its call returns, so a process that is killed afterwards loses nothing of it.
    Every write is idempotent.

    Raises:
        TenantRequired: If the collection has tenants (see `Layout`), and a filter or a point does not name one.
        CollectionNotFound: If the collection does not exist; not raised by `exists`, `create`, `aliases`,
            `drop_alias`, `drop` and `close`.
        StoreLocked: If another process holds a folder store and cannot share it.
        StoreDamaged: If files of a folder store are not as they were written.
        StoreError: If the engine refuses a request or cannot be reached; `retryable` says whether a retry can help.
    """

    @property
    def location(self) -> str:
        """Directory or server address, for messages; never contains a secret."""
        ...

    @property
    def collection(self) -> str:
        """Name of the collection."""
        ...

    @property
    def folders(self) -> tuple[Path, ...]:
        """Folders of the engine's own files, which must not be indexed; empty for a server."""
        ...

    def exists(self) -> bool:
        """Return whether the collection exists."""
        ...

    def create(self, meta: CollectionMeta, layout: Layout | None = None) -> None:
        """Create the collection with both named vectors, payload indexes and metadata, unless it exists.

        Args:
            meta: Models that make its vectors.
            layout: How it stores its vectors; None is the plain layout, and accepts any layout of an existing one.

        Raises:
            InputError: If the layout does not fit the dimension.
            StoreMismatch: If the collection exists with another layout.
            StoreUnsupported: If the engine does not support the layout.
        """
        ...

    def meta(self) -> CollectionMeta:
        """Return which models made the collection."""
        ...

    def layout(self) -> Layout:
        """Return how the collection stores its vectors."""
        ...

    def set_metadata(self, meta: CollectionMeta) -> None:
        """Replace the metadata about models."""
        ...

    def upsert(self, points: Sequence[Point]) -> None:
        """Write whole points; a point with the same id is replaced."""
        ...

    def update(self, points: Sequence[Point]) -> None:
        """Set the given vectors and top-level payload fields of existing points, and keep the rest.

        Points that do not exist are skipped. Vectors are written before the payload, so that a payload never
        announces a vector that is missing.
        """
        ...

    def delete(self, ids: Sequence[str]) -> None:
        """Remove points; unknown ids are ignored."""
        ...

    def retrieve(
        self, ids: Sequence[str], *, vectors: Sequence[VectorName] = (), fields: Sequence[str] | None = None
    ) -> list[Point]:
        """Read points by id, in the order of `ids`, with all payload fields or those named.

        Unknown ids are left out.
        """
        ...

    def scroll(
        self, where: Filter | None = None, *, vectors: Sequence[VectorName] = (), fields: Sequence[str] | None = None
    ) -> Iterator[Point]:
        """Read every point that matches, ordered by id, with all payload fields or those named."""
        ...

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
        """Return the points nearest to `vector` among those that have the vector `name`, best first.

        Scores are cosines of full vectors in every layout. Hits have all payload fields, or those named.

        Raises:
            StoreMismatch: If the length of the vector differs from that of the collection.
        """
        ...

    def count(self, where: Filter | None = None) -> int:
        """Return how many points match, exactly."""
        ...

    def create_index(self, key: str, kind: IndexKind) -> None:
        """Create an index on a value of metadata, so that conditions on it need not read every point.

        Conditions mean the same with and without an index, as long as the values are of its kind. An existing index on
        the key is replaced. The in-memory engine of qdrant-client has no indexes; there, nothing happens.

        Args:
            key: Name of the value; "camera.maker" for one in a mapping.
            kind: Type of the values: "keyword", "integer", "float", "bool", "datetime" or "text" (by words).

        Raises:
            InputError: If the key or the kind is unknown.
        """
        ...

    def indexes(self) -> dict[str, IndexKind]:
        """Return the kinds of indexes on metadata, by key."""
        ...

    def aliases(self) -> dict[str, str]:
        """Return every alias at this location with the collection it points to."""
        ...

    def set_alias(self, alias: str) -> str | None:
        """Point `alias` at this collection, atomically, and return the collection it pointed to before.

        A store opened by the alias sees one collection or the other, never a mixture. Use it to index into a new
        collection and then swap it in.

        Raises:
            StoreError: If a collection has that name.
            StoreMismatch: If the alias points to a collection with other tenants.
        """
        ...

    def drop_alias(self, alias: str) -> None:
        """Remove an alias; an unknown one is ignored."""
        ...

    def drop(self) -> None:
        """Delete the collection, its points and the aliases that point to it.

        Raises:
            StoreError: If the store was opened by an alias.
        """
        ...

    def optimize(self) -> None:
        """Build search indexes, if the engine does not do so in the background; minutes on large collections."""
        ...

    def close(self) -> None:
        """Release files and connections; the store reopens when it is used again."""
        ...

    def __enter__(self) -> Self: ...

    def __exit__(self, *exc: object) -> None: ...


class RenamedMethods:
    """Former names of store methods, for one release."""

    def pin(self, meta: CollectionMeta) -> Any:
        """Call `set_metadata`; deprecated."""
        return self._renamed("pin", "set_metadata", meta)

    def point_alias(self, alias: str) -> Any:
        """Call `set_alias`; deprecated."""
        return self._renamed("point_alias", "set_alias", alias)

    def _renamed(self, old: str, new: str, argument: Any) -> Any:
        warnings.warn(f"{old} is deprecated: use {new}", DeprecationWarning, stacklevel=3)
        return getattr(self, new)(argument)


def batches(rows: Iterable[T], size: int) -> Iterator[list[T]]:
    """Yield rows in order, `size` at a time, reading them lazily.

    Example:
        >>> list(batches(range(5), 2))
        [[0, 1], [2, 3], [4]]
    """
    waiting = iter(rows)
    while batch := list(islice(waiting, size)):
        yield batch


def bounded(rows: Iterable[T], most: int, size: int, size_of: Callable[[T], int]) -> Iterator[list[T]]:
    """Yield rows in order, at most `most` at a time, or until their sizes reach `size`.

    Example:
        >>> list(bounded(["a", "bcd", "e", "f", "g"], 3, 4, len))
        [['a', 'bcd'], ['e', 'f', 'g']]
    """
    batch: list[T] = []
    total = 0
    for row in rows:
        batch.append(row)
        total += size_of(row)
        if len(batch) >= most or total >= size:
            yield batch
            batch, total = [], 0
    if batch:
        yield batch


def payload_selector(fields: Sequence[str] | None) -> bool | list[str]:
    """Return payload fields in the engines' form: True for all of them, False for an empty selection.

    Example:
        >>> payload_selector(None), payload_selector(()), payload_selector(("source",))
        (True, False, ['source'])
    """
    return True if fields is None else list(fields) or False


def named_vectors(point: Point, meta: CollectionMeta, layout: Layout, collection: str) -> dict[str, Any]:
    """Return the vectors that engines store for a point: full ones, and truncated ones if the layout has them.

    Raises:
        StoreMismatch: If the length of a vector differs from that of the collection.
    """
    rows: dict[str, Any] = {}
    for name, vector in point.vectors.items():
        meta.check_length(vector, collection)
        rows[name] = floats(vector)
        if layout.matryoshka_dim is not None:
            rows[name + TRUNCATED] = floats(vector[: layout.matryoshka_dim])
    return rows


def check_tenants(points: Iterable[Point], layout: Layout, collection: str) -> None:
    """Raise unless each point names its tenant, in a collection that has tenants.

    Raises:
        TenantRequired: With the point's id.
    """
    if layout.tenant is None:
        return
    for point in points:
        tenant = (point.payload.get(META_FIELD) or {}).get(layout.tenant)
        if not tenant or not isinstance(tenant, str):
            raise TenantRequired(
                f"point {point.id} has no {layout.tenant!r} in its metadata, the tenant in collection {collection!r}",
                hint=f"give metadata with {layout.tenant!r}: a text",
            )


def with_metadata(points: Iterable[Point]) -> list[Point]:
    """Return those of the points whose payload sets metadata."""
    return [point for point in points if META_FIELD in point.payload]


def check_same_tenants(alias: str, before: Layout, after: Layout) -> None:
    """Raise if an alias would move to a collection with other tenants, whose readers may leave theirs.

    Raises:
        StoreMismatch: With both tenant keys.
    """
    if before.tenant != after.tenant:
        raise StoreMismatch(
            f"alias {alias!r} points to a collection with tenants by {before.tenant!r}, not by {after.tenant!r}",
            hint="remove the alias first, and open the stores that use it again",
        )


def floats(vector: Vector) -> list[float]:
    """Return a vector as engines take it."""
    values: list[float] = np.asarray(vector, dtype=np.float32).tolist()
    return values


def point_of(record: Any) -> Point:
    """Convert a record of `qdrant_client` or `qdrant_edge`."""
    vectors = {name: np.asarray(values, dtype=np.float32) for name, values in (record.vector or {}).items()}
    return Point(str(record.id), vectors, record.payload or {})


def still_stored(points: Sequence[Point], stored: Iterable[Point]) -> list[Point]:
    """Return those of the points that a store holds.

    Example:
        >>> [point.id for point in still_stored([Point("a"), Point("b")], [Point("b")])]
        ['b']
    """
    ids = {point.id for point in stored}
    return [point for point in points if point.id in ids]


def alias_error(name: str) -> StoreError:
    """Return the error for dropping an alias as if it were a collection."""
    return StoreError(
        f"{name!r} is an alias, not a collection", hint="drop the collection that it points to, or the alias"
    )
