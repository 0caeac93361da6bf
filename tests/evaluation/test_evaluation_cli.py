"""`ume eval mmeb-v2` and `ume eval uvrb` as a person runs them, with the bundled pair."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
from evaluation_world import QUERIES
from typer.testing import CliRunner, Result

from ume_cli.app import app


def run(*arguments: str | Path) -> Result:
    return CliRunner().invoke(app, ["eval", *map(str, arguments)], env={"COLUMNS": "200"})


def run_json(*arguments: str | Path) -> Any:
    result = run(*arguments, "--json")
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


@pytest.fixture(autouse=True)
def no_model_is_loaded_in_vain(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("UME_CACHE_DIR", str(tmp_path / "cache"))


def test_a_smoke_run_of_mmeb(mmeb: Path, tmp_path: Path) -> None:
    tasks = ("--tasks", "MSCOCO_t2i,ViDoRe_docvqa,MSR-VTT", "--limit", "1", "--out", tmp_path)
    first = run_json("mmeb-v2", mmeb, *tasks)
    assert [task["name"] for task in first["tasks"]] == ["MSCOCO_t2i", "MSR-VTT", "ViDoRe_docvqa"]
    assert {task["queries"] for task in first["tasks"]} == {1}
    assert set(first["groups"]) == {"direct", "reasoned", "fused"}
    assert first["beside"]["Embed-RL-2B"]["tasks"]["CIRR"] > 0
    assert {file.name for file in tmp_path.iterdir()} >= {
        "gain.png",
        "radar.png",
        "report.html",
        "report.md",
        "results.json",
        "traces.sqlite3",
        "vectors.sqlite3",
    }
    shown = run("mmeb-v2", mmeb, *tasks)
    assert shown.exit_code == 0, shown.output
    assert "visdoc VDRv1" in shown.stdout
    assert "gain" in shown.stdout
    assert "3 of 3 tasks were cut by --limit" in shown.output


def test_uvrb_directly(uvrb: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)  # plots are extra
    found = run_json("uvrb", uvrb, "--tasks", "CG", "--reasoning", "never", "--out", tmp_path, "--beside", "GVE-7B")
    assert [task["name"] for task in found["tasks"]] == ["MSRVTT", "DiDeMo", "CRB-G"]
    assert set(found["groups"]["direct"]) == {"TXT", "CG", "all"}
    assert found["reasoner"] is None
    assert list(found["beside"]) == ["GVE-7B"]
    assert not list(tmp_path.glob("*.png"))
    assert (tmp_path / "report.html").is_file()


def test_shards_and_merging(uvrb: Path, tmp_path: Path) -> None:
    common = ("--tasks", "CRB-G", "--reasoning", "never", "--beside", "none")
    for number in (1, 2):
        part = run_json("uvrb", uvrb, *common, "--shard", f"{number}/2", "--out", tmp_path / f"part{number}")
        assert part["shard"] == {"number": number, "of": 2}
    merge = ("--merge", tmp_path / "part1", "--merge", tmp_path / "part2")
    found = run_json("uvrb", uvrb, *common, *merge, "--out", tmp_path / "whole")
    assert found["tasks"][0]["queries"] == QUERIES
    assert not (tmp_path / "part1" / "results.json").exists()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--tasks", "nothing"], "unknown task"),
        (["--shard", "5/2"], "does not exist"),
        (["--reasoning", "often"], "unknown reasoning"),
        (["--visdoc", "v7"], "v7"),
        (["--beside", "GPT"], "no published scores"),
        (["--visdoc", "original", "--beside", "Embed-RL-2B"], "was measured on the page-fixed labels"),
        (["--merge", "nowhere"], "does not exist"),
    ],
)
def test_what_cannot_be_is_refused_before_a_model_is_loaded(
    mmeb: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], said: str
) -> None:
    def load(*_: object, **__: object) -> None:
        raise AssertionError("a model was loaded")

    monkeypatch.setattr("ume_cli.option_groups.load_embedder", load)
    result = run("mmeb-v2", mmeb, "--out", tmp_path, *arguments)
    assert result.exit_code == 1, result.output
    assert said in result.output


def test_a_folder_without_the_benchmark(tmp_path: Path) -> None:
    missing = run("mmeb-v2", tmp_path / "nowhere", "--out", tmp_path / "run")
    assert missing.exit_code == 1
    assert "is not a folder" in missing.output
    empty = run("uvrb", tmp_path, "--tasks", "CMRB", "--reasoning", "never", "--out", tmp_path / "run")
    assert empty.exit_code == 1
    assert "hf download" in empty.output
