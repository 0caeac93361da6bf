"""`ume store`, and the filters of `ume search`: on real folders, no model where none is needed."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner, Result

from ume_cli.app import app
from ume_cli.option_groups import ModelOptions
from ume_qdrant import CollectionMeta, EdgeStore, Layout, Point
from ume_qdrant.stores.schema import meta_of
from ume_retrieval.testing import fake_embedder
from ume_training.shapes.draw import draw_scene, write_pages
from ume_training.shapes.levels import LEVELS
from ume_training.shapes.world import sample_page, sample_scene

META = CollectionMeta("model", "rev", "embed-rl", 4)


def run(*arguments: str | Path, **kwargs: Any) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments], **kwargs)


def run_json(*arguments: str | Path) -> Any:
    result = run(*arguments, "--json")
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A folder with the collections one and two, of three points each."""
    for name in ("one", "two"):
        with EdgeStore(tmp_path / "vectors", name) as store:
            store.create(META)
            row = np.array([1, 0, 0, 0], dtype=np.float32)
            fields = {"source": "a.png", "kind": "image", "reasoning": "later"}
            ids = [f"00000000-0000-0000-0000-00000000000{n}" for n in range(3)]
            store.upsert([Point(key, {"direct": row}, fields) for key in ids])
    return tmp_path / "vectors"


def test_info_says_what_is_there(place: Path) -> None:
    data = run_json("store", "info", "--store", place, "--collection", "one")
    assert data == {
        "collection": "one",
        "aliases": [],
        "points": 3,
        "image": 3,
        "video": 0,
        "page": 0,
        "text": 0,
        "reasoned": 0,
        "embedder": "model@rev",
        "reasoner": None,
        "dimension": 4,
        "layout": "full vectors",
        "tenant_key": None,
        "indexes": [],
    }
    assert "model@rev" in run("store", "info", "--store", place, "--collection", "one").stdout


def test_an_alias_swaps_a_new_collection_in(place: Path) -> None:
    options = ("--store", place)
    assert run_json("store", "alias", "live", *options, "--collection", "one")["before"] is None
    assert run_json("store", "alias", "live", *options, "--collection", "two")["before"] == "one"
    assert run_json("store", "info", *options, "--collection", "live")["collection"] == "two"
    assert run_json("store", "drop", "one", "--yes", *options) == {"collection": "one", "points": 3}
    assert run_json("store", "unalias", "live", *options) == {"alias": "live", "collection": "two"}
    missing = run("store", "info", *options, "--collection", "live", "--json")
    assert (missing.exit_code, json.loads(missing.stdout)["error"]) == (1, "collection_not_found")


def test_metadata_filter_hits_and_have_indexes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    embedder = fake_embedder()
    monkeypatch.setattr(ModelOptions, "load", lambda _: embedder)
    place = ("--store", tmp_path / "vectors", "--collection", "shared")
    with EdgeStore(tmp_path / "vectors", "shared") as store:
        store.create(meta_of(embedder, reasoned=False), Layout(tenant="customer"))
        row = embedder.encode_query("red", reasoning="never").astype(np.float32)
        rows = [("acme", 2020), ("acme", 2024), ("globex", 2024)]
        fields = {"source": "a.txt", "kind": "text", "text": "red", "reasoning": "never"}
        store.upsert(
            [
                Point(
                    f"00000000-0000-0000-0000-00000000000{n}",
                    {"direct": row},
                    {**fields, "meta": {"customer": customer, "year": year}},
                )
                for n, (customer, year) in enumerate(rows)
            ]
        )
    indexes = run_json("store", "create-index", "year=integer", "camera.maker=keyword", *place)["indexes"]
    assert indexes == {"camera.maker": "keyword", "customer": "keyword", "year": "integer"}
    data = run_json("store", "info", *place)
    assert (data["points"], data["tenant_key"], data["indexes"][0]) == (3, "customer", "camera.maker (keyword)")
    found = run_json("search", "red", "--tenant", "acme", "--where", "year>2020", "--where", "not draft=true", *place)
    assert [hit["meta"] for hit in found["hits"]] == [{"customer": "acme", "year": 2024}]
    assert "customer=acme, year=2020" in run("search", "red", "--tenant", "acme", *place, env={"COLUMNS": "160"}).stdout
    for arguments, code, words in (
        (("search", "red"), "tenant_required", "--tenant"),
        (("search", "red", "--tenant", "acme", "--where", "year>="), "invalid_input", "year>="),
        (("store", "create-index", "year"), "invalid_input", "KEY=KIND"),
        (("store", "create-index", "year=number"), "invalid_input", "integer"),
    ):
        result = run(*arguments, *place, "--json")
        assert result.exit_code == 1
        said = json.loads(result.stdout)
        assert said["error"] == code
        assert words in said["message"] + said["hint"]


