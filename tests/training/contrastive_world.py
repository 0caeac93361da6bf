"""Shapes as data sets of pairs in memory, and small settings: what the tests of contrastive training share."""

from __future__ import annotations

import random
from dataclasses import dataclass
from pathlib import Path

from ume_retrieval import EmbedderSpec
from ume_retrieval.errors import BrokenMedia
from ume_retrieval.tcot import render
from ume_training.contrastive import ContrastiveSettings, LoraSettings
from ume_training.data.sources import LoadedPair
from ume_training.shapes.levels import LEVELS
from ume_training.shapes.pair.architecture import EMBEDDER_SPEC, Size, build_model, build_processor
from ume_training.shapes.pair.tokenizer import build_tokenizer
from ume_training.shapes.samples import Pair
from ume_training.shapes.tasks import TASKS, family


@dataclass(frozen=True)
class MemorySource:
    """Pairs of one Shapes task in families of four, drawn anew, and always the same, at each look."""

    name: str
    pairs: tuple[Pair, ...]
    broken: frozenset[int] = frozenset()
    hard: int = 0

    def __len__(self) -> int:
        return len(self.pairs)

    def __getitem__(self, index: int) -> LoadedPair:
        if index in self.broken:
            raise BrokenMedia(f"{self.name}.jsonl line {index + 1}: the picture does not decode")
        rng, pair = random.Random(f"{self.name}/{index}"), self.pairs[index]
        others = [self.pairs[(index + step) % len(self)].positive.item(rng) for step in range(1, self.hard + 1)]
        query, positive = pair.query.item(rng), pair.positive.item(rng)
        return LoadedPair(query, positive, tuple(others), render(pair.query.tcot), render(pair.positive.tcot))

    def group(self, index: int) -> str:
        return str(index // 4)

    def also_answers(self, query: int, positive: int) -> bool:
        return self.pairs[query].answered_by(self.pairs[positive].positive)


def source(task: str, families: int, *, broken: frozenset[int] = frozenset(), hard: int = 0) -> MemorySource:
    rng = random.Random(f"world/{task}")
    pairs = [pair for _ in range(families) for pair in family(TASKS[task], rng, LEVELS["default"], 4)]
    return MemorySource(task, tuple(pairs), broken, hard)


def write_start(folder: Path, *, pooled: str = "<emb>", spec: EmbedderSpec | None = EMBEDDER_SPEC) -> Path:
    """A model with random weights to train from; without a spec, a plain Qwen3-VL whose tokenizer lacks `<emb>`."""
    from ume_retrieval.checkpoint import write_spec

    tokenizer = build_tokenizer(pooled, samples=100)
    build_model(tokenizer, Size(hidden=32, layers=2, vision_hidden=32, vision_layers=2), 0).save_pretrained(folder)
    build_processor(tokenizer).save_pretrained(folder)
    if spec is not None:
        write_spec(spec, folder)
    return folder


def small(start: Path, **changes: object) -> ContrastiveSettings:
    """Settings of a run of seconds; anything can be changed."""
    settings: dict[str, object] = {
        "embedder": str(start),
        "batch": 8,
        "sub_batch": 4,
        "mini_batch": 16,
        "steps": 3,
        "learning_rate": 1e-3,
        "warmup_steps": 1,
        "lora": LoraSettings(r=4, alpha=8),
        "workers": 0,
        "log_every": 1,
        "checkpoint_every": 100,
    }
    return ContrastiveSettings.model_validate({**settings, **changes})
