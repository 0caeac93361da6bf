"""Similarities of queries and candidates: fused as in search, ties, and a query's own candidates."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from evaluation_world import QUERIES

from ume_eval import (
    Candidate,
    EvalTask,
    Query,
    Sample,
    choose,
    read_task,
)
from ume_eval.metrics import BLOCK, gains, judge_all, similarities
from ume_retrieval.vectors import fuse


def test_fused_similarities_are_those_of_search() -> None:
    from ume_qdrant.searching.fusion import fuse as search_fuse

    rng = np.random.default_rng(3)
    for _ in range(50):
        direct, reasoned = rng.uniform(-1, 1, 6), rng.uniform(-1, 1, 6)
        reasoned[rng.integers(0, 6, 2)] = np.nan
        fused = fuse(direct, reasoned)
        known = {str(n): float(score) for n, score in enumerate(reasoned) if not np.isnan(score)}
        expected = search_fuse({str(n): float(score) for n, score in enumerate(direct)}, known, 0.5)
        assert fused == pytest.approx([expected[str(n)] for n in range(6)])


@pytest.mark.parametrize("among", [False, True], ids=["against all", "own lists"])
@pytest.mark.parametrize(("count", "dim"), [(3, 1536), (5, 2048), (BLOCK + 7, 256)])
def test_one_vector_ties_wherever_it_stands(among: bool, count: int, dim: int) -> None:
    [cirr] = choose("mmeb-v2", ["CIRR"])
    rng = np.random.default_rng(count)
    vector = rng.normal(size=dim).astype(np.float32)
    vector /= np.linalg.norm(vector)
    asked = vector + 0.02 * rng.normal(size=(100 if count < BLOCK else 10, dim)).astype(np.float32)
    asked /= np.linalg.norm(asked, axis=1, keepdims=True)
    candidates = tuple(Candidate(f"c{number}", Sample(f"c{number}")) for number in range(count))
    names = tuple(one.key for one in candidates) if among else None
    queries = tuple(Query(str(n), Sample(f"q{n}"), {f"c{count - 1}": 1.0}, names) for n in range(len(asked)))
    rows = similarities(EvalTask(cirr, queries, candidates), asked, np.tile(vector, (count, 1)))
    assert all(len(row) == count and len(np.unique(row)) == 1 for row in rows)
    assert [float(row[0]) for row in rows] == pytest.approx((asked @ vector).tolist(), abs=2e-6)


def test_own_lists_and_common_ones(mmeb: Path) -> None:
    def rows(read: EvalTask) -> list[int]:
        rng = np.random.default_rng(0)
        queries, candidates = (rng.normal(size=(n, 8)).astype(np.float32) for n in (QUERIES, len(read.candidates)))
        return [len(row) for row in similarities(read, queries, candidates)]

    own, common = (read_task(choose("mmeb-v2", [name])[0], mmeb) for name in ("ActivityNetQA", "K700"))
    assert rows(own) == [2, 2, 2]
    assert rows(common) == [len(common.candidates)] * QUERIES
    assert [gain.sum() for gain, _ in gains(common)] == [1.0] * QUERIES
    perfect = judge_all(own, [gain for gain, _ in gains(own)])
    assert perfect.metrics["hit@1"] == 100.0
    assert perfect.gap == 1.0
    blind = judge_all(own, [np.full(2, 0.5)] * QUERIES)
    assert (blind.metrics["hit@1"], blind.ties) == (0.0, 2)
