"""The catalogue of models: its files, what they may say, and whether the weights fit a device."""

from __future__ import annotations

import json
import logging
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from ume_retrieval import EmbedderSpec, ModelError, ReasoningEmbedder
from ume_retrieval.checkpoint import RerankerSpec
from ume_retrieval.engines import load as engines
from ume_retrieval.engines import memory
from ume_retrieval.engines.load import LoadOptions, find_room, require_room
from ume_retrieval.engines.registry import Resolved, presets, resolve_embedder, resolve_reasoner, resolve_reranker
from ume_retrieval.errors import ModelTooLarge
from ume_retrieval.models.catalog import FIGURES, Published, cards, find_cards, read_card
from ume_retrieval.tcot import DEFAULT_PROMPTS

FOLDER = Path(__file__).parents[2] / "ume_retrieval" / "models"

SPEC = EmbedderSpec(family="embed-rl")
SMALL = Resolved("small/one", None, SPEC, parameters=10**9)
UNKNOWN = Resolved("unknown/size", None, SPEC)


def test_each_file_is_one_model_under_its_name() -> None:
    assert len(cards()) == len(list(FOLDER.glob("*.json")))
    for path in FOLDER.glob("*.json"):
        card = read_card(path)
        assert path.stem in {card.name, f"{card.name}-{card.role}"}
    assert len({(card.name, card.role) for card in cards()}) == len(cards())


def test_the_catalogue_names_what_users_can_take_today() -> None:
    names = {card.name for card in cards()}
    assert {"embeddinggemma-2", "wemm-embedding-2b", "wemm-embedding-4b", "wemm-embedding-9b"} <= names
    assert {"nemotron-3.5-embed-1b", "siglip2-base", "qwen3-vl-reranker-2b", "qwen3-vl-reranker-8b"} <= names


def test_every_known_figure_has_a_source_that_can_be_looked_up() -> None:
    for card in cards():
        assert {name for name in FIGURES if getattr(card, name) not in (None, ())} == set(card.sources)
        for source in card.sources.values():
            assert re.match(r"https://[\w.-]+/|ume_retrieval/pretrained/", source)


def test_only_the_bundled_weights_have_been_run() -> None:
    assert {card.name for card in cards() if card.ran} == {"ume-tiny"}


def test_every_reasoner_that_a_card_names_can_be_loaded() -> None:
    for card in cards():
        assert (card.reasoner is not None) == (card.role == "embedder")
        if card.reasoner:
            assert resolve_reasoner(card.reasoner).spec.role == "reasoner"


def test_a_preset_carries_the_facts_of_its_card() -> None:
    for preset in presets():
        [card] = [card for card in find_cards(preset.name) if card.role == preset.role]
        assert (preset.dimension, preset.parameters, preset.revision) == (
            card.dimension,
            card.parameters,
            card.revision,
        )
        if isinstance(preset.spec, EmbedderSpec):
            assert preset.spec.matryoshka_dims == card.matryoshka_dims
    assert resolve_embedder("qwen3-vl-embedding-2b").parameters == 2_127_532_032


@pytest.mark.parametrize("name", ["qwen3-vl-reranker-2b", "Qwen/Qwen3-VL-Reranker-8B"])
def test_a_reranker_is_refused_by_name(name: str) -> None:
    for resolve in (resolve_embedder, resolve_reasoner):
        with pytest.raises(ModelError, match="is a reranker") as raised:
            resolve(name)
        assert "Reranker.from_pretrained" in raised.value.hint
    assert resolve_reranker(name).spec == RerankerSpec(family="qwen3-vl-reranker")


CARD: dict[str, Any] = {
    "name": "mine",
    "role": "embedder",
    "model": "me/mine",
    "family": "embed-rl",
    "parity": "not proven",
    "dimension": 64,
    "sources": {"dimension": "https://example.org"},
}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"dimension": 0}, "dimension"),
        ({"family": "unheard of"}, "family"),
        ({"colour": "red"}, "colour"),
        ({"license": "MIT"}, "no source for license"),
        ({"dimension": None}, "a source for dimension"),
        ({"matryoshka_dims": [8, 32], "sources": {"dimension": "a", "matryoshka_dims": "a"}}, "matryoshka_dims"),
        ({"parity": None}, "parity"),
        ({"published": {"sources": ["a"], "inputs": [{"text": "a"}]}}, "neither similarities nor values"),
        ({"published": {"sources": ["a"], "inputs": [{"text": "a"}], "similarities": [[1, 2, 0.5]]}}, "from 1 to 1"),
        (
            {"published": {"sources": ["a"], "inputs": [{"image": "a.png"}], "values": [{"input": 1, "first": [0]}]}},
            "no address of the image a.png",
        ),
    ],
)
def test_a_card_that_says_too_little_or_too_much_is_refused(tmp_path: Path, change: dict[str, Any], said: str) -> None:
    path = tmp_path / "mine.json"
    path.write_text(json.dumps(CARD))
    assert read_card(path).weight_bytes is None
    path.write_text(json.dumps(CARD | change))
    with pytest.raises(ModelError, match=said):
        read_card(path)


