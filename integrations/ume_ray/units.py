"""Rows between the operators: units of work, each becoming one point, and outcomes."""

from __future__ import annotations

import pickle
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal, TypeAlias

import numpy as np

from ume_qdrant.indexing.objects import StoredObject
from ume_qdrant.indexing.plan import Part
from ume_qdrant.stores.base import Vector
from ume_retrieval.errors import Failure, ItemWarning
from ume_retrieval.media import FoundFile
from ume_retrieval.pipeline import StageItem
from ume_retrieval.results import Trace, Usage

Event: TypeAlias = Literal[
    "unchanged", "embedded", "taken over", "reasoned", "failed", "stale", "spent", "warned", "stopped"
]
"""Kind of an outcome: a file is unchanged; a point was written, with new vectors or with those of another file with the
same bytes; a point got its `reasoned` vector; an item failed; a file has points of previous content; a batch used a
model; an item was used with a warning; the whole run failed."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """A final result about a file (`source`) or a batch; later operators pass it on unchanged.

    Attributes:
        stale: Ids of points of previous content.
        present: Whether the collection already has points of the file's current content.
    """

    event: Event
    source: str = ""
    failure: Failure | None = None
    stale: tuple[str, ...] = ()
    present: bool = False
    usage: Usage | None = None
    warning: ItemWarning | None = None


@dataclass(frozen=True, slots=True)
class Unit:
    """One point to create (`direct`: it needs its direct vector) or to complete; `reason` asks for reasoning now."""

    part: Part
    place: FoundFile | StoredObject
    direct: bool
    reason: bool

    @property
    def source(self) -> str:
        """The file."""
        return self.part.entry.source


@dataclass(frozen=True, slots=True)
class Decoded:
    """A unit with its decoded item."""

    unit: Unit
    item: StageItem


@dataclass(frozen=True, slots=True)
class ReasonedUnit:
    """A unit with its trace, or with the failure to make one."""

    unit: Unit
    item: StageItem
    failure: Failure | None = None


@dataclass(frozen=True, slots=True, eq=False)
class EncodedUnit:
    """A unit with its new vectors and its trace, or the failure of requested reasoning, ready to write."""

    unit: Unit
    direct: Vector | None = None
    reasoned: Vector | None = None
    trace: Trace | None = None
    failure: Failure | None = None


COLUMN: Final = "rows"
"""The only column of the data sets."""


def batch_of(groups: Iterable[Sequence[object]]) -> dict[str, Any]:
    """Pack groups of rows into a batch of Ray Data, whose unit is the group.

    A group is one pickle: Ray would pickle objects one by one, at every operator, which costs more than embedding small
    items.

    Example:
        >>> rows_of(batch_of([["a", (1, 2)], ["b"]]))
        ['a', (1, 2), 'b']
    """
    column = [pickle.dumps(list(group), protocol=pickle.HIGHEST_PROTOCOL) for group in groups]
    return {COLUMN: np.array(column, dtype=object)}


def rows_of(batch: Mapping[str, Any]) -> list[Any]:
    """Unpack all rows of a batch."""
    return [row for group in batch[COLUMN] for row in pickle.loads(group)]  # noqa: S301  # from our own workers


def failed(source: str, failure: Failure) -> Outcome:
    """Return the outcome of a failed item."""
    return Outcome("failed", source, failure)
