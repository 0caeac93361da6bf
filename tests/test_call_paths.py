"""How many files and functions a call passes: bounds that only ever get lower."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[1] / "benchmarks" / "call_paths.py"

BOUNDS = {
    "encode_corpus, text, direct, fakes": (10, 60),
    "encode_corpus, text, direct, ume-tiny": (10, 64),
    "encode_corpus, image, reasoned, fakes": (22, 145),
    "encode_corpus, image, reasoned, ume-tiny": (26, 195),
    "index, one image, direct, fakes": (39, 250),
    "search, text, direct, fakes": (26, 112),
}
"""Most files and functions of each call; of a collection in a folder, some ten files share, seal and check it."""

Passed = list[tuple[str, str]]


@pytest.fixture(scope="module")
def paths() -> dict[str, Passed]:
    """Files and functions by call, from a process of its own: what is profiled there is nobody else's."""
    command = [sys.executable, str(SCRIPT), "--json"]
    done = subprocess.run(command, check=True, capture_output=True, text=True)  # noqa: S603  # our own interpreter
    found: dict[str, Passed] = json.loads(done.stdout)
    return found


@pytest.mark.parametrize("call", BOUNDS)
def test_a_call_passes_few_files_and_functions(paths: dict[str, Passed], call: str) -> None:
    files = sorted({file for file, _ in paths[call]})
    most_files, most_functions = BOUNDS[call]
    assert 0 < len(files) <= most_files, "\n".join(files)
    assert len(paths[call]) <= most_functions


def test_every_measured_call_has_a_bound(paths: dict[str, Passed]) -> None:
    assert paths.keys() == BOUNDS.keys()
