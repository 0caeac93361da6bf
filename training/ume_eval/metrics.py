"""Compute ranking metrics per query, as the published evaluators define them (TIGER-AI-Lab/VLM2Vec 6e1e1d4).

The published evaluator ranks names and looks them up among the labels. Here a query is a row of scores and a row of
gains, so that no name counts twice and no gain lands on another label. `docs/evaluation.md` lists the differences.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Literal, TypeAlias

import numpy as np
import numpy.typing as npt

from ume_eval.samples import EvalTask
from ume_retrieval.errors import InputError

Floats: TypeAlias = npt.NDArray[np.float64]

Ties: TypeAlias = Literal["against", "listed"]
"""How to order equal scores: relevant candidates last, or in the listed order.

The published evaluator leaves ties to numpy's default sort, whose order of ties differs between processors. Its image
tasks list the answer first, so an Embedder that gives every item the same vector scores 100 % where the sort keeps the
list. "against" is therefore the default; "listed" is the result of a stable sort.
"""


@dataclass(frozen=True, slots=True, eq=False)
class Ranked:
    """The judged ranking of a query: gains by rank, 0 if irrelevant; and all gains > 0, largest first (`ideal`)."""

    gains: Floats
    ideal: Floats


def judge(
    scores: npt.ArrayLike, gains: npt.ArrayLike, *, missing: Sequence[float] = (), ties: Ties = "against"
) -> Ranked:
    """Rank a query's candidates by score.

    Args:
        scores: Score of each candidate; NaN for a missing vector, whose candidate is never found. May be empty.
        gains: Relevance of each candidate, >= 0; 0 if irrelevant.
        missing: Gains of relevant items that are not among the candidates, such as unreadable files.
        ties: How to order equal scores.

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
        raise InputError(f"scores of shape {row.shape} for gains of shape {gain.shape}", hint="give one score per gain")
    if not np.isfinite(everything).all() or (everything < 0).any():
        raise InputError("a gain is negative or not finite", hint="use 0 for irrelevant candidates")
    found = np.flatnonzero(~np.isnan(row))
    order = np.lexsort((gain[found] if ties == "against" else np.arange(len(found)), -row[found]))
    ideal = -np.sort(-everything[everything > 0])
    return Ranked(gain[found][order], ideal)


def hit(ranked: Ranked, k: int) -> float:
    """Return 1.0 if one of the first k is relevant, else 0.0.

    Example:
        >>> hit(judge([0.9, 0.8], [0, 1]), 1), hit(judge([0.9, 0.8], [0, 1]), 2)
        (0.0, 1.0)
    """
    return float((ranked.gains[:k] > 0).any())


def recall(ranked: Ranked, k: int) -> float:
    """Return the share of relevant items among the first k, 0..1; 0.0 without relevant items.

    The published code returns 1.0 without relevant items, which rewards a query that cannot be judged.

    Example:
        >>> recall(judge([0.9, 0.8, 0.7], [1, 0, 1]), 2)
        0.5
    """
    return float((ranked.gains[:k] > 0).sum() / len(ranked.ideal)) if len(ranked.ideal) else 0.0


def precision(ranked: Ranked, k: int) -> float:
    """Return the share of the first k places that are relevant, 0..1, even if fewer candidates are ranked."""
    return float((ranked.gains[:k] > 0).sum() / k)


def ndcg(ranked: Ranked, k: int) -> float:
    """Return the normalised discounted cumulative gain of the first k, 0..1 (Järvelin and Kekäläinen, 2002).

    Gains are linear, as MMEB-V2 reports them; see `ndcg_exponential` for 2^g - 1, which weighs high gains more.

    Example:
        >>> round(ndcg(judge([0.9, 0.8], [0, 1]), 5), 4)
        0.6309
    """
    return _ndcg(ranked.gains[:k], ranked.ideal[:k])


def ndcg_exponential(ranked: Ranked, k: int) -> float:
    """Return `ndcg` with gains 2^g - 1."""
    return _ndcg(np.exp2(ranked.gains[:k]) - 1, np.exp2(ranked.ideal[:k]) - 1)


def _ndcg(gains: Floats, ideal: Floats) -> float:
    return float(_dcg(gains) / best) if (best := _dcg(ideal)) > 0 else 0.0


def _dcg(gains: Floats) -> float:
    return float((gains / np.log2(np.arange(len(gains)) + 2)).sum())


