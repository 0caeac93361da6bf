"""`ume train` as a person runs it."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from shapes_pairs import write_shapes_pairs
from typer.testing import CliRunner, Result

from ume_cli.app import app


def run(*arguments: str | Path) -> Result:
    return CliRunner().invoke(app, ["train", *(str(argument) for argument in arguments)])


def run_json(*arguments: str | Path) -> Any:
    """Standard output must be one JSON object and nothing else."""
    result = run(*arguments, "--json")
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    pairs = write_shapes_pairs(
        tmp_path / "world", tasks=("text_to_image",), level="default", group_size=2, count=8, traces="true"
    )
    path = tmp_path / "mine.yaml"
    path.write_text(
        f"""\
name: mine
description: one judge
data: {{pairs: ['{pairs}']}}
stages:
  - {{stage: filter, data: data, judge: words}}
"""
    )
    return path


def test_every_command_says_what_it_does() -> None:
    listed = run("--help").stdout
    for name in ("plan", "run", "convert", "check", "annotate", "filter", "contrastive", "egrl", "export"):
        assert name in listed
        assert run(name, "--help").exit_code == 0


def test_a_recipe_runs_and_is_done(recipe: Path, tmp_path: Path) -> None:
    first = run_json("run", recipe, "--run", tmp_path / "run")
    assert [(stage["name"], stage["how"]) for stage in first["stages"]] == [("filter", "start")]
    assert first["stages"][0]["figures"]["kept"] == 8
    assert set(first["stages"][0]["outputs"]) == {"result", "rejected"}
    again = run("run", recipe, "--run", tmp_path / "run")
    assert again.exit_code == 0
    assert "done before" in again.stderr
    assert "skip" in again.stdout


def test_a_wrong_recipe_is_one_line_with_its_place(tmp_path: Path) -> None:
    (tmp_path / "bad.yaml").write_text("name: bad\ndescription: x\nstages: []\n")
    result = run("run", tmp_path / "bad.yaml", "--run", tmp_path / "run", "--json")
    assert result.exit_code == 1
    error = json.loads(result.stdout)
    assert error["error"] == "invalid_input"
    assert "bad.yaml, line 1: data: this key is missing" in error["message"]
    assert "line 3: stages" in error["message"]


def test_plan_lists_what_is_missing_and_fails_when_told_to(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    data = run_json("plan", "embed-rl-2b", "--gpu", "80", "--processes", "8", "--zero2")
    assert {"file", "gpu"} <= {one["kind"] for one in data["missing"]}
    assert next(stage for stage in data["stages"] if stage["name"] == "egrl")["memory_gb"]["weights"] > 35
    for people in (run("plan", "embed-rl-2b"), run("plan", "embed-rl-2b", "--strict")):
        assert "data/pairs.jsonl" in people.stdout
    assert people.exit_code == 1
    assert run("plan", "shapes-small", "--strict").exit_code == 0


def test_the_command_line_starts_without_heavy_packages() -> None:
    script = (
        "import sys, ume_cli.app\n"
        "heavy = {'torch', 'transformers', 'trl', 'peft', 'datasets', 'accelerate', 'pyarrow', 'yaml'}\n"
        "heavy |= {'numpy', 'PIL', 'av', 'pydantic', 'qdrant_client', 'qdrant_edge'}\n"
        "print(sorted(heavy & sys.modules.keys()), 'ume_training' in sys.modules)"
    )
    printed = subprocess.run(  # noqa: S603 - the tests' own interpreter
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    ).stdout
    assert printed.strip() == "[] False"


@pytest.mark.slow
def test_two_processes_share_a_run(recipe: Path, tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    environment = os.environ | {
        "WORLD_SIZE": "2",
        "LOCAL_WORLD_SIZE": "2",
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
        "OMP_NUM_THREADS": "1",
        "ACCELERATE_USE_CPU": "true",
    }
    command = [sys.executable, "-m", "ume_cli.training.launch", str(recipe), "--run", str(tmp_path / "run"), "--json"]
    both = [
        subprocess.Popen(  # noqa: S603 - the tests' own interpreter
            command, env=environment | {"RANK": str(rank), "LOCAL_RANK": str(rank)}, stdout=subprocess.PIPE, text=True
        )
        for rank in range(2)
    ]
    printed = [process.communicate(timeout=300)[0] for process in both]
    assert [process.returncode for process in both] == [0, 0]
    # The first process alone runs the stage and tells of it.
    assert json.loads(printed[0])["stages"][0]["figures"]["kept"] == 8
    assert printed[1] == ""
