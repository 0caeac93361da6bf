"""Runs `ume train`, as a person does."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

from typer.testing import CliRunner, Result

from ume_cli.training import train_app


def run(*arguments: str | Path) -> Result:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # of transformers, about its own names
        return CliRunner().invoke(train_app, [str(argument) for argument in arguments])


def run_json(*arguments: str | Path, code: int = 0) -> Any:
    """Standard output must be one JSON object and nothing else."""
    result = run(*arguments, "--json")
    assert result.exit_code == code, result.output
    return json.loads(result.stdout)
