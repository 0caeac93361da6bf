"""Rewards of a batch of rollouts over all processes: gathered, computed on each process, and sliced to its part."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from ume_retrieval.engines.base import Embedder
from ume_retrieval.inputs import Side
from ume_retrieval.tcot.grammar import parse
from ume_training.egrl.process import Discriminator, build_question, canonical, process_rewards
from ume_training.egrl.rewards import Outcome, format_reward, outcome_rewards
from ume_training.egrl.rollouts import Prompted, embed_rollouts
from ume_training.egrl.settings import EgrlSettings

Gather = Callable[[list[Any]], list[Any]]
"""Lists of all processes end to end, in the order of their ranks."""

Part = Literal["format", "process", "outcome"]


@dataclass(frozen=True, slots=True)
class GatheredRollout:
    """A rollout as it is gathered over processes.

    Attributes:
        side: Query or corpus.
        pair: Number of the pair.
        text: The reply in canonical form, None when there is nothing to read.
        vector: Its unit vector, NaN without one.
    """

    side: Side
    pair: int
    text: str | None
    vector: npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class RolloutScores:
    """Rewards of the rollouts of this process, and figures over all of them.

    Attributes:
        format: One reward a rollout.
        process: One reward a rollout.
        outcome: One reward a rollout.
        figures: Means for the log.
    """

    format: list[float]
    process: list[float]
    outcome: list[float]
    figures: dict[str, float]

    def total(self, settings: EgrlSettings) -> list[float]:
        """Return the weighted sum of each rollout."""
        weights = settings.weights
        return [
            weights.format * f + weights.process * p + weights.outcome * o
            for f, p, o in zip(self.format, self.process, self.outcome, strict=True)
        ]


@dataclass(frozen=True, slots=True)
class Scorer:
    """RolloutScores rollouts.

    Attributes:
        settings: Weights, k, temperature.
        embedder: The frozen Embedder.
        discriminator: Who answers the process reward's questions.
        also_answers: Whether the positive of one pair answers the query of another, by pair number.
        gather: Puts the lists of all processes together.
        rank: Which part of the gathered list is ours.
    """

    settings: EgrlSettings
    embedder: Embedder
    discriminator: Discriminator
    also_answers: Callable[[int, int], bool]
    gather: Gather = list
    rank: int = 0

    def score(self, prompted: Sequence[Prompted], texts: Sequence[str], step: int) -> RolloutScores:
        """Score the rollouts of this process among those of all; every process brings equally many.

        Args:
            prompted: One item a rollout.
            texts: One reply a rollout.
            step: Number of the step, for the shuffles.
        """
        vectors = embed_rollouts(self.embedder, prompted, texts)
        rows: list[GatheredRollout] = self.gather(
            [
                GatheredRollout(one.side, one.pair, canonical(text, images=one.images, frames=one.frames), vector)
                for one, text, vector in zip(prompted, texts, vectors, strict=True)
            ]
        )
        own = range(self.rank * len(texts), (self.rank + 1) * len(texts))
        exempt = self._exempt(rows)
        outcome = self._outcome(rows, exempt)
        process = self._process(rows, exempt, own, step) if self.settings.weights.process else [0.0] * len(own)
        form = [
            format_reward(text, one.modality, images=one.images, frames=one.frames)
            for one, text in zip(prompted, texts, strict=True)
        ]
        figures = {
            "accuracy": float(outcome.accuracy.mean()),
            "margin": float(outcome.margin.mean()),
            "unusable": float(np.mean([row.text is None for row in rows])),
            **_evidence(prompted, texts),
        }
        return RolloutScores(form, process, [float(outcome.rewards[i]) for i in own], figures)

    def _exempt(self, rows: Sequence[GatheredRollout]) -> npt.NDArray[np.bool_]:
        """Mask rows that are not negatives of each other, because one answers the other's query too."""
        numbers = sorted({row.pair for row in rows})
        place = {number: index for index, number in enumerate(numbers)}
        answers = np.array([[a != b and self.also_answers(a, b) for b in numbers] for a in numbers], dtype=bool)
        where = np.array([place[row.pair] for row in rows])
        is_query = np.array([row.side == "query" for row in rows])
        by_row = answers[where][:, where]
        exempt: npt.NDArray[np.bool_] = np.where(is_query[:, None], by_row, by_row.T)
        return exempt

    def _outcome(self, rows: Sequence[GatheredRollout], exempt: npt.NDArray[np.bool_]) -> Outcome:
        return outcome_rewards(
            np.stack([row.vector for row in rows]),
            [row.side for row in rows],
            [row.pair for row in rows],
            exempt=exempt,
            top=self.settings.top,
            temperature=self.settings.negative_temperature,
            weighted=self.settings.weighted_negatives,
        )

    def _process(
        self, rows: Sequence[GatheredRollout], exempt: npt.NDArray[np.bool_], own: range, step: int
    ) -> list[float]:
        matrix = np.nan_to_num(np.stack([row.vector for row in rows]))
        similarity = matrix @ matrix.T
        texts, sides, pairs = [r.text for r in rows], [r.side for r in rows], [r.pair for r in rows]
        questions = [
            build_question(
                row,
                texts=texts,
                sides=sides,
                pairs=pairs,
                similarity=similarity,
                exempt=exempt,
                hard_negatives=self.settings.hard_negatives,
                seed=f"{self.settings.seed}/{step}",
            )
            for row in own
        ]
        return process_rewards(questions, self.discriminator)


def _evidence(prompted: Sequence[Prompted], texts: Sequence[str]) -> dict[str, float]:
    """Return the mean number of cues that the replies of this process point with, by kind, and words written."""
    read = [parse(t, images=one.images, frames=one.frames) for one, t in zip(prompted, texts, strict=True)]
    pointing = {
        "evidence/keywords": ("text", "keywords"),
        "evidence/boxes": ("image", "boxes"),
        "evidence/key_frames": ("video", "key_frames"),
    }
    counts = {
        name: [len(getattr(tcot, cue)) for tcot, one in zip(read, prompted, strict=True) if one.modality == modality]
        for name, (modality, cue) in pointing.items()
    }
    counts["words"] = [len(text.split()) for text in texts]
    return {name: float(np.mean(values)) for name, values in counts.items() if values}