def test_dropping_asks_first(place: Path) -> None:
    result = run("store", "drop", "one", "--store", place, input="n\n")
    assert result.exit_code == 1
    assert "3 points" in result.stderr
    with EdgeStore(place, "one") as store:
        assert store.count() == 3
    assert run("store", "drop", "one", "--store", place, input="y\n").exit_code == 0
    assert not EdgeStore(place, "one").exists()


def test_a_collection_moves_and_changes_its_layout(place: Path, tmp_path: Path) -> None:
    move = ("store", "migrate", tmp_path / "there", "--store", place, "--collection", "one", "--as", "small")
    report = run_json(*move, "--short", "2", "--quantization", "binary", "--full", "disk")
    assert (report["copied"], report["unchanged"], report["others"]) == (3, 0, 0)
    with EdgeStore(tmp_path / "there", "small") as store:
        assert store.layout() == Layout(matryoshka_dim=2, quantization="binary", on_disk=True)
    assert run_json(*move)["unchanged"] == 3
    refused = run(*move, "--short", "3", "--json")
    assert json.loads(refused.stdout)["error"] == "store_mismatch"


def test_search_narrows_groups_and_spreads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UME_CACHE_DIR", str(tmp_path / "cache"))
    rng, level = random.Random(7), LEVELS["default"]
    for folder in ("near", "far"):
        (tmp_path / folder).mkdir()
        draw_scene(sample_scene(rng, level), rng).save(tmp_path / folder / "scene.png")
    write_pages([sample_page(rng, level) for _ in range(3)], tmp_path / "far" / "stock.pdf")
    options = ("--store", tmp_path / "vectors", "--reasoner", "none")
    index = run_json("index", tmp_path / "near", tmp_path / "far", *options, "--short", "8", "--quantization", "scalar")
    assert index["indexed"] == 3
    with EdgeStore(tmp_path / "vectors", "default") as store:
        assert store.layout() == Layout(matryoshka_dim=8, quantization="scalar")

    def found(*narrowed: str | Path) -> list[tuple[str, int]]:
        hits = run_json("search", "find image: red circle", *options, *narrowed)["hits"]
        return sorted((Path(hit["source"]).parent.name, hit["page"] or 0) for hit in hits)

    assert len(found("--diversity", "0.5")) == 5
    assert found("--under", tmp_path / "near", "--exact") == [("near", 0)]
    assert found("--page", "1", "--page", "3") == [("far", 1), ("far", 3)]
    assert len(found("--group-by", "source")) == 3
    assert found("--from", "0") == []
    assert run("search", "x", *options, "--from", "3", "--to", "2").exit_code == 1
    assert run("search", "x", *options, "--diversity", "2").exit_code == 2


def test_a_damaged_collection_is_found_and_repaired(place: Path) -> None:
    options = ("--store", place, "--collection", "one")
    assert run_json("store", "verify", *options)["intact"] is True
    [page] = (place / "one").rglob("payload_storage/page_0.dat")
    with page.open("r+b") as file:
        file.write(b"damage")
    info = run("store", "info", *options, "--json")
    assert info.exit_code == 1
    assert json.loads(info.stdout)["error"] == "store_damaged"
    found = run("store", "verify", *options, "--json")
    assert found.exit_code == 1
    assert len(json.loads(found.stdout)["damaged"]) == 1
    repaired = run_json("store", "repair", *options)
    assert repaired["kept"] + len(repaired["lost"]) + repaired["unnamed"] == 3
    assert run("store", "verify", *options).exit_code == 0
    assert run_json("store", "info", "--store", place, "--collection", "two")["points"] == 3


def test_a_snapshot_is_restored_under_another_name(place: Path, tmp_path: Path) -> None:
    archive = tmp_path / "one.tar.gz"
    assert run_json("store", "snapshot", archive, "--store", place, "--collection", "one")["points"] == 3
    assert run_json("store", "restore", archive, "--store", place, "--collection", "three")["points"] == 3
    again = run("store", "restore", archive, "--store", place, "--collection", "three")
    assert again.exit_code == 1
    assert run_json("store", "info", "--store", place, "--collection", "three")["points"] == 3


def test_export_copies_like_migrate(place: Path, tmp_path: Path) -> None:
    copied = run_json("store", "export", "--to", tmp_path / "copy", "--store", place, "--collection", "one")
    assert copied["copied"] == 3
