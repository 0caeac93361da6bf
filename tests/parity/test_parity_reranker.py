"""Scores of Qwen3-VL-Reranker against those of its authors' code, on transformers and on the real vLLM."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from parity_cases import HERE, RERANKED, RERANKER, reranked, score_tolerance, spread
from vllm_server import ended, start, wait_for
from widened import widen_heads

from ume_retrieval import Item, Reranker
from ume_retrieval.checkpoint import RerankerSpec
from ume_retrieval.engines.families import JUDGE
from ume_retrieval.engines.server.options import ServerOptions
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
def wide(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The checkpoint with heads of 32 numbers, the least that vLLM's attention on CPUs takes."""
    wide = Path(shutil.copytree(folder, tmp_path_factory.mktemp("wide") / "checkpoint"))
    widen_heads(wide)
    return wide


@pytest.fixture(scope="module")
def vllm(wide: Path) -> Reranker:
    return Reranker.from_pretrained(wide, engine="vllm", device="cpu", dtype="float32")


TEMPLATE = (
    "<|im_start|>system\n" + JUDGE + "<|im_end|>\n<|im_start|>user\n<Instruct>: "
    "{{ instruction | default('" + RerankerSpec(family="qwen3-vl-reranker").default_instruction + "') }}<Query>:"
    "{{ messages | selectattr('role', 'eq', 'query') | map(attribute='content') | first }}\n<Document>:"
    "{{ messages | selectattr('role', 'eq', 'document') | map(attribute='content') | first }}"
    "<|im_end|>\n<|im_start|>assistant{{ '\n' }}"  # Jinja drops a line break at the end of a template
)
"""How the published model is shown a pair, as a template of vLLM's `/rerank`."""

CLASSIFIER = {
    "architectures": ["Qwen3VLForSequenceClassification"],
    "classifier_from_token": ["no", "yes"],
    "is_original_qwen3_reranker": True,
}


@pytest.fixture(scope="module")
def server(wide: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Reranker]:
    place = tmp_path_factory.mktemp("server")
    (place / "pair.jinja").write_text(TEMPLATE)
    switches = ("--runner", "pooling", "--hf-overrides", json.dumps(CLASSIFIER), "--max-model-len", "8192")
    switches += ("--chat-template", str(place / "pair.jinja"))
    started = start(str(wide), "k3y-of-a-test", place / "log", *switches)
    with ended([started]):
        wait_for(started)
        options = ServerOptions(reranker_url=started.url, api_key="k3y-of-a-test")
        # The server's name of the model is its folder.
        yield Reranker.from_pretrained(wide, engine="server", server=options)


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


def has_videos(case: dict[str, Any]) -> bool:
    return any("video" in one for one in (case["input"]["query"], *case["input"]["documents"]))


@pytest.mark.parametrize(
    "case",
    [
        pytest.param(*one.values, id=one.id, marks=on_vllm)
        for one in CASES
        # A server is sent a video as frames, and cuts nothing.
        if not has_videos(one.values[0]) and not one.id.startswith("long")
    ],
)
def test_scores_of_a_server_are_the_published_ones(server: Reranker, case: dict[str, Any]) -> None:
    result = server.rerank(*reranked(case))
    assert not result.failures
    assert result.usage.reranked_tokens == sum(len(spread(ids)) for ids in case["expected"]["input_ids"])
    assert result.scores.tolist() == pytest.approx(case["expected"]["scores"], abs=1e-4)
