"""Which rollouts a step is made of: whole pairs of one data set, both sides together, each G times."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from ume_training.data.sources import PairSource


@dataclass(frozen=True, slots=True)
class PairRows:
    """Rows of a list of data sets: row 2i is the query of the i-th pair of them all, row 2i + 1 its positive.

    Attributes:
        sources: The data sets.
    """

    sources: tuple[PairSource, ...]

    def __len__(self) -> int:
        return 2 * sum(len(source) for source in self.sources)

    def locate(self, row: int) -> tuple[PairSource, int]:
        """Data set of a row, and the pair's position in it."""
        position = row // 2
        for source in self.sources:
            if position < len(source):
                return source, position
            position -= len(source)
        raise IndexError(row)

    def also_answers(self, query_pair: int, positive_pair: int) -> bool:
        """Return whether the positive of one pair answers the query of another of the same data set."""
        source, query = self.locate(2 * query_pair)
        other, positive = self.locate(2 * positive_pair)
        return source is other and source.also_answers(query, positive)


def spread_rows(pairs: int, count: int) -> list[int]:
    """Return rows from first to last through the data, queries and positives in turn.

    Args:
        pairs: Pairs of the data.
        count: How many rows, at most two a pair.

    Example:
        >>> spread_rows(pairs=6, count=4), spread_rows(pairs=2, count=4)
        ([0, 3, 6, 9], [0, 1, 2, 3])
    """
    return [2 * (index * pairs // count) + index % 2 for index in range(count)]


def plan_steps(sources: Sequence[PairSource], pairs: int, seed: int) -> list[list[int]]:
    """Return the pairs of each step of an epoch: all from one data set, look-alikes of one group together.

    Pairs are numbered through all data sets, as in `PairRows`. Groups are shuffled, then laid end to end and cut into
    steps, so that a group is divided only where a step ends. What does not fill a step is left for another epoch's
    shuffle.

    Args:
        sources: The data sets.
        pairs: Pairs of a step.
        seed: Of the shuffles; pass another one for each epoch.

    Example:
        >>> class Six:
        ...     name = "six"
        ...     def __len__(self): return 6
        ...     def group(self, index): return str(index // 2)
        >>> [sorted(step) for step in sorted(plan_steps([Six()], 2, seed=1))]
        [[0, 1], [2, 3], [4, 5]]
    """
    rng = random.Random(f"egrl/{seed}")
    steps: list[list[int]] = []
    first = 0
    for source in sources:
        groups: dict[str, list[int]] = {}
        for index in range(len(source)):
            groups.setdefault(source.group(index), []).append(first + index)
        order = list(groups.values())
        rng.shuffle(order)
        line = [pair for group in order for pair in group]
        steps += [line[start : start + pairs] for start in range(0, len(line) - pairs + 1, pairs)]
        first += len(source)
    rng.shuffle(steps)
    return steps


class RolloutOrder:
    """A sampler for TRL: the rows of each step, each repeated G times, and the step as often as TRL reads it.

    Args:
        sources: The data sets.
        pairs: Pairs of a step, over all processes.
        rollouts: G.
        reads: How often TRL reads one step's rows (once for each of its micro-batches).
        seed: Of the order.
    """

    def __init__(self, sources: Sequence[PairSource], *, pairs: int, rollouts: int, reads: int, seed: int) -> None:
        self.sources, self.pairs, self.rollouts, self.reads, self.seed = sources, pairs, rollouts, reads, seed
        self.epoch = 0
        self._steps_an_epoch = len(plan_steps(sources, pairs, seed))

    def set_epoch(self, epoch: int) -> None:
        """Another epoch has another order."""
        self.epoch = epoch

    def __len__(self) -> int:
        return self._steps_an_epoch * 2 * self.pairs * self.rollouts * self.reads

    def __iter__(self) -> Iterator[int]:
        for step in plan_steps(self.sources, self.pairs, self.seed + 7919 * self.epoch):
            for _ in range(self.reads):
                for pair in step:
                    for row in (2 * pair, 2 * pair + 1):
                        for _ in range(self.rollouts):
                            yield row
