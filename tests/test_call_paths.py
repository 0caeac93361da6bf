"""How many files and functions a call passes: bounds that only ever get lower."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))

from call_paths import Passed, measure

BOUNDS = {
    "encode_corpus, text, direct, fakes": (10, 60),
    "encode_corpus, text, direct, ume-tiny": (10, 60),
    "encode_corpus, image, reasoned, fakes": (20, 145),
    "encode_corpus, image, reasoned, ume-tiny": (26, 190),
    "index, one image, direct, fakes": (33, 175),
    "search, text, direct, fakes": (22, 90),
}
"""Most files and functions of each call."""


@pytest.fixture(scope="module")
def paths(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Passed]:
    return measure(tmp_path_factory.mktemp("paths"))


@pytest.mark.parametrize("call", BOUNDS)
def test_a_call_passes_few_files_and_functions(paths: dict[str, Passed], call: str) -> None:
    files, functions = BOUNDS[call]
    assert 0 < len(paths[call].files) <= files, "\n".join(sorted(paths[call].files))
    assert len(paths[call].functions) <= functions


def test_every_measured_call_has_a_bound(paths: dict[str, Passed]) -> None:
    assert paths.keys() == BOUNDS.keys()
