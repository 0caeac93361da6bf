"""What travels between the operators: units of work on their way to a point, and what became of them."""

from __future__ import annotations

import pickle
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal, TypeAlias

import numpy as np

from ume_qdrant.indexing.points import Part
from ume_qdrant.stores.base import Vector
from ume_ray.sources import StoredObject
from ume_retrieval.errors import Failure, UmeError
from ume_retrieval.media import FoundFile
from ume_retrieval.pipeline import StageItem
from ume_retrieval.results import Trace, Usage

Event: TypeAlias = Literal["unchanged", "embedded", "taken over", "reasoned", "failed", "stale", "spent", "stopped"]
"""What an outcome tells: a file needed nothing; a point was written, with new vectors or with those of another file of
the same bytes; a point got its `reasoned` vector; something was left out; a file has points of former content; a model
was asked; something has struck the run as a whole."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """Something that is settled; later operators hand it on as it is.

    Attributes:
        event: What it tells.
        source: The file; empty for what a batch has spent.
        failure: Why something was left out.
        stale: Ids of points of former content.
        present: Whether the collection has points of the file's present content already.
        usage: What a model was asked.
    """

    event: Event
    source: str = ""
    failure: Failure | None = None
    stale: tuple[str, ...] = ()
    present: bool = False
    usage: Usage | None = None


@dataclass(frozen=True, slots=True)
class Unit:
    """One point that has to be made or completed.

    Attributes:
        part: The entry, as a part of its file.
        place: Where the file is.
        direct: Whether the collection lacks the point.
        reason: Whether it is to be reasoned over now.
    """

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
    """A unit with its pixels."""

    unit: Unit
    item: StageItem


@dataclass(frozen=True, slots=True)
class ReasonedUnit:
    """A unit with its trace, or with the reason why there is none."""

    unit: Unit
    item: StageItem
    failure: Failure | None = None


@dataclass(frozen=True, slots=True, eq=False)
class EncodedUnit:
    """A unit with its vectors, ready to be written.

    Attributes:
        unit: What it is.
        direct: The direct vector, when the collection lacked it.
        reasoned: The vector with reasoning.
        trace: What the Reasoner wrote.
        failure: Why it could not be reasoned over, though it should have been.
    """

    unit: Unit
    direct: Vector | None = None
    reasoned: Vector | None = None
    trace: Trace | None = None
    failure: Failure | None = None


COLUMN: Final = "rows"
"""The only column of the data sets."""


def batch_of(groups: Iterable[Sequence[object]]) -> dict[str, Any]:
    """Groups of rows as a batch of Ray Data; it counts, splits and bundles groups.

    A group travels as one pickle. Given Python objects, Ray pickles each by itself, and again at every operator: for
    small items that costs more than embedding them.

    Example:
        >>> rows_of(batch_of([["a", (1, 2)], ["b"]]))
        ['a', (1, 2), 'b']
    """
    column = [pickle.dumps(list(group), protocol=pickle.HIGHEST_PROTOCOL) for group in groups]
    return {COLUMN: np.array(column, dtype=object)}


def rows_of(batch: Mapping[str, Any]) -> list[Any]:
    """All rows of a batch."""
    return [row for group in batch[COLUMN] for row in pickle.loads(group)]  # noqa: S301  # from our own workers


def spent(usage: Usage) -> Outcome:
    """What a batch has cost."""
    return Outcome("spent", usage=usage)


def failed(source: str, failure: Failure) -> Outcome:
    """Something that was left out."""
    return Outcome("failed", source, failure)


def stopped(error: UmeError) -> Outcome:
    """What strikes the run as a whole. It travels as a row, because Ray Data reports errors as text."""
    return Outcome("stopped", failure=Failure.of(error, index=0))
