"""`reasoning="auto"`: a gate stands between the direct search and the Reasoner."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path

import pytest
from qdrant_world import models
from small_media import fill

from ume_qdrant import SearchResult, Store, ThreadStore, asearch, calibrate_gate, index, search
from ume_qdrant.searching.gating import embedder_identity
from ume_retrieval import InputError
from ume_retrieval.gate import Gate

WORDS = ("the", "last", "train", "home", "red", "green", "blue")
QUERIES = [f"{one} {other}" for one in WORDS for other in WORDS] + ["train home tonight", "nothing like it"]


@pytest.fixture
def indexed(store: Store, tmp_path: Path) -> Store:
    index(models(), store, fill(tmp_path / "things"), reasoning="always")
    return store


def always_or_never(threshold: float) -> Gate:
    return Gate((0.0,) * (7 + 64), 0.0, threshold, embedder_identity(models()))


def test_a_spared_query_costs_no_token_and_a_doubtful_one_is_reasoned_over(indexed: Store) -> None:
    spared = search(models(), indexed, "train home", reasoning="auto", gate=always_or_never(-1.0))
    assert (spared.usage.reasoner_calls, spared.usage.spared, spared.query_trace) == (0, 1, None)
    assert spared.hits == search(models(), indexed, "train home", reasoning="never").hits
    doubted = search(models(), indexed, "train home", reasoning="auto", gate=always_or_never(1.0))
    assert (doubted.usage.reasoner_calls, doubted.usage.spared) == (1, 0)
    assert doubted.hits == search(models(), indexed, "train home").hits


def test_a_gate_is_learnt_from_the_collection(indexed: Store) -> None:
    seen: list[int] = []
    gate = calibrate_gate(models(), indexed, QUERIES, max_loss=0.1, on_progress=lambda done, _: seen.append(done))
    assert seen == list(range(1, len(QUERIES) + 1))
    assert gate.queries == len(QUERIES)
    results = [search(models(), indexed, query, reasoning="auto", gate=gate, limit=1) for query in QUERIES]
    spared = sum(result.usage.spared for result in results)
    assert spared / len(QUERIES) == pytest.approx(gate.saved, abs=0.35)
    assert all(result.usage.spared + result.usage.reasoner_calls == 1 for result in results)
    right = [str(Path(search(models(), indexed, query, limit=1).hits[0].source)) for query in QUERIES]
    known = calibrate_gate(models(), indexed, QUERIES, answers=right, max_loss=0.0)
    assert known.loss == 0.0


def test_what_does_not_fit_is_refused(indexed: Store) -> None:
    with pytest.raises(InputError, match="needs a gate"):
        search(models(), indexed, "train", reasoning="auto")
    with pytest.raises(InputError, match="calibrated with other"):
        search(models(), indexed, "train", reasoning="auto", gate=replace(always_or_never(0.0), embedder="other@1"))
    with pytest.raises(InputError, match="and 1 answers"):
        calibrate_gate(models(), indexed, QUERIES, answers=["a"])
    with pytest.raises(InputError, match=r"1 answers are no source of 'things', such as 'nowhere.png'"):
        calibrate_gate(models(), indexed, QUERIES, answers=["nowhere.png"] * len(QUERIES))
    with pytest.raises(InputError, match="nothing can be calibrated"):
        calibrate_gate(models(), indexed, QUERIES[:5])


@pytest.mark.parametrize("threshold", [-1.0, 1.0])
def test_awaiting_it_decides_alike(indexed: Store, threshold: float) -> None:
    gate = always_or_never(threshold)
    blocking = search(models(), indexed, "train home", reasoning="auto", gate=gate)

    async def ask() -> SearchResult:
        return await asearch(models(), ThreadStore(indexed), "train home", reasoning="auto", gate=gate)

    awaited = asyncio.run(ask())
    assert awaited.hits == blocking.hits
    assert awaited.usage.spared == blocking.usage.spared == int(threshold < 0)
