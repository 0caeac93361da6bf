"""Some pairs of a data set: those worth learning from, or those whose media decode."""

from __future__ import annotations

from dataclasses import dataclass

from ume_retrieval.errors import Failure
from ume_training.data.sources import LoadedPair, PairSource
from ume_training.data.validation import PairError


@dataclass(frozen=True, slots=True)
class ChosenPairs:
    """Some pairs of a data set, as a data set of its own.

    Attributes:
        source: The whole.
        chosen: Positions in it.
    """

    source: PairSource
    chosen: tuple[int, ...]

    @property
    def name(self) -> str:
        """Of the data set."""
        return self.source.name

    def __len__(self) -> int:
        return len(self.chosen)

    def __getitem__(self, index: int) -> LoadedPair:
        return self.source[self.chosen[index]]

    def group(self, index: int) -> str:
        """As in the whole."""
        return self.source.group(self.chosen[index])

    def also_answers(self, query: int, positive: int) -> bool:
        """As in the whole."""
        return self.source.also_answers(self.chosen[query], self.chosen[positive])


def readable_pairs(source: PairSource) -> tuple[ChosenPairs, tuple[Failure, ...]]:
    """The pairs of a data set that can be loaded, and why the others cannot. Decodes every medium once.

    EG-RL shares the rows of a step out before it reads them, so it has to know beforehand.
    """
    chosen: list[int] = []
    failures: list[Failure] = []
    for index in range(len(source)):
        try:
            source[index]
        except PairError as error:
            failures.append(error.failure())
        else:
            chosen.append(index)
    return ChosenPairs(source, tuple(chosen)), tuple(failures)
