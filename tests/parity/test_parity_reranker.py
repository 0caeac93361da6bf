"""Scores of Qwen3-VL-Reranker against those of its authors' code, on transformers and on the real vLLM."""

from __future__ import annotations

import shutil
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from parity_cases import HERE, RERANKED, RERANKER, reranked, score_tolerance, spread
from widened import widen_heads

from ume_retrieval import Item, Reranker
from ume_retrieval.engines.transformers.processor import PackedBatch
from ume_retrieval.engines.transformers.reranker import TransformersReranker
from ume_retrieval.errors import InputError
from ume_retrieval.reranking import PairReranker

CASES = [pytest.param(case, id=case["name"]) for case in RERANKED if "authors_error" not in case]
MEDIA = HERE / RERANKER / "media"


def one(name: str) -> dict[str, Any]:
    (case,) = (case for case in RERANKED if case["name"] == name)
    return case


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The checkpoint in a folder whose name says nothing, as a hub's cache keeps it."""
    return Path(shutil.copytree(HERE / RERANKER / "checkpoint", tmp_path_factory.mktemp("snapshots") / "3f9c0"))


@pytest.fixture(scope="module")
def reranker(folder: Path) -> PairReranker:
    loaded = Reranker.from_pretrained(folder, device="cpu", dtype="float32")
    assert isinstance(loaded, PairReranker)
    return loaded


class Recording:
    """The engine of a reranker, and what it makes of each pair alone."""

    def __init__(self, engine: TransformersReranker) -> None:
        self.engine, self.info, self.spec = engine, engine.info, engine.spec
        self.rows: list[PackedBatch] = []

    def score_pairs(self, pairs: Any) -> Any:
        self.rows += [self.engine.rows([pair]) for pair in pairs]
        return self.engine.score_pairs(pairs)


@pytest.mark.parametrize("case", CASES)
def test_scores_ids_and_grids_are_the_published_ones(reranker: PairReranker, case: dict[str, Any]) -> None:
    assert isinstance(reranker.scorer, TransformersReranker)
    recording, expected = Recording(reranker.scorer), case["expected"]
    query, documents = reranked(case)
    scores = PairReranker(recording).score(query, documents)
    assert [row.tokens.tolist() for row in recording.rows] == [spread(ids) for ids in expected["input_ids"]]
    for name in ("image_grid_thw", "video_grid_thw"):
        grids = [row.pictures[name].tolist() if name in row.pictures else None for row in recording.rows]
        assert grids == expected.get(name, [None] * len(documents))
    assert scores.dtype == np.float32
    assert scores.tolist() == pytest.approx(expected["scores"], abs=score_tolerance(case))


def test_scores_do_not_depend_on_company(reranker: PairReranker) -> None:
    """Documents of the cases in one list, long and short, get the scores that each gets alone."""
    query, _ = reranked(one("image + text x image + text"))
    cases = [param.values[0] for param in CASES if not param.values[0]["name"].startswith("long")]
    documents = [document for case in cases for document in reranked(case)[1]]
    documents.insert(3, Item(text="by the river " * 400))
    together = reranker.score(query, documents)
    alone = np.concatenate([reranker.score(query, [document]) for document in documents])
    assert np.abs(together - alone).max() < 1e-5


def test_a_long_pair_says_that_it_lost_words(reranker: PairReranker) -> None:
    query, documents = reranked(one("long document"))
    result = reranker.rerank(query, [*documents[:1], Item(text="short")])
    assert result.shortened == (0,)
    assert result.usage.reranker_calls == 2
    assert result.usage.reranked_tokens > 10_245


def test_a_picture_that_the_published_model_does_not_see_is_named(reranker: PairReranker) -> None:
    """Above 200 to 1 the published code scores the word NULL in its place. The rest of the list is scored here."""
    case = one("image too long")
    query, documents = reranked(case)
    result = reranker.rerank(query, documents)
    [failure] = result.failures
    assert (failure.index, failure.error) == (0, "invalid_input")
    assert failure.source.endswith("toolong.png")
    assert np.isnan(result.scores[0])
    assert float(result.scores[1]) == pytest.approx(case["expected"]["scores"][1], abs=1e-4)
    assert result.order == [1, 0]
    with pytest.raises(InputError, match="too long"):
        reranker.score(documents[0], ["a strip"])


@pytest.fixture(scope="module")
def vllm(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Reranker:
    wide = tmp_path_factory.mktemp("wide") / "checkpoint"
    shutil.copytree(folder, wide)
    widen_heads(wide)
    return Reranker.from_pretrained(wide, engine="vllm", device="cpu", dtype="float32")


on_vllm = [
    pytest.mark.vllm,
    pytest.mark.skipif(find_spec("vllm") is None, reason="vLLM is not installed here; `make test-vllm` brings it"),
    pytest.mark.filterwarnings("ignore"),  # vLLM's own start is not free of warnings
]


@pytest.mark.parametrize("case", [pytest.param(*one.values, id=one.id, marks=on_vllm) for one in CASES])
def test_scores_on_vllm_are_the_published_ones(vllm: Reranker, case: dict[str, Any]) -> None:
    result = vllm.rerank(*reranked(case))
    assert not result.failures
    assert result.usage.reranked_tokens == sum(len(spread(ids)) for ids in case["expected"]["input_ids"])
    assert result.scores.tolist() == pytest.approx(case["expected"]["scores"], abs=score_tolerance(case))
