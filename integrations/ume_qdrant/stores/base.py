"""What every store does, and the values that go in and out of it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any, Final, Literal, Protocol, Self, TypeAlias, TypeVar, runtime_checkable

import numpy as np
import numpy.typing as npt

from ume_qdrant.stores.filters import Filter
from ume_qdrant.stores.layout import Effort, Layout
from ume_qdrant.stores.schema import CollectionMeta
from ume_retrieval.errors import StoreError

T = TypeVar("T")

Vector: TypeAlias = npt.NDArray[np.float32]
"""One vector, shape (dimension,), L2-normalised."""

VectorName: TypeAlias = Literal["direct", "reasoned"]
"""`direct` embeds an item as it is, `reasoned` embeds it with its T-CoT."""

VECTORS: Final[tuple[VectorName, ...]] = ("direct", "reasoned")

Payload: TypeAlias = Mapping[str, Any]
"""JSON values by field; see `ume_qdrant.stores.schema` for the fields."""


USUAL: Final = Effort()
"""What a search does unless told otherwise."""


@dataclass(frozen=True, slots=True, eq=False)
class Point:
    """One searchable thing: an image, a segment of a video, a page or a text.

    Attributes:
        id: A UUID in its canonical form; see `ume_qdrant.stores.schema.point_id`.
        vectors: By name; `reasoned` may be missing. Empty when read without vectors.
        payload: Fields by name; may be a selection when read.
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

    Every write has reached the engine when its call returns: a process that is killed afterwards loses nothing of it.
    Every write may be repeated without changing the result.

    Raises:
        CollectionNotFound: By every method but `exists`, `create`, `aliases`, `drop_alias`, `drop` and `close`, when
            the collection is not there.
        StoreLocked: When another process holds an in-process store.
        StoreError: When the engine refuses or cannot be reached; `retryable` says whether trying again can help.
    """

    @property
    def location(self) -> str:
        """Where the collection is, for messages; never holds a secret."""
        ...

    @property
    def collection(self) -> str:
        """Name of the collection."""
        ...

    @property
    def folders(self) -> tuple[Path, ...]:
        """Folders of the engine's own files, so that they are not indexed; none on a server."""
        ...

    def exists(self) -> bool:
        """Whether the collection is there."""
        ...

    def create(self, meta: CollectionMeta, layout: Layout | None = None) -> None:
        """Make the collection with both named vectors, payload indexes and `meta`; keep it when it is already there.

        Args:
            meta: What it is made with.
            layout: How it keeps its vectors; None is plain, and takes what is there as it is.

        Raises:
            InputError: When the layout does not go with the dimension.
            StoreMismatch: When the collection is there with another layout.
            StoreUnsupported: When the engine cannot keep vectors so.
        """
        ...

    def meta(self) -> CollectionMeta:
        """What the collection was made with."""
        ...

    def layout(self) -> Layout:
        """How the collection keeps its vectors."""
        ...

    def pin(self, meta: CollectionMeta) -> None:
        """Replace what the collection says of itself."""
        ...

    def upsert(self, points: Sequence[Point]) -> None:
        """Write points whole, in place of points of the same ids."""
        ...

    def update(self, points: Sequence[Point]) -> None:
        """Set the given vectors and top-level payload fields of points that exist, and keep the rest.

        Points that are not there, or no longer, are passed over.
        Vectors are written before the payload, so a point never claims a vector that it lacks.
        """
        ...

    def delete(self, ids: Sequence[str]) -> None:
        """Remove points; ids that are not there are no error."""
        ...

    def retrieve(
        self, ids: Sequence[str], *, vectors: Sequence[VectorName] = (), fields: Sequence[str] | None = None
    ) -> list[Point]:
        """Read points by id, in the order of `ids`, with all payload fields or those named.

        Ids that are not there are left out.
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
        effort: Effort = USUAL,
        fields: Sequence[str] | None = None,
    ) -> list[Scored]:
        """The points nearest to `vector` among those that have the vector `name`, best first.

        Scores are cosines of full vectors in every layout. Hits have all payload fields, or those named.

        Raises:
            StoreMismatch: When the vector has another length than those of the collection.
        """
        ...

    def count(self, where: Filter | None = None) -> int:
        """How many points match, exactly."""
        ...

    def aliases(self) -> dict[str, str]:
        """Every alias at this location, with the collection that it names."""
        ...

    def point_alias(self, alias: str) -> str | None:
        """Let `alias` name this collection from now on, at once, and return what it named before.

        Whoever opens a store by the alias sees the one collection or the other, never a mixture: so a re-index goes
        into a collection of another name, and the alias swaps it in.

        Raises:
            StoreError: When there is a collection of that name.
        """
        ...

    def drop_alias(self, alias: str) -> None:
        """Forget an alias; one that is not there is no error."""
        ...

    def drop(self) -> None:
        """Remove the collection for ever, with its points and the aliases that name it.

        Raises:
            StoreError: When the store was opened by an alias.
        """
        ...

    def optimize(self) -> None:
        """Build what makes search fast, where the engine does not do so by itself; minutes on large collections."""
        ...

    def close(self) -> None:
        """Let go of files and connections; the store opens again at its next use."""
        ...

    def __enter__(self) -> Self: ...

    def __exit__(self, *exc: object) -> None: ...


def batches(rows: Iterable[T], size: int) -> Iterator[list[T]]:
    """Rows in order, `size` at a time; drawn as they are needed.

    Example:
        >>> list(batches(range(5), 2))
        [[0, 1], [2, 3], [4]]
    """
    waiting = iter(rows)
    while batch := list(islice(waiting, size)):
        yield batch


def chosen(fields: Sequence[str] | None) -> bool | list[str]:
    """Payload fields as engines take them: all of them for None, none for an empty selection.

    Example:
        >>> chosen(None), chosen(()), chosen(("source",))
        (True, False, ['source'])
    """
    return True if fields is None else list(fields) or False


def still_there(points: Sequence[Point], held: Iterable[Point]) -> list[Point]:
    """Those of the points that a store holds.

    Example:
        >>> [point.id for point in still_there([Point("a"), Point("b")], [Point("b")])]
        ['b']
    """
    ids = {point.id for point in held}
    return [point for point in points if point.id in ids]


def is_alias(name: str) -> StoreError:
    """The error that keeps an alias from being taken for the collection that it names."""
    return StoreError(
        f"{name!r} is an alias, not a collection", hint="drop the collection that it names, or forget the alias"
    )
