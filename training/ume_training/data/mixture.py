"""Batches from several data sets by weight: each from one data set, look-alikes together, in an order that repeats."""

from __future__ import annotations

import random
from array import array
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice

from ume_retrieval.errors import InputError
from ume_training.data.sources import PairSource

_LOOK_AHEAD = 64
"""Groups that may wait for a batch with room for them."""


@dataclass(frozen=True, slots=True)
class Batch:
    """Which pairs a step learns from.

    Attributes:
        dataset: Name of the source.
        positions: In the source; pairs of one group are adjacent.
    """

    dataset: str
    positions: tuple[int, ...]


class Mixture:
    """An endless order of batches that depends on its arguments alone.

    A data set is drawn for each batch with a chance in proportion to its weight. Within a data set groups are shuffled
    and dealt out whole; no pair comes again before all others of the data set have come, and then they are shuffled
    anew. A batch that the last groups do not fill is filled with groups that stood first in the same pass.

    Args:
        sources: Data sets with different names.
        weights: Of each data set by name, >= 0; one that is not named counts 0. None: by number of pairs.
        batch_size: Most pairs of a batch, >= 1. A batch is smaller when no whole group fits in what is left, or when
            the data set is. A group that is larger than a batch is cut.
        seed: Of the order.

    Raises:
        InputError: When names repeat, a weight is wrong, or nothing can be drawn.

    Example:
        >>> from ume_training.shapes.pairs import ShapesSource
        >>> source = ShapesSource("text_to_image", "default", seed=0, group_size=2, count=6)
        >>> order = Mixture([source], None, batch_size=4, seed=0)
        >>> [sorted(batch.positions) for batch in order.batches(steps=3)]
        [[0, 1, 4, 5], [0, 1, 2, 3], [2, 3, 4, 5]]
        >>> list(order.batches(steps=1, start=2)) == list(order.batches(steps=3))[2:]
        True
    """

    def __init__(
        self, sources: Sequence[PairSource], weights: Mapping[str, float] | None, batch_size: int, seed: int
    ) -> None:
        names = [source.name for source in sources]
        if len(set(names)) < len(names):
            raise InputError(f"two data sets have the same name: {', '.join(sorted(names))}")
        if batch_size < 1:
            raise InputError(f"a batch of {batch_size} pairs is too small")
        shares = {source.name: float(len(source)) for source in sources} if weights is None else dict(weights)
        if unknown := set(shares) - set(names):
            raise InputError(
                f"weights name an unknown data set {min(unknown)!r}", hint=f"there are {', '.join(sorted(names))}"
            )
        if not all(0 <= share < float("inf") for share in shares.values()):
            raise InputError("weights must be finite and at least 0")
        self.batch_size = batch_size
        self.seed = seed
        self._sources = [source for source in sources if len(source) and shares.get(source.name, 0.0) > 0]
        self._weights = [shares[source.name] for source in self._sources]
        if not self._sources:
            raise InputError("no data set has pairs and a weight above 0")
        self._groups: dict[str, _Groups] = {}

    def batches(self, steps: int | None = None, start: int = 0) -> Iterator[Batch]:
        """Batches `start`, `start + 1`, …, `start + steps - 1`; without end when `steps` is None.

        Skipping the first `start` batches deals them out once more and loads nothing.
        """
        passes = {source.name: self._dealt(source) for source in self._sources}
        rng = random.Random(f"mixture/{self.seed}")
        skipped = dict.fromkeys(passes, 0)
        for _ in range(start):
            skipped[self._draw(rng)] += 1
        for name, count in skipped.items():
            next(islice(passes[name], count, count), None)
        while steps is None or steps > 0:
            name = self._draw(rng)
            yield Batch(name, next(passes[name]))
            steps = None if steps is None else steps - 1

    def _draw(self, rng: random.Random) -> str:
        return rng.choices(self._sources, self._weights)[0].name

    def _dealt(self, source: PairSource) -> Iterator[tuple[int, ...]]:
        if source.name not in self._groups:
            self._groups[source.name] = _Groups.of(source, self.batch_size)
        groups = self._groups[source.name]
        epoch = 0
        while True:
            order = list(range(len(groups)))
            random.Random(f"mixture/{self.seed}/{source.name}/{epoch}").shuffle(order)
            yield from _deal(groups, order, self.batch_size)
            epoch += 1


@dataclass(frozen=True, slots=True)
class _Groups:
    """The groups of a data set: positions in a row, and where each group ends."""

    positions: array[int]
    starts: array[int]

    def __len__(self) -> int:
        return len(self.starts) - 1

    def __getitem__(self, group: int) -> array[int]:
        return self.positions[self.starts[group] : self.starts[group + 1]]

    @classmethod
    def of(cls, source: PairSource, most: int) -> _Groups:
        numbers: dict[str, int] = {}
        group_of = array("Q", (numbers.setdefault(source.group(i), len(numbers)) for i in range(len(source))))
        numbers.clear()
        positions = array("Q", sorted(range(len(group_of)), key=group_of.__getitem__))
        starts, last = array("Q"), None
        for place, position in enumerate(positions):
            if group_of[position] != last or place - starts[-1] == most:
                starts.append(place)
                last = group_of[position]
        starts.append(len(positions))
        return cls(positions, starts)


def _deal(groups: _Groups, order: Sequence[int], most: int) -> Iterator[tuple[int, ...]]:
    """Yield every group once, in batches; one that does not fit comes in a later batch."""
    waiting: list[int] = []
    rest = iter(order)
    while True:
        chosen, waiting, room = _take(groups, waiting, most)
        while room and len(waiting) < _LOOK_AHEAD and (group := next(rest, None)) is not None:
            fits = len(groups[group]) <= room
            (chosen if fits else waiting).append(group)
            room -= len(groups[group]) if fits else 0
        if not chosen:
            return
        if room and not waiting:
            fresh = set(chosen)
            again, _, _ = _take(groups, [group for group in order if group not in fresh], room)
            chosen += again
        yield tuple(position for group in chosen for position in groups[group])


def _take(groups: _Groups, candidates: Sequence[int], room: int) -> tuple[list[int], list[int], int]:
    """Of the candidates those that fit, in order; the others; and how many more pairs would fit."""
    chosen: list[int] = []
    others: list[int] = []
    for group in candidates:
        fits = len(groups[group]) <= room
        (chosen if fits else others).append(group)
        room -= len(groups[group]) if fits else 0
    return chosen, others, room
