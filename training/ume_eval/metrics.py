"""Ranking metrics, one query at a time, as the published evaluators define them (TIGER-AI-Lab/VLM2Vec 6e1e1d4).

The published evaluator ranks names and then looks them up among the labels. Here a query is a row of scores beside a
row of gains, so that no name can be counted twice and a gain cannot land on another label. Where the two differ is said
in `docs/evaluation.md` and held by tests.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, Literal, TypeAlias

import numpy as np
import numpy.typing as npt

from ume_retrieval.errors import InputError

Floats: TypeAlias = npt.NDArray[np.float64]

Ties: TypeAlias = Literal["against", "listed"]
"""Equal scores: what answers comes last, or candidates stay in the order in which they are listed.

The published evaluator leaves ties to numpy's default sort, whose order of ties differs between processors. Its image
tasks list the answer first, and where all scores are equal that sort keeps the list as it is: an Embedder that gives
every item one vector scores 100 % there. "against" is therefore the default; "listed" is what a stable sort would do.
"""


@dataclass(frozen=True, slots=True, eq=False)
class Ranked:
    """One query's answer, judged.

    Attributes:
        gains: Gain of each candidate that was found, best score first; 0 for what does not answer.
        ideal: Gains > 0 of everything that answers, largest first, whether it was found or not.
    """

    gains: Floats
    ideal: Floats


def judge(
    scores: npt.ArrayLike, gains: npt.ArrayLike, *, missing: Sequence[float] = (), ties: Ties = "against"
) -> Ranked:
    """Rank a query's candidates by score.

    Args:
        scores: One a candidate, any order; NaN where there is no vector: such a candidate is never found. May be empty.
        gains: Relevance of each candidate, >= 0; 0 means that it does not answer.
        missing: Gains of what answers but is not among the candidates (a file that could not be read).
        ties: What happens to equal scores.

    Raises:
        InputError: When scores and gains differ in length, or a gain is negative or not finite.

    Example:
        >>> judge([0.1, 0.9, 0.9], [0, 1, 0]).gains
        array([0., 1., 0.])
        >>> judge([0.1, 0.9, 0.9], [0, 1, 0], ties="listed").gains
        array([1., 0., 0.])
    """
    row, gain = np.asarray(scores, dtype=np.float64), np.asarray(gains, dtype=np.float64)
    everything = np.concatenate([gain.reshape(-1), np.asarray(missing, dtype=np.float64).reshape(-1)])
    if row.shape != gain.shape or row.ndim != 1:
        raise InputError(f"scores of shape {row.shape} for gains of shape {gain.shape}", hint="give one score a gain")
    if not np.isfinite(everything).all() or (everything < 0).any():
        raise InputError("a gain is negative or not finite", hint="use 0 for what does not answer")
    found = np.flatnonzero(~np.isnan(row))
    order = np.lexsort((gain[found] if ties == "against" else np.arange(len(found)), -row[found]))
    ideal = -np.sort(-everything[everything > 0])
    return Ranked(gain[found][order], ideal)


def hit(ranked: Ranked, k: int) -> float:
    """1.0 when one of the first k answers, else 0.0.

    Example:
        >>> hit(judge([0.9, 0.8], [0, 1]), 1), hit(judge([0.9, 0.8], [0, 1]), 2)
        (0.0, 1.0)
    """
    return float((ranked.gains[:k] > 0).any())


def recall(ranked: Ranked, k: int) -> float:
    """Share of what answers that is among the first k, 0..1; 0.0 where nothing answers.

    The published code says 1.0 where nothing answers, which rewards a query that cannot be judged.

    Example:
        >>> recall(judge([0.9, 0.8, 0.7], [1, 0, 1]), 2)
        0.5
    """
    return float((ranked.gains[:k] > 0).sum() / len(ranked.ideal)) if len(ranked.ideal) else 0.0


def precision(ranked: Ranked, k: int) -> float:
    """Share of the first k places that answer, 0..1, also when fewer than k candidates were found."""
    return float((ranked.gains[:k] > 0).sum() / k)


def ndcg(ranked: Ranked, k: int) -> float:
    """Normalised discounted cumulative gain of the first k with linear gain, 0..1 (Järvelin and Kekäläinen, 2002).

    MMEB-V2 reports linear gain. Exponential gain (2^g - 1) agrees where all gains are 0 or 1; elsewhere it weighs high
    gains more, see `ndcg_exponential`.

    Example:
        >>> round(ndcg(judge([0.9, 0.8], [0, 1]), 5), 4)
        0.6309
    """
    return _ndcg(ranked.gains[:k], ranked.ideal[:k])


def ndcg_exponential(ranked: Ranked, k: int) -> float:
    """`ndcg` with the gain 2^g - 1."""
    return _ndcg(np.exp2(ranked.gains[:k]) - 1, np.exp2(ranked.ideal[:k]) - 1)


def _ndcg(gains: Floats, ideal: Floats) -> float:
    return float(_dcg(gains) / best) if (best := _dcg(ideal)) > 0 else 0.0


def _dcg(gains: Floats) -> float:
    return float((gains / np.log2(np.arange(len(gains)) + 2)).sum())


def average_precision(ranked: Ranked, k: int | None = None) -> float:
    """Mean, over what answers, of the precision at its place, 0..1; its mean over queries is mAP.

    Args:
        ranked: The judged query.
        k: Count the first k places only, and divide by min(answers, k) as the published code does; None takes all
            places and divides by the number of answers.

    Example:
        >>> round(average_precision(judge([0.9, 0.8, 0.7], [1, 0, 1])), 4)
        0.8333
    """
    answers = ranked.gains[:k] > 0
    most = len(ranked.ideal) if k is None else min(len(ranked.ideal), k)
    if not most:
        return 0.0
    places = np.flatnonzero(answers) + 1
    return float((np.arange(1, len(places) + 1) / places).sum() / most)


def reciprocal_rank(ranked: Ranked, k: int) -> float:
    """1 / place of the first that answers, 0.0 when it is not among the first k."""
    places = np.flatnonzero(ranked.gains[:k] > 0)
    return float(1 / (places[0] + 1)) if len(places) else 0.0


METRICS: Final[dict[str, Callable[[Ranked, int], float]]] = {
    "hit": hit,
    "recall": recall,
    "precision": precision,
    "ndcg": ndcg,
    "ndcg_exponential": ndcg_exponential,
    "map": average_precision,
    "mrr": reciprocal_rank,
}
"""Names that go before an `@`."""

_NAME = re.compile(r"(\w+)@([1-9]\d*)")


def measure(name: str, ranked: Ranked) -> float:
    """A metric by name, such as "hit@1", "ndcg@5" or "map@10".

    Raises:
        InputError: When there is no such metric.

    Example:
        >>> measure("ndcg@5", judge([0.9, 0.8], [1, 0]))
        1.0
    """
    matched = _NAME.fullmatch(name)
    if matched is None or matched[1] not in METRICS:
        raise InputError(f"there is no metric {name!r}", hint=f"use one of {', '.join(METRICS)}, as in hit@1")
    return METRICS[matched[1]](ranked, int(matched[2]))
