"""Score a task from its vectors: similarities of each query, judged by the task's metrics."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Literal, TypeAlias

import numpy as np
import numpy.typing as npt

from ume_eval.metrics import Floats, judge, measure
from ume_eval.samples import EvalTask

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

    Args:
        task: The task.
        queries: Unit vectors, shape (queries, dim); NaN rows for missing vectors.
        candidates: Likewise, shape (candidates, dim).

    Returns:
        One row per query; NaN where a vector is missing.
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
