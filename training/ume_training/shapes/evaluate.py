"""Direct against reasoned retrieval on a Shapes benchmark: hit@1 by task."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from ume_retrieval import ReasoningEmbedder, Usage
from ume_training.shapes.benchmark import TaskSet

Similarities = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Scores:
    """Shares of queries whose first hit is right, 0..1.

    Attributes:
        direct: Without reasoning on either side.
        reasoned: With reasoning on both sides.
        fused: By the sum of both similarities.
    """

    direct: float
    reasoned: float
    fused: float


@dataclass(frozen=True, slots=True)
class TaskScores:
    """One task's scores.

    Attributes:
        name: Of the task.
        group: The MMEB-V2 group that it represents.
        queries: How many were asked.
        candidates: How many each was asked against.
        scores: The shares.
    """

    name: str
    group: str
    queries: int
    candidates: int
    scores: Scores


@dataclass(frozen=True, slots=True)
class Report:
    """Scores of every task, their mean, and their cost.

    Attributes:
        tasks: In the benchmark's order.
        mean: Over tasks, each counting the same, as in MMEB-V2.
        usage: Of all encodings together.
        failed: Items without a vector, for want of a usable T-CoT: as queries they miss, as candidates they are never
            found.
    """

    tasks: tuple[TaskScores, ...]
    mean: Scores
    usage: Usage
    failed: int = 0

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON form that `ume eval shapes --json` prints."""
        return {
            "tasks": {
                task.name: {
                    "group": task.group,
                    "queries": task.queries,
                    "candidates": task.candidates,
                    **_modes(task.scores),
                }
                for task in self.tasks
            },
            **_modes(self.mean),
            "reasoner_calls": self.usage.reasoner_calls,
            "completion_tokens": self.usage.completion_tokens,
            "failed": self.failed,
        }


def evaluate(
    embedder: ReasoningEmbedder,
    benchmark: Sequence[TaskSet],
    on_task: Callable[[str], None] | None = None,
) -> Report:
    """Run every task with and without reasoning.

    Args:
        embedder: Reasoner and Embedder.
        benchmark: From `build_benchmark`.
        on_task: Called with each task's name before it runs.
    """
    tasks, usage, failed = [], Usage(), 0
    for task in benchmark:
        if on_task:
            on_task(task.name)
        similarities = {}
        for mode in ("never", "always"):
            queries = embedder.encode_query(
                [query.item for query in task.queries],
                reasoning=mode,
                target=task.queries[0].target,
                return_traces=True,
                strict=False,
            )
            corpus = embedder.encode_corpus(
                [candidate.item for candidate in task.candidates], reasoning=mode, return_traces=True, strict=False
            )
            similarities[mode] = embedder.similarity(queries.vectors, corpus.vectors)
            usage = usage + queries.usage + corpus.usage
            failed += len(queries.failures) + len(corpus.failures)
        relevant = [query.relevant for query in task.queries]
        scores = Scores(
            direct=hit_at_1(similarities["never"], relevant),
            reasoned=hit_at_1(similarities["always"], relevant),
            fused=hit_at_1(similarities["never"] + similarities["always"], relevant),
        )
        tasks.append(TaskScores(task.name, task.group, len(task.queries), len(task.candidates), scores))
    return Report(tuple(tasks), mean_scores([task.scores for task in tasks]), usage, failed)


def hit_at_1(similarities: Similarities, relevant: Sequence[Collection[int]]) -> float:
    """Return the share of queries whose nearest candidate answers them; a tie goes to the first.

    Args:
        similarities: Shape (queries, candidates); NaN where a vector is missing, which is never a hit.
        relevant: Positions of the candidates that answer each query, in row order.
    """
    known = np.where(np.isnan(similarities), -np.inf, similarities)
    best: list[int] = known.argmax(axis=1).tolist()
    found: list[bool] = [bool(np.isfinite(row).any()) for row in known]
    hits = (some and top in right for top, some, right in zip(best, found, relevant, strict=True))
    return sum(hits) / len(relevant)


def mean_scores(scores: Sequence[Scores]) -> Scores:
    """Return the mean of each mode.

    Example:
        >>> mean_scores([Scores(0.0, 1.0, 0.5), Scores(1.0, 1.0, 0.5)])
        Scores(direct=0.5, reasoned=1.0, fused=0.5)
    """
    count = len(scores)
    return Scores(
        direct=sum(score.direct for score in scores) / count,
        reasoned=sum(score.reasoned for score in scores) / count,
        fused=sum(score.fused for score in scores) / count,
    )


def _modes(scores: Scores) -> dict[str, dict[str, float]]:
    return {name: {"hit@1": round(getattr(scores, name), 4)} for name in ("direct", "reasoned", "fused")}