def average_precision(ranked: Ranked, k: int | None = None) -> float:
    """Return the mean precision at the places of relevant items, 0..1; its mean over queries is mAP.

    Args:
        ranked: The judged query.
        k: Count the first k places only and divide by min(relevant, k), as the published code does; None counts all
            places and divides by the number of relevant items.

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
    """Return 1 / place of the first relevant item, 0.0 if it is not among the first k."""
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
"""Metrics by the name before the `@`."""

_NAME = re.compile(r"(\w+)@([1-9]\d*)")


def measure(name: str, ranked: Ranked) -> float:
    """Compute a metric by name, such as "hit@1", "ndcg@5" or "map@10".

    Raises:
        InputError: When the metric is unknown.

    Example:
        >>> measure("ndcg@5", judge([0.9, 0.8], [1, 0]))
        1.0
    """
    matched = _NAME.fullmatch(name)
    if matched is None or matched[1] not in METRICS:
        raise InputError(f"unknown metric {name!r}", hint=f"use one of {', '.join(METRICS)}, as in hit@1")
    return METRICS[matched[1]](ranked, int(matched[2]))


Mode: TypeAlias = Literal["direct", "reasoned", "fused"]
"""Without T-CoTs; with T-CoTs on both sides; by the mean of both similarities."""

REPORTED: Final = ("hit@1", "hit@5", "hit@10", "recall@5", "recall@10", "ndcg@5", "ndcg@10", "map@10", "mrr@10")
"""Metrics that are reported in addition to the main one."""

DECIMALS: Final = 6
"""Similarities are rounded to float32 precision, so that equal vectors tie at any position of a matrix."""

BLOCK: Final = 8192
"""Candidates per matrix product, so that a large corpus is never held in memory twice."""

Rows: TypeAlias = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True, eq=False)
class Judged:
    """Scores of one mode on a task.

    Attributes:
        main: Main metric of each query that was read, 0..1.
        metrics: Mean of each metric in percent, lost queries counted as 0.
        gap: Mean difference of a query's two best similarities; NaN if no query has two.
        ties: Queries whose main metric would be higher if ties kept the listed order.
    """

    main: Floats
    metrics: Mapping[str, float]
    gap: float
    ties: int


def similarities(task: EvalTask, queries: Rows, candidates: Rows) -> list[Floats]:
    """Return each query's cosines to its own candidates in their order, or to all candidates of the task.

    Vectors are unit rows, shape (n, dim); NaN rows for missing vectors give NaN similarities.
    """
    place = {candidate.key: index for index, candidate in enumerate(task.candidates)}
    against_all = [query.among is None for query in task.queries]
    common = iter(_cosines(queries[against_all], candidates) if any(against_all) else ())
    rows: list[Floats] = []
    for query, vector in zip(task.queries, queries, strict=True):
        if query.among is None:
            rows.append(next(common))
        else:
            own = [place[key] for key in query.among if key in place]
            rows.append(_cosines(vector[None], candidates[own])[0])
    return rows


def _cosines(queries: Rows, candidates: Rows) -> Floats:
    """Return rounded products, shape (queries, candidates).

    Products in float64: those in float32 depend on the position of a row by more than the rounding hides.
    """
    asked = queries.astype(np.float64)
    found = np.empty((len(queries), len(candidates)))
    for start in range(0, len(candidates), BLOCK):
        found[:, start : start + BLOCK] = asked @ candidates[start : start + BLOCK].astype(np.float64).T
    return np.round(found, DECIMALS, out=found)


def gains(task: EvalTask) -> list[tuple[Floats, tuple[float, ...]]]:
    """Return each query's gain per candidate, and the gains of answers without a candidate."""
    everything = [candidate.key for candidate in task.candidates]
    known = set(everything)
    position = {key: index for index, key in enumerate(everything)}
    found: list[tuple[Floats, tuple[float, ...]]] = []
    for query in task.queries:
        if query.among is None:
            row = np.zeros(len(everything))
            for key, gain in query.answers.items():
                if key in position:
                    row[position[key]] = gain
            present = known
        else:
            own = [key for key in query.among if key in known]
            row, present = np.array([query.answers.get(key, 0.0) for key in own], dtype=np.float64), set(own)
        found.append((row, tuple(gain for key, gain in query.answers.items() if key not in present)))
    return found


def judge_all(task: EvalTask, rows: Sequence[Floats]) -> Judged:
    """Judge every query by its row of similarities."""
    name = task.task.metric
    main, listed, gaps = [], [], []
    sums = dict.fromkeys((name, *REPORTED), 0.0)
    for row, (gain, absent) in zip(rows, gains(task), strict=True):
        ranked = judge(row, gain, missing=absent)
        for metric in sums:
            sums[metric] += measure(metric, ranked)
        main.append(measure(name, ranked))
        listed.append(measure(name, judge(row, gain, missing=absent, ties="listed")))
        best = np.sort(row[~np.isnan(row)])[-2:]
        if len(best) == 2:
            gaps.append(float(best[1] - best[0]))
    asked = max(1, len(task.queries) + task.lost)
    scores = np.array(main, dtype=np.float64)
    return Judged(
        main=scores,
        metrics={metric: 100 * total / asked for metric, total in sums.items()},
        gap=float(np.mean(gaps)) if gaps else float("nan"),
        ties=int((np.array(listed, dtype=np.float64) > scores + 1e-12).sum()),
    )


def paired(better: Floats, worse: Floats) -> tuple[float, float]:
    """Return the mean difference of two judgements of the same queries, in percent, and its standard error.

    Example:
        >>> paired(np.array([1.0, 1.0, 0.0, 1.0]), np.array([0.0, 1.0, 0.0, 1.0]))
        (25.0, 25.0)
    """
    if not len(better):
        return 0.0, 0.0
    difference = 100 * (better - worse)
    error = float(difference.std(ddof=1) / np.sqrt(len(difference))) if len(difference) > 1 else 0.0
    return float(difference.mean()), error
