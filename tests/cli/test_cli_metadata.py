"""`ume index --metadata` and `--set`, and what does not go together."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from small_media import BLUE, RED, picture
from typer.testing import CliRunner, Result

from ume_cli.app import app
from ume_qdrant import EdgeStore


def run(*arguments: str | Path) -> Result:
    return CliRunner().invoke(app, ["index", *map(str, arguments)])


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "photos"
    made.mkdir()
    picture(made / "red.png", RED)
    picture(made / "blue.png", BLUE)
    return made


def test_tables_and_values_become_metadata(folder: Path, tmp_path: Path) -> None:
    table, store = tmp_path / "meta.csv", tmp_path / "vectors"
    table.write_text("file_name,owner,year\nred.png,ann,2024\ngone.png,bob,2023\n", encoding="utf-8")
    common = (folder, "--store", store, "--reasoning", "never", "--json")
    made: dict[str, Any] = json.loads(run(*common, "--metadata", table).stdout)
    assert (made["indexed"], [failure["source"] for failure in made["failed"]]) == (2, [f"{table} line 3"])
    again = json.loads(run(*common, "--set", "owner=carl", "--set", "draft=true").stdout)
    assert (again["relabelled"], again["model_calls"], again["failed"]) == (2, 0, [])
    with EdgeStore(store, "default") as opened:
        assert [point.payload["meta"] for point in opened.scroll()] == [{"owner": "carl", "draft": True}] * 2


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--metadata", "a.csv", "--set", "a=1"), "exclude each other"),
        (("--set", "owner"), "name=value"),
        (("--metadata", "a.csv", "--workers", "ray"), "--workers here"),
    ],
)
def test_options_that_do_not_go_together(folder: Path, options: tuple[str, ...], said: str) -> None:
    result = run(folder, *options, "--json")
    assert result.exit_code
    assert said in result.output
