"""What a reranker's server is asked, and what is made of its answers."""

from __future__ import annotations

from typing import Any

import numpy as np
import PIL.Image
import pytest
from server_stub import Stub, connect, reply

from ume_retrieval import Item, Reranker
from ume_retrieval.checkpoint import ModelInfo, RerankerSpec
from ume_retrieval.engines.server.options import ServerOptions
from ume_retrieval.engines.server.reranker import ServerReranker
from ume_retrieval.errors import InputError
from ume_retrieval.reranking import PairReranker

INFO = ModelInfo("stub", "1", "server")
QWEN = RerankerSpec(family="qwen3-vl-reranker")


def scored(score: float) -> dict[str, Any]:
    return {"results": [{"index": 0, "relevance_score": score}], "usage": {"prompt_tokens": 4, "total_tokens": 4}}


def by_length(path: str, body: dict[str, Any]) -> Any:
    if path != "/v1/rerank":
        return None
    [document] = body["documents"]
    if document == "bad":
        return reply({"error": {"message": "too long"}}, 400)
    return reply(scored(len(document) / 10))


def test_each_pair_is_a_request_and_costs_no_other_its_score(stub: Stub, naps: list[float]) -> None:
    stub.answer = by_length
    reranker = PairReranker(ServerReranker(connect(stub, naps), info=INFO, spec=QWEN))
    result = reranker.rerank(Item(text="query", instruction="find it"), ["aaa", "bad", "a"])
    assert result.scores[[0, 2]] == pytest.approx([0.3, 0.1])
    assert np.isnan(result.scores[1])
    assert [(failure.index, failure.error) for failure in result.failures] == [(1, "invalid_input")]
    assert (result.usage.reranker_calls, result.usage.reranked_tokens) == (2, 8)
    asked = [body for body in stub.posted() if body["documents"] == ["aaa"]]
    assert asked == [{"model": "one", "query": "query", "documents": ["aaa"], "instruction": "find it"}]


def test_pictures_are_content_parts_of_the_fitted_size(stub: Stub, naps: list[float]) -> None:
    stub.answer = lambda path, body: reply(scored(0.5))
    picture = Item(text="words", images=(PIL.Image.new("RGB", (64, 64)),))
    PairReranker(ServerReranker(connect(stub, naps), info=INFO, spec=QWEN)).score("query", [picture])
    [body] = stub.posted()
    [document] = body["documents"]
    assert [part["type"] for part in document["content"]] == ["image_url", "text"]
    assert body["mm_processor_kwargs"]["images_kwargs"] == {"do_resize": False}
    own = RerankerSpec(family="cross-encoder")
    PairReranker(ServerReranker(connect(stub, naps), info=INFO, spec=own)).score("query", [picture])
    assert "mm_processor_kwargs" not in stub.posted()[-1]


@pytest.mark.parametrize("answer", [{"results": []}, scored(float("nan")), {"data": []}])
def test_a_broken_answer_is_an_error(stub: Stub, naps: list[float], answer: dict[str, Any]) -> None:
    stub.answer = lambda path, body: reply(answer)
    result = PairReranker(ServerReranker(connect(stub, naps), info=INFO, spec=QWEN)).rerank("query", ["a"])
    assert [failure.error for failure in result.failures] == ["server_error"]


def test_the_address_comes_from_options_or_the_environment(stub: Stub, monkeypatch: pytest.MonkeyPatch) -> None:
    stub.answer = by_length
    with pytest.raises(InputError, match="address") as raised:
        Reranker.from_pretrained("qwen3-vl-reranker-2b", engine="server")
    assert "UME_RERANKER_URL" in raised.value.hint
    options = ServerOptions(reranker_url=stub.url, reranker_model="one")
    given = Reranker.from_pretrained("qwen3-vl-reranker-2b", engine="server", server=options)
    monkeypatch.setenv("UME_RERANKER_URL", stub.url)
    named = Reranker.from_pretrained("BAAI/bge-reranker-v2-m3", engine="server")
    assert given.score("q", ["aa"]) == named.score("q", ["aa"]) == pytest.approx([0.2])
