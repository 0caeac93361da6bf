"""`ume models`: the list, one model, and the check of vectors, on the bundled weights under another name."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import PIL.Image
import pytest
from typer.testing import CliRunner, Result

from ume_cli.app import app
from ume_retrieval import Item, ReasoningEmbedder
from ume_retrieval.engines.registry import resolve_embedder
from ume_retrieval.models.catalog import cards

TEXTS = ("a red circle", "two blue squares above a star")


def run(*arguments: str | Path) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of weights, a picture, and a card with figures that these weights make."""
    folder = tmp_path_factory.mktemp("verify")
    shutil.copytree(resolve_embedder("ume-tiny").model, folder / "weights")
    PIL.Image.new("RGB", (96, 96), "red").save(folder / "picture.png")
    embedder = ReasoningEmbedder.from_pretrained("ume-tiny", reasoner=None, device="cpu", cache=None)
    items = [*map(Item, TEXTS), Item(TEXTS[0], images=(folder / "picture.png",))]
    vectors = embedder.encode_corpus(items, reasoning="never")
    similarities = [(a + 1, b + 1, float(vectors[a] @ vectors[b])) for a in range(3) for b in range(a)]
    card = {
        "name": "mine",
        "role": "embedder",
        "model": str(folder / "weights"),
        "parity": "not proven",
        "published": {
            "sources": ["computed for this test"],
            "images": {"red": "https://example.org/red.png"},
            "inputs": [{"text": TEXTS[0]}, {"text": TEXTS[1]}, {"text": TEXTS[0], "image": "red"}],
            "similarities": similarities,
            "values": [{"input": 3, "first": [float(value) for value in vectors[2, :8]]}],
        },
    }
    (folder / "card.json").write_text(json.dumps(card))
    return folder


def changed(home: Path, tmp_path: Path, **change: Any) -> Path:
    """The card with another field of its published figures."""
    card = json.loads((home / "card.json").read_text())
    card["published"] |= change
    path = tmp_path / "changed.json"
    path.write_text(json.dumps(card))
    return path


def test_the_list_says_memory_sources_and_what_fits() -> None:
    result = run("models", "--json")
    listed = json.loads(result.stdout)["models"]
    assert [(one["name"], one["role"]) for one in listed] == [(card.name, card.role) for card in cards()]
    [gemma] = [one for one in listed if one["name"] == "embeddinggemma-2"]
    assert (gemma["memory"], gemma["memory_bytes"], gemma["dimension"]) == ("1.5 GB", 1_480_000_000, 768)
    assert (gemma["reasoner"], gemma["parity"], gemma["ran"]) == ("qwen3-vl-2b", "not proven", False)
    assert gemma["sources"]["parameters"].startswith("https://ai.google.dev/")
    [tiny, _] = [one for one in listed if one["name"] == "ume-tiny"]
    assert "cpu" in tiny["fits"]


def test_the_table_says_what_fits_and_what_is_unknown() -> None:
    lines = CliRunner().invoke(app, ["models"], env={"COLUMNS": "200"}).stdout.splitlines()
    [line] = [line for line in lines if line.startswith("qwen3-vl-reranker-2b")]
    assert "reranker" in line
    assert "later" not in line
    [line] = [line for line in lines if line.startswith("embed-rl-4b")]
    assert "unknown" in line, "nobody told its licence"


def test_one_model_is_shown_with_the_source_of_each_figure() -> None:
    shown = CliRunner().invoke(app, ["models", "show", "Google/EmbeddingGemma-2"], env={"COLUMNS": "200"}).stdout
    assert "740,000,000" in shown
    assert shown.count("ai.google.dev") == 5, "parameters, licence, modalities, dimension, Matryoshka dimensions"
    both = json.loads(run("models", "show", "ume-tiny", "--json").stdout)["models"]
    assert [one["role"] for one in both] == ["embedder", "reasoner"]
    assert run("models", "show", "nothing").exit_code == 1


def test_right_figures_are_found_the_same(home: Path) -> None:
    result = run("models", "verify", home / "card.json", "--image", home / "picture.png", "--device", "cpu", "--json")
    assert result.exit_code == 0, result.output
    told = json.loads(result.stdout)
    assert told["agrees"]
    assert told["revision"].startswith("sha256:")
    assert len(told["figures"]) == 3 + 8
    assert max(abs(one["own"] - one["published"]) for one in told["figures"]) < 1e-5