def test_a_card_that_cannot_be_read_is_refused(tmp_path: Path) -> None:
    (tmp_path / "half.json").write_text('{"name": "mi')
    for path in (tmp_path / "half.json", tmp_path / "none.json"):
        with pytest.raises(ModelError, match=path.name):
            read_card(path)


def test_published_figures_are_those_of_the_authors() -> None:
    [card] = find_cards("qwen3-vl-embedding-2b")
    assert isinstance(card.published, Published)
    assert card.published.similarities[0] == (1, 2, 0.7896)
    assert card.published.values[0].first[0] == -0.07177734375


def test_the_catalogue_is_read_without_torch() -> None:
    script = "import sys, ume_retrieval.engines.registry as r; r.presets(); print('torch' in sys.modules)"
    printed = subprocess.run(  # noqa: S603 - the tests' own interpreter
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    ).stdout
    assert printed.strip() == "False"


# Memory.


def test_models_that_fit_are_left_where_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "machine_bytes", lambda: 8 * 10**9)
    options = LoadOptions(device="cpu")
    assert require_room([SMALL, SMALL, UNKNOWN], options) == options, "two of 4 GB in float32"


def test_models_that_do_not_fit_together_are_refused_with_both_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "machine_bytes", lambda: 6 * 10**9)
    for place in (require_room, find_room):
        with pytest.raises(ModelTooLarge, match=r"small/one and small/one need 8\.0 GB .*float32.* has 6\.0 GB"):
            place([SMALL, SMALL], LoadOptions())
        assert place([SMALL, SMALL], LoadOptions(dtype="bfloat16")).dtype == "bfloat16"


def test_where_the_system_does_not_say_its_memory_nothing_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "machine_bytes", lambda: None)
    huge = Resolved("huge/one", None, SPEC, parameters=10**15)
    assert require_room([huge], LoadOptions()) == LoadOptions()


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """A GPU with 3 GB free and a machine with 8 GB, as far as torch is asked here."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda _: (3 * 10**9, 24 * 10**9))
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda _: "Small GPU")
    monkeypatch.setattr(memory, "machine_bytes", lambda: 8 * 10**9)


@pytest.mark.usefixtures("gpu")
def test_auto_takes_the_gpu_where_the_models_fit_it() -> None:
    assert find_room([SMALL], LoadOptions()) == LoadOptions()


@pytest.mark.usefixtures("gpu")
def test_auto_takes_the_processor_with_a_warning_where_they_do_not(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        assert find_room([SMALL, SMALL], LoadOptions()).device == "cpu"
    [record] = caplog.records
    assert re.search(r"need 4\.0 GB .*bfloat16.* Small GPU \(cuda\) has 3\.0 GB free", record.message)
    with pytest.raises(ModelTooLarge, match="Small GPU"):
        require_room([SMALL, SMALL], LoadOptions())
    with pytest.raises(ModelTooLarge, match=r"12\.0 GB .*float32.* this machine has 8\.0 GB"):
        find_room([SMALL] * 3, LoadOptions())


def test_a_pair_that_does_not_fit_is_refused_before_anything_is_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    def load(*_: object) -> None:
        raise AssertionError("a model was loaded")

    monkeypatch.setattr(memory, "machine_bytes", lambda: 10**9)
    monkeypatch.setattr(engines, "_in_process", load)
    with pytest.raises(ModelTooLarge, match=r"Embed-RL-2B and Qwen/Qwen3-VL-8B-Instruct need 43\.6 GB"):
        ReasoningEmbedder.from_pretrained("embed-rl-2b", device="cpu", cache=None)
    monkeypatch.setattr(memory, "machine_bytes", lambda: 10**6)
    with pytest.raises(ModelTooLarge, match=r"0\.02 GB"):
        ReasoningEmbedder.from_pretrained("ume-tiny", device="cpu", cache=None)


def test_default_prompts_belong_to_instruct_models() -> None:
    for card in cards():
        if card.family == "instruct":
            spec = resolve_reasoner(card.name).spec
            assert spec.role == "reasoner"
            assert spec.prompts == DEFAULT_PROMPTS
