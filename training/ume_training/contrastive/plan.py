"""Which pairs meet in which step, fixed by data and seed before training starts."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ume_retrieval.errors import TrainingError
from ume_training.contrastive.settings import ContrastiveSettings

if TYPE_CHECKING:
    from ume_training.data.sources import PairSource


@dataclass(frozen=True, slots=True)
class SubBatch:
    """Pairs that are each other's negatives.

    Attributes:
        source: Position of their data set.
        rows: Positions of the pairs in the data set, at most `sub_batch`.
        with_trace: Whether the inputs carry their T-CoTs.
    """

    source: int
    rows: tuple[int, ...]
    with_trace: bool


@dataclass(frozen=True, slots=True)
class StepPlan:
    """A whole run.

    Attributes:
        steps: The sub-batches of each optimizer step.
    """

    steps: tuple[tuple[SubBatch, ...], ...]


def plan_run(
    sources: Sequence[PairSource], settings: ContrastiveSettings, weights: Mapping[str, float] | None = None
) -> StepPlan:
    """Lay out every step of a run.

    The order of the batches is the mixture's (`ume_training.data.mixture`): each from one data set, groups whole.

    Args:
        sources: The data sets, names distinct.
        settings: Sizes, length, seed and share of T-CoTs.
        weights: Passes through a data set for each pass through the others, by name: 1 where it is not named, 0 leaves
            it out. They count in the length of an epoch too.

    Raises:
        InputError: When there is nothing to draw from, or a weight names no data set.
        TrainingError: When no two pairs come together, so that none has a negative.

    Example:
        >>> from ume_training.shapes.pairs import ShapesSource
        >>> source = ShapesSource("text_to_image", "default", seed=0, group_size=2, count=8)
        >>> settings = ContrastiveSettings(embedder="e", batch=4, sub_batch=4, epochs=1)
        >>> [[len(part.rows) for part in step] for step in plan_run([source], settings).steps]
        [[4], [4]]
    """
    from ume_training.data.mixture import Mixture

    names = [source.name for source in sources]
    a_step = settings.batch // settings.sub_batch
    passes = dict(weights or {})
    # A name that no source has stays in, for the mixture to refuse.
    shares = passes | {source.name: len(source) * passes.get(source.name, 1.0) for source in sources}
    mixture = Mixture(sources, shares, settings.sub_batch, settings.seed)
    drawn = mixture.batches(a_step * steps_of(settings, sum(shares.values())))
    parts = [
        SubBatch(
            names.index(batch.dataset),
            batch.positions,
            random.Random(f"{settings.seed}/trace/{number}").random() < settings.trace_share,
        )
        for number, batch in enumerate(drawn)
    ]
    if all(len(part.rows) < 2 for part in parts):
        raise TrainingError(
            "no two pairs come together in a sub-batch, so nothing can be learned",
            hint="give a data set at least two pairs",
        )
    return StepPlan(tuple(tuple(parts[start : start + a_step]) for start in range(0, len(parts), a_step)))


def steps_of(settings: ContrastiveSettings, pairs: float) -> int:
    """Return how many optimizer steps a run takes on that many pairs, each counted as often as a pass reads it.

    Example:
        >>> steps_of(ContrastiveSettings(embedder="e"), 1_828_341)
        7142
    """
    return settings.steps or max(1, round(settings.epochs * pairs / settings.batch))
