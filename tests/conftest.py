"""What several rooms of tests share: a pair with the bundled pair's architecture and random weights."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from ume_retrieval import LoadedItem
from ume_retrieval.checkpoint import write_spec
from ume_training.shapes.levels import LEVELS
from ume_training.shapes.pair.architecture import EMBEDDER_SPEC, REASONER_SPEC, Size, build_model, build_processor
from ume_training.shapes.pair.tokenizer import build_tokenizer
from ume_training.shapes.tasks import TASKS

# Doctests of several conftest.py would clash: only their fixtures count.
collect_ignore_glob = ["*/conftest.py"]

# Busy machines are slow; what a test finds must not depend on that.
settings.register_profile("house", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("house")


@pytest.fixture(scope="session")
def random_pair(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `reasoner/` and `embedder/`: right in form, without any knowledge."""
    folder = tmp_path_factory.mktemp("random-pair")
    tokenizer = build_tokenizer(EMBEDDER_SPEC.emb_token, samples=200)
    processor = build_processor(tokenizer)
    for name, spec, seed in (("reasoner", REASONER_SPEC, 1), ("embedder", EMBEDDER_SPEC, 2)):
        model = build_model(tokenizer, Size(hidden=64, layers=2, vision_hidden=32, vision_layers=2), seed)
        model.save_pretrained(folder / name)
        processor.save_pretrained(folder / name)
        write_spec(spec, folder / name)
    return folder


@pytest.fixture(scope="session")
def shapes_items() -> Callable[[int], list[LoadedItem]]:
    """Draws items of every modality: texts, scenes, pages, clips, questions about scenes."""

    def draw(seed: int) -> list[LoadedItem]:
        rng = random.Random(seed)
        pairs = [task.draw(rng, LEVELS["default"]) for task in TASKS.values()]
        return [sample.item(rng) for pair in pairs for sample in (pair.query, pair.positive)]

    return draw
