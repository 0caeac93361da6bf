"""`rerank=` in a search: candidates in the order of a second look, blocking and awaited, on every store."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from qdrant_world import models
from small_media import RED, fill, picture

from ume_qdrant import Document, EdgeStore, SearchParams, Store, asearch, index, index_documents, search
from ume_qdrant.stores.async_store import ThreadStore
from ume_retrieval import InputError, Item, Reranker, Usage
from ume_retrieval.checkpoint import ModelInfo
from ume_retrieval.errors import Failure
from ume_retrieval.reranking import Known, RerankResult, TCotReranker
from ume_retrieval.testing import FakeReasoner


class Backwards(Reranker):
    """Likes the last candidate best, and cannot read the first."""

    info = ModelInfo("backwards", "1", "fake")

    def __init__(self, *, fails: bool = False) -> None:
        self.fails = fails
        self.asked: list[tuple[Any, Sequence[Any], Known | None]] = []

    def rerank(
        self, query: Any, items: Sequence[Any], *, known: Known | None = None, stopped: threading.Event | None = None
    ) -> RerankResult:
        self.asked.append((query, items, known))
        scores = np.arange(len(items), dtype=np.float32)
        failures: tuple[Failure, ...] = ()
        if self.fails:
            scores[0], failures = np.nan, (Failure(0, "", "broken_media", "cannot read it"),)
        return RerankResult(scores, failures, Usage(len(items), reranker_calls=len(items), reranked_tokens=7))


@pytest.fixture
def indexed(store: Store, tmp_path: Path) -> Store:
    index(models(), store, fill(tmp_path / "things"), reasoning="always")
    return store


def test_candidates_are_ordered_by_the_second_look(indexed: Store) -> None:
    plain = search(models(), indexed, "red", limit=4)
    second = Backwards()
    result = search(models(), indexed, "red", limit=2, rerank=second, rerank_candidates=4)
    assert [hit.point_id for hit in result.hits] == [hit.point_id for hit in plain.hits[:1:-1]]
    assert [hit.score for hit in result.hits] == pytest.approx([hit.score for hit in plain.hits[:1:-1]])
    assert [hit.rerank_score for hit in result.hits] == [3, 2]
    assert result.hits[0].to_dict()["rerank_score"] == 3
    assert "rerank_score" not in plain.hits[0].to_dict()
    [(query, items, known)] = second.asked
    assert (query, len(items)) == ("red", 4)
    assert all(isinstance(item, Item) for item in items)
    assert known is not None
    assert known.query == (result.query_trace and result.query_trace.tcot)
    assert known.items == tuple(hit.trace for hit in plain.hits)
    assert (result.usage.reranker_calls, result.usage.reranked_tokens, result.usage.items) == (4, 7, plain.usage.items)


def test_what_the_reranker_cannot_read_keeps_its_place_behind(indexed: Store) -> None:
    plain = search(models(), indexed, "red", limit=3)
    result = search(models(), indexed, "red", limit=3, rerank=Backwards(fails=True), rerank_candidates=3)
    assert [hit.point_id for hit in result.hits] == [plain.hits[place].point_id for place in (2, 1, 0)]
    assert result.hits[-1].rerank_score is None
    assert [(one.error, one.source) for one in result.failures] == [("broken_media", plain.hits[0].source)]


def test_a_document_whose_media_are_gone_keeps_its_place_behind(store: Store, tmp_path: Path) -> None:
    gone = Document(picture(tmp_path / "red.png", RED).read_bytes(), id="gone")
    index_documents(models(), store, [gone, Document("a red thing", id="one"), Document("a blue thing", id="two")])
    plain = search(models(), store, "red", limit=3)
    result = search(models(), store, "red", limit=3, rerank=Backwards())
    readable = [hit.id for hit in plain.hits if hit.id != "gone"]
    assert [(hit.id, hit.rerank_score) for hit in result.hits] == [(readable[1], 1), (readable[0], 0), ("gone", None)]
    assert [(one.error, plain.hits[one.index].id) for one in result.failures] == [("media_not_found", "gone")]


async def test_an_awaited_search_reranks_alike(tmp_path: Path) -> None:
    edge = EdgeStore(tmp_path / "vectors", "things")
    index(models(), edge, fill(tmp_path / "things"), reasoning="always")
    expected = search(models(), edge, "red", limit=3, rerank=Backwards(), rerank_candidates=5)
    async with ThreadStore(edge) as store:
        result = await asearch(models(), store, "red", limit=3, rerank=Backwards(), rerank_candidates=5)
    assert result.hits == expected.hits
    assert result.usage.reranker_calls == 5


def test_our_own_reranker_reads_the_stored_tcots(indexed: Store) -> None:
    judge = FakeReasoner(lambda _: "1")
    reranker = TCotReranker(judge, questions=1)
    result = search(models(), indexed, "red", limit=3, rerank=reranker, rerank_candidates=3)
    assert judge.calls == 1, "nothing is reasoned over again"
    assert result.usage.reranker_calls == 1
    assert [hit.rerank_score for hit in result.hits] == pytest.approx([1, 2 / 3, 1 / 3])


@pytest.mark.parametrize("wrong", [{"rerank": "qwen3-vl-reranker-2b"}, {"rerank_candidates": 0}])
def test_what_is_no_reranker_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(InputError, match="rerank"):
        SearchParams(**wrong)
