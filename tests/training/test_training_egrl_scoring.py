"""Rewards of whole batches with the bundled Embedder: order does not matter, two processes give the rewards of one."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from ume_retrieval import TCot
from ume_retrieval.engines.registry import resolve_embedder, resolve_reasoner
from ume_retrieval.engines.transformers.embedder import TransformersEmbedder
from ume_retrieval.tcot import parse, render
from ume_training.egrl import EgrlSettings, RewardWeights, WordsDiscriminator
from ume_training.egrl.rollouts import Prompts, embed_rollouts
from ume_training.egrl.sampler import PairRows
from ume_training.egrl.scoring import Scorer
from ume_training.shapes.pairs import ShapesSource

ROLLOUTS = 4
SETTINGS = EgrlSettings(discriminator="words", rollouts=ROLLOUTS, pairs=8)


def batch() -> tuple[Prompts, list[int], list[str]]:
    """Rollouts of mixed quality: true T-CoTs, those of another pair, and broken ones."""
    sources = tuple(ShapesSource(task, "questions", 9, 4, 4) for task in ("image_question", "text_to_video"))
    prompts = Prompts(PairRows(sources), resolve_reasoner("ume-tiny").spec)
    rng = random.Random(4)
    rows = [row for row in range(16) for _ in range(ROLLOUTS)]
    texts = []
    for row in rows:
        other = row if rng.random() < 0.5 else row % 2 + 2 * rng.randrange(8)
        source, position = prompts.rows.locate(other)
        pair = source[position]
        text = str(pair.query_tcot if other % 2 == 0 else pair.positive_tcot)
        texts.append(text if rng.random() < 0.9 else rng.choice(["", text[:40], "no form at all"]))
    return prompts, rows, texts


def scorer(prompts: Prompts, **options) -> Scorer:
    found = resolve_embedder("ume-tiny")
    embedder = TransformersEmbedder.from_pretrained(found.model, spec=found.spec)
    return Scorer(SETTINGS, embedder, WordsDiscriminator(), prompts.rows.also_answers, **options)


@pytest.fixture(scope="module")
def scored():
    prompts, rows, texts = batch()
    return scorer(prompts).score([prompts[row] for row in rows], texts, step=5)


def test_true_tcots_earn_more_than_those_of_other_pairs(scored):
    prompts, rows, texts = batch()
    totals = scored.total(SETTINGS)
    true, wrong = [], []
    for row, text, total in zip(rows, texts, totals, strict=True):
        source, position = prompts.rows.locate(row)
        pair = source[position]
        (true if text == (pair.query_tcot, pair.positive_tcot)[row % 2] else wrong).append(total)
    assert len(true) > 10
    assert len(wrong) > 10
    assert np.mean(true) > np.mean(wrong) + 0.3
    assert set(scored.format) == {0.0, 1.0}
    assert 0 < scored.figures["unusable"] < 0.1


def test_the_order_of_the_rows_does_not_matter(scored):
    prompts, rows, texts = batch()
    order = list(range(len(rows)))
    random.Random(1).shuffle(order)
    shuffled = scorer(prompts).score([prompts[rows[i]] for i in order], [texts[i] for i in order], step=5)
    for part in ("format", "process", "outcome"):
        assert getattr(shuffled, part) == pytest.approx([getattr(scored, part)[i] for i in order], abs=1e-5), part


def test_a_weight_of_zero_asks_no_discriminator():
    class Never:
        def choose(self, questions):
            raise AssertionError("asked")

    prompts, rows, texts = batch()
    settings = SETTINGS.model_copy(update={"weights": RewardWeights(process=0)})
    base = scorer(prompts)
    silent = Scorer(settings, base.embedder, Never(), base.also_answers)
    assert set(silent.score([prompts[row] for row in rows[:16]], texts[:16], 0).process) == {0.0}


def test_the_reward_sees_pixels_crops_and_words():
    prompts, _, _ = batch()
    embedder = scorer(prompts).embedder
    one, other = prompts[0], prompts[2]
    source, position = prompts.rows.locate(0)
    true = str(source[position].query_tcot)
    tcot = parse(true)
    moved = render(TCot(tcot.thinking, tcot.rethink, tcot.answer, boxes=()))
    worded = true.replace("<answer>", "<answer>not ")
    vectors = embed_rollouts(embedder, [one, one, one, one], [true, true, moved, worded])
    assert np.array_equal(vectors[0], vectors[1])
    assert not np.allclose(vectors[0], vectors[2], atol=1e-3), "crops are not seen"
    assert not np.allclose(vectors[0], vectors[3], atol=1e-3), "words are not seen"
    pixels = embed_rollouts(embedder, [one, other], [true, true])
    assert not np.allclose(pixels[0], pixels[1], atol=1e-3), "pixels are not seen"
    assert np.isnan(embed_rollouts(embedder, [one], [""])).all()


PROCESS = """
import json, os, sys
sys.path.insert(0, {tests!r})
import torch
torch.set_num_threads(1)
from accelerate import PartialState
from accelerate.utils import gather_object
import test_training_egrl_scoring as here
state = PartialState(cpu=True)
prompts, rows, texts = here.batch()
half = len(rows) // state.num_processes
own = slice(state.process_index * half, (state.process_index + 1) * half)
scorer = here.scorer(prompts, gather=lambda local: list(gather_object(local)), rank=state.process_index)
scores = scorer.score([prompts[row] for row in rows[own]], texts[own], step=5)
with open(sys.argv[1] + str(state.process_index), "w") as file:
    json.dump([state.num_processes, scores.format, scores.process, scores.outcome], file)
"""


def test_two_processes_give_the_rewards_of_one(scored, tmp_path):
    code = tmp_path / "process.py"
    code.write_text(PROCESS.format(tests=str(Path(__file__).parent)))
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node=2", "--master-port=29617"]
    done = subprocess.run(  # noqa: S603 - our own interpreter
        [*command, str(code), str(tmp_path / "part-")],
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr[-2000:]
    parts = [json.loads((tmp_path / f"part-{rank}").read_text()) for rank in (0, 1)]
    assert [part[0] for part in parts] == [2, 2]
    for index, name in enumerate(("format", "process", "outcome"), 1):
        assert parts[0][index] + parts[1][index] == pytest.approx(getattr(scored, name), abs=1e-5), name