def test_another_folder_of_weights_is_read_where_one_is_named(home: Path) -> None:
    again = ("--weights", home / "weights", "--image", home / "picture.png", "--device", "cpu")
    assert run("models", "verify", home / "card.json", *again).exit_code == 0


@pytest.mark.parametrize(
    "change",
    [
        {"similarities": [[1, 2, 0.02 - 1]]},
        {"values": [{"input": 3, "first": [0.9]}]},
        {"inputs": [{"text": TEXTS[0]}, {"text": "something else"}, {"text": TEXTS[0], "image": "red"}]},
    ],
)
def test_wrong_figures_are_found_different(home: Path, tmp_path: Path, change: dict[str, Any]) -> None:
    card = changed(home, tmp_path, **change)
    result = run("models", "verify", card, "--image", home / "picture.png", "--device", "cpu", "--json")
    assert result.exit_code == 1, result.output
    assert not json.loads(result.stdout)["agrees"]


def test_the_picture_is_asked_for_and_never_fetched_unasked(home: Path) -> None:
    result = run("models", "verify", home / "card.json", "--device", "cpu")
    assert result.exit_code == 1
    assert "https://example.org/red.png" in " ".join(result.stderr.split())
    assert "--allow-remote" in result.stderr


def test_a_model_without_published_values_exits_2() -> None:
    for name in ("ume-tiny", "siglip2-base"):
        result = run("models", "verify", name)
        assert (result.exit_code, "no published values" in result.stdout) == (2, True)


def test_absent_weights_are_named_before_anything_is_loaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    result = run("models", "verify", "qwen3-vl-embedding-2b", "--json")
    assert result.exit_code == 1
    told = json.loads(result.stdout)
    assert "(4.3 GB) are not on this machine" in told["message"]
    assert "hf download Qwen/Qwen3-VL-Embedding-2B" in told["hint"]
    assert run("models", "verify", "qwen3-vl-embedding-2b", "--weights", tmp_path / "none").exit_code == 1


@pytest.mark.parametrize(("name", "said"), [("qwen3-vl-8b", "is a reasoner"), ("nothing", "not in the catalogue")])
def test_what_is_no_embedder_of_the_catalogue_is_refused(name: str, said: str) -> None:
    result = run("models", "verify", name, "--json")
    assert result.exit_code == 1
    assert said in json.loads(result.stdout)["message"]


def test_doctor_says_what_fits() -> None:
    findings = {one["name"]: one for one in json.loads(run("doctor", "--json").stdout)["findings"]}
    assert " of 17 (" in findings["models that fit"]["found"]


PARITY = Path(__file__).parents[1] / "parity" / "embed-rl" / "checkpoint"


@pytest.mark.parametrize("profile", ["train", None])
def test_a_collection_takes_vectors_of_the_profile_that_was_chosen(profile: str | None, tmp_path: Path) -> None:
    (tmp_path / "media").mkdir()
    (tmp_path / "media" / "note.txt").write_text("a red circle")
    chosen = ["--profile", profile] if profile else []
    other = [] if profile else ["--profile", "train"]
    shared = ["--store", tmp_path / "store", "--model", PARITY, "--device", "cpu", "--reasoner", "none", "--json"]
    indexed = run("index", tmp_path / "media", "--reasoning", "never", *shared, *chosen)
    assert (indexed.exit_code, json.loads(indexed.stdout)["indexed"]) == (0, 1)
    found = run("search", "a red circle", *shared, *chosen)
    assert (found.exit_code, len(json.loads(found.stdout)["hits"])) == (0, 1)
    refused = run("search", "a red circle", *shared, *other)
    assert refused.exit_code == 1
    assert "embed-rl/train" in json.loads(refused.stdout)["message"]


@pytest.mark.parametrize("workers", [[], ["--workers", "ray"]])
def test_an_unknown_profile_is_named_with_those_that_are_known(workers: list[str], tmp_path: Path) -> None:
    if workers:
        pytest.importorskip("ray")
    result = run(
        "index", tmp_path, "--model", PARITY, "--profile", "mteb", "--store", tmp_path / "s", "--json", *workers
    )
    assert result.exit_code == 1
    said = json.loads(result.stdout)
    assert said["message"] == "unknown profile 'mteb' of embed-rl"
    assert said["hint"] == "use one of mmeb, train, ume"
