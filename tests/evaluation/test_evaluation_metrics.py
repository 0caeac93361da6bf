"""Metrics against a plain reading of the published definitions (TIGER-AI-Lab/VLM2Vec 6e1e1d4, src/utils/eval_utils)."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ume_eval.metrics import average_precision, judge, measure
from ume_retrieval import InputError

KS = (1, 5, 10)


class Published:
    """What the published evaluator computes from a ranked list of names, a list of labels and their relevance."""

    def __init__(self, ranked: list[str], labels: dict[str, float]) -> None:
        self.ranked, self.labels = ranked, labels

    def hit(self, k: int) -> float:
        return float(any(name in self.labels for name in self.ranked[:k]))

    def recall(self, k: int) -> float:
        if not self.labels:
            return 1.0
        return len(set(self.ranked[:k]) & set(self.labels)) / len(self.labels)

    def precision(self, k: int) -> float:
        return len(set(self.ranked[:k]) & set(self.labels)) / k if self.labels else 0.0

    def ndcg(self, k: int, *, exponential: bool = False) -> float:
        def dcg(gains: list[float]) -> float:
            return sum(
                ((2**gain - 1) if exponential else gain) / math.log2(place + 2) for place, gain in enumerate(gains)
            )

        got = dcg([self.labels.get(name, 0) for name in self.ranked[:k]])
        best = dcg(sorted(self.labels.values(), reverse=True)[:k])
        return got / best if best > 0 else 0.0

    def ap(self, k: int) -> float:
        hits, total = 0, 0.0
        for place, name in enumerate(self.ranked[:k]):
            if name in self.labels:
                hits += 1
                total += hits / (place + 1)
        return total / min(len(self.labels), k) if hits else 0.0

    def rr(self, k: int) -> float:
        return next((1 / (place + 1) for place, name in enumerate(self.ranked[:k]) if name in self.labels), 0.0)


@st.composite
def queries(draw: st.DrawFn) -> tuple[list[float], list[float], list[float]]:
    """Scores with ties, graded gains, answers that are not among the candidates; candidates may be none."""
    size = draw(st.integers(0, 14))
    scores = draw(st.lists(st.sampled_from([-0.5, 0.0, 0.25, 0.25, 0.5, 0.75, 1.0]), min_size=size, max_size=size))
    gains = draw(st.lists(st.sampled_from([0.0, 0.0, 1.0, 2.0, 3.0]), min_size=size, max_size=size))
    missing = draw(st.lists(st.sampled_from([1.0, 2.0]), max_size=3))
    return scores, gains, missing


@given(queries())
def test_metrics_equal_the_published_ones(
    query: tuple[list[float], list[float], list[float]],
) -> None:
    scores, gains, missing = query
    names = [f"c{index}" for index in range(len(scores))]
    labels = {name: gain for name, gain in zip(names, gains, strict=True) if gain > 0}
    labels |= {f"missing{index}": gain for index, gain in enumerate(missing)}
    # The published default sort leaves the order of ties to the processor; a stable one is the reading that repeats.
    ranked = [names[index] for index in np.argsort(-np.asarray(scores, dtype=np.float64), kind="stable")]
    theirs, ours = Published(ranked, labels), judge(scores, gains, missing=missing, ties="listed")
    for k in KS:
        assert measure(f"hit@{k}", ours) == theirs.hit(k)
        assert measure(f"precision@{k}", ours) == theirs.precision(k)
        assert measure(f"mrr@{k}", ours) == theirs.rr(k)
        assert measure(f"map@{k}", ours) == pytest.approx(theirs.ap(k))
        assert measure(f"ndcg@{k}", ours) == pytest.approx(theirs.ndcg(k))
        assert measure(f"ndcg_exponential@{k}", ours) == pytest.approx(theirs.ndcg(k, exponential=True))
        if labels:
            assert measure(f"recall@{k}", ours) == pytest.approx(theirs.recall(k))


@given(queries())
def test_ties_never_help(query: tuple[list[float], list[float], list[float]]) -> None:
    scores, gains, missing = query
    against = judge(scores, gains, missing=missing)
    listed = judge(scores, gains, missing=missing, ties="listed")
    shuffled = judge(scores[::-1], gains[::-1], missing=missing)
    for name in ("hit@1", "hit@5", "ndcg@5", "map@10", "recall@5"):
        assert measure(name, against) <= measure(name, listed) + 1e-12
        assert measure(name, against) == pytest.approx(measure(name, shuffled)), (
            "the order of candidates must not count"
        )


def test_one_vector_for_everything_does_not_score() -> None:
    """The answer is listed first in the published image tasks, and their sort keeps it there."""
    scores, gains = [0.5] * 10, [1.0, *[0.0] * 9]
    assert np.argsort(-np.asarray(scores))[0] == 0
    assert measure("hit@1", judge(scores, gains, ties="listed")) == 1.0
    assert measure("hit@1", judge(scores, gains)) == 0.0


def test_a_query_that_nothing_answers_scores_nothing() -> None:
    """The published recall says 1.0 here."""
    assert Published(["a"], {}).recall(1) == 1.0
    nothing = judge([0.5], [0.0])
    assert all(measure(f"{name}@5", nothing) == 0.0 for name in ("hit", "recall", "precision", "ndcg", "map", "mrr"))


def test_no_candidates_score_nothing() -> None:
    """The published code stacks an empty list of vectors there, and stops."""
    with pytest.raises(ValueError, match="need at least one array"):
        np.stack([])
    nothing = judge([], [], missing=[1.0])
    assert all(measure(f"{name}@5", nothing) == 0.0 for name in ("hit", "recall", "precision", "ndcg", "map", "mrr"))


def test_a_candidate_that_is_listed_twice_counts_once() -> None:
    """The published code ranks names; a name that is listed twice answers twice, and precision exceeds 1."""
    assert Published(["a", "a"], {"a": 1.0}).ap(5) == 2.0
    assert Published(["a", "a"], {"a": 1.0}).ndcg(5) > 1.0


def test_grades_stay_with_their_labels() -> None:
    """The published `evaluate` passes labels through a set before it pairs them with their grades by position."""
    labels, grades = ["page-7", "page-12", "page-3"], [2.0, 1.0, 1.0]
    ranked = ["page-7", "x", "page-12", "page-3"]
    right = Published(ranked, dict(zip(labels, grades, strict=True))).ndcg(5)
    orders = {
        round(Published(ranked, dict(zip(order, grades, strict=True))).ndcg(5), 6)
        for order in (labels, labels[::-1], ["page-12", "page-7", "page-3"])
    }
    assert len(orders) > 1, "so a set's order decides the published figure"
    assert measure("ndcg@5", judge([0.9, 0.8, 0.7, 0.6], [2.0, 0.0, 1.0, 1.0])) == pytest.approx(right)


def test_without_a_vector_nothing_is_found() -> None:
    ranked = judge([float("nan"), 0.2], [1.0, 0.0])
    assert ranked.gains.tolist() == [0.0]
    assert measure("hit@5", ranked) == 0.0
    assert ranked.ideal.tolist() == [1.0], "but it is still owed"


def test_average_precision_over_all_places() -> None:
    ranked = judge([0.9, 0.8, 0.7, 0.6], [1, 0, 0, 1])
    assert average_precision(ranked) == pytest.approx((1 + 2 / 4) / 2)
    assert average_precision(ranked, 1) == 1.0, "the published normaliser is min(answers, k)"


def test_exponential_gain_differs_where_grades_do() -> None:
    graded = judge([0.9, 0.8], [1.0, 2.0])
    assert measure("ndcg@5", graded) == pytest.approx((1 + 2 / math.log2(3)) / (2 + 1 / math.log2(3)))
    assert measure("ndcg_exponential@5", graded) == pytest.approx((1 + 3 / math.log2(3)) / (3 + 1 / math.log2(3)))
    binary = judge([0.9, 0.8, 0.7], [0.0, 1.0, 1.0])
    assert measure("ndcg@5", binary) == measure("ndcg_exponential@5", binary)


@pytest.mark.parametrize("name", ["hit", "hit@0", "hits@1", "hit@-1", "ndcg@five"])
def test_unknown_metrics_are_named(name: str) -> None:
    with pytest.raises(InputError, match="unknown metric"):
        measure(name, judge([1.0], [1.0]))


@pytest.mark.parametrize(("scores", "gains"), [([1.0], [1.0, 0.0]), ([1.0], [-1.0]), ([1.0], [float("nan")])])
def test_what_cannot_be_judged_is_refused(scores: list[float], gains: list[float]) -> None:
    with pytest.raises(InputError):
        judge(scores, gains)
