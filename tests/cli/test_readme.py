"""What the README shows must run as it stands."""

from __future__ import annotations

import random
import re
from pathlib import Path
from typing import Any

import pytest

from ume_training.shapes.draw import draw_scene, write_clip, write_pages
from ume_training.shapes.levels import LEVELS
from ume_training.shapes.world import Look, Scene, Thing, sample_clip, sample_page, sample_scene

README = (Path(__file__).parents[2] / "README.md").read_text(encoding="utf-8")


def test_the_first_python_example_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    rng = random.Random(5)
    for name in ("photos", "films", "manuals"):
        (tmp_path / name).mkdir()
    circle = Scene((Thing(Look("red", "circle"), 0), Thing(Look("blue", "cross"), 5)))
    draw_scene(circle, rng).save(tmp_path / "photos" / "circle.png")
    draw_scene(sample_scene(rng, LEVELS["default"]), rng).save(tmp_path / "photos" / "other.png")
    write_clip([sample_clip(rng, LEVELS["default"])], tmp_path / "films" / "clip.mp4")
    write_pages([sample_page(rng, LEVELS["default"])], tmp_path / "manuals" / "stock.pdf")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("UME_CACHE_DIR", str(tmp_path / "cache"))
    example = re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL)[0]
    exec(compile(example, "README.md", "exec"), {})  # noqa: S102 the project's own words
    hits = capsys.readouterr().out.splitlines()
    assert "circle.png" in hits[0]
    assert "red circle top left" in hits[0]


def test_the_llama_index_example_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = random.Random(6)
    (tmp_path / "films").mkdir()
    write_clip([sample_clip(rng, LEVELS["default"])], tmp_path / "films" / "clip.mp4")
    draw_scene(sample_scene(rng, LEVELS["default"]), rng).save(tmp_path / "chair.jpg")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("UME_CACHE_DIR", str(tmp_path / "cache"))
    [example] = [code for code in re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL) if "ume_llama" in code]
    names: dict[str, Any] = {}
    exec(compile(example, "README.md", "exec"), names)  # noqa: S102 the project's own words
    assert [Path(node.metadata["source"]).name for node in names["nodes"]] == ["clip.mp4"]


def test_every_command_of_the_readme_exists() -> None:
    from typer.testing import CliRunner

    from ume_cli.app import app

    shell = "\n".join(re.findall(r"```sh\n(.*?)```", README, flags=re.DOTALL))
    commands = set(re.findall(r"\bume (\w+)", shell))
    assert {"index", "enrich", "search", "report", "eval", "models", "doctor", "cache"} <= commands
    for command in commands:
        assert CliRunner().invoke(app, [command, "--help"]).exit_code == 0
