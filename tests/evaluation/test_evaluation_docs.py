"""What docs/evaluation.md says of options and data must be so."""

from __future__ import annotations

import re
from pathlib import Path

from typer.testing import CliRunner

from ume_cli.app import app
from ume_eval import published
from ume_retrieval.engines.registry import presets

PAGE = (Path(__file__).parents[2] / "docs" / "evaluation.md").read_text(encoding="utf-8")


def test_every_option_exists() -> None:
    options = set(re.findall(r"(?<![\w-])--[a-z][\w-]+", PAGE)) - {"--repo-type", "--local-dir"}
    assert len(options) >= 10
    shown = CliRunner().invoke(app, ["eval", "mmeb-v2", "--help"], env={"COLUMNS": "200"}).stdout
    assert not {option for option in options if option not in shown}
    assert CliRunner().invoke(app, ["eval", "uvrb", "--help"]).exit_code == 0


def test_every_model_is_known() -> None:
    named = set(re.findall(r"--(?:model|reasoner) (\S+)", PAGE))
    assert named <= {preset.name for preset in presets()}
    beside = re.search(r"--beside ([\w.,-]+)", PAGE)
    assert beside is not None
    assert set(beside[1].split(",")) <= {one.model for one in published("mmeb-v2")}
