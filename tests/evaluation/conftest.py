"""One small world, written once in both benchmarks' layouts."""

from __future__ import annotations

from pathlib import Path

import pytest
from evaluation_world import World, write_mmeb, write_uvrb

from ume_retrieval import ReasoningEmbedder, Sampling


@pytest.fixture(scope="session")
def shapes_world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return World(tmp_path_factory.mktemp("evaluation-world"))


@pytest.fixture(scope="session")
def mmeb(shapes_world: World, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All 78 tasks; read only."""
    return write_mmeb(shapes_world, tmp_path_factory.mktemp("mmeb-v2"))


@pytest.fixture(scope="session")
def uvrb(shapes_world: World, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All 16 data sets; read only."""
    return write_uvrb(shapes_world, tmp_path_factory.mktemp("uvrb"))


@pytest.fixture(scope="session")
def bundled(tmp_path_factory: pytest.TempPathFactory) -> ReasoningEmbedder:
    cache = tmp_path_factory.mktemp("evaluation-traces") / "traces.sqlite3"
    # What is told in words that the pair has never read makes it ramble: short replies keep the tests short.
    sampling = Sampling(max_tokens=64)
    return ReasoningEmbedder.from_pretrained("ume-tiny", cache=cache, device="cpu", sampling=sampling)
