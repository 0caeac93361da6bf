from __future__ import annotations

import contextlib
import json
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from ume_retrieval.chat import TextPart, images_of
from ume_retrieval.engines.transformers.processor import ChatInputs
from ume_training.contrastive import pool_at_token, symmetric_infonce
from ume_training.run_folder import LOG
from ume_training.shapes.evaluate import hit_at_1
from ume_training.shapes.levels import LEVELS
from ume_training.shapes.pair.architecture import EMBEDDER_SPEC, Size, build_model, build_processor
from ume_training.shapes.pair.loop import Schedule, fit
from ume_training.shapes.pair.sft_examples import (
    SFTExample,
    also_right,
    completion_loss,
    pairs_with_look_alikes,
    shown_to_embedder,
    trace_example,
)
from ume_training.shapes.pair.tokenizer import build_tokenizer
from ume_training.shapes.tasks import TASKS

TINY = Size(hidden=32, layers=2, vision_hidden=32, vision_layers=2)


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    return build_tokenizer(EMBEDDER_SPEC.emb_token, samples=300)


def test_the_tokenizer_gives_back_any_text(tokenizer: Any) -> None:
    for text in ("red circle top left", "Grüße, 世界 🙂", '{"bbox_2d": [[40, 40, 293, 293]]}', "\ttabs\n and  spaces"):
        assert tokenizer.decode(tokenizer(text)["input_ids"]) == text


def test_coordinates_and_words_are_one_token_each(tokenizer: Any) -> None:
    ids = tokenizer('{"bbox_2d": [[40, 373, 293, 627]]}')["input_ids"]
    assert len(ids) == 5
    assert len(tokenizer(" yellow triangle")["input_ids"]) == 2


def test_the_loss_counts_the_completion_alone(tokenizer: Any) -> None:
    model, inputs = build_model(tokenizer, TINY, 0), ChatInputs(build_processor(tokenizer), "right")
    lesson = trace_example(random.Random(2), LEVELS["default"])
    with torch.no_grad():
        loss, _ = completion_loss(model, inputs, [lesson])
        batch = inputs.tensors([lesson.chat], [lesson.completion + "<|im_end|>"])
        logits = model(**batch).logits[0]
    length = len(tokenizer(lesson.completion + "<|im_end|>")["input_ids"])
    targets = batch["input_ids"][0, -length:]
    expected = torch.nn.functional.cross_entropy(logits[-length - 1 : -1], targets)
    assert loss.item() == pytest.approx(expected.item(), rel=1e-4)


def test_padding_does_not_change_the_loss(tokenizer: Any) -> None:
    model, inputs = build_model(tokenizer, TINY, 0), ChatInputs(build_processor(tokenizer), "right")
    lessons = [trace_example(random.Random(seed), LEVELS["default"]) for seed in range(4)]
    with torch.no_grad():
        together, _ = completion_loss(model, inputs, lessons)
        sizes = [len(tokenizer(lesson.completion + "<|im_end|>")["input_ids"]) for lesson in lessons]
        alone = [completion_loss(model, inputs, [lesson])[0].item() for lesson in lessons]
    assert together.item() == pytest.approx(np.average(alone, weights=sizes), rel=1e-3)


def _fit(folder: Path, steps: int, tokenizer: Any) -> dict[str, Any]:
    model, inputs = build_model(tokenizer, TINY, 0), ChatInputs(build_processor(tokenizer), "right")

    def step(rng: random.Random) -> tuple[Any, dict[str, float]]:
        lessons: list[SFTExample] = [trace_example(rng, LEVELS["default"]) for _ in range(2)]
        return completion_loss(model, inputs, lessons)

    # The cosine runs over six steps in either case; only how far it gets differs.
    schedule = Schedule(steps=6, learning_rate=1e-3, warmup=2, save_every=1, log_every=1)
    with contextlib.suppress(InterruptedError):
        fit(model, _stop_after(step, steps), schedule, folder=folder, name="test", seed=3)
    return dict(model.state_dict())


def _stop_after(step: Any, steps: int) -> Any:
    taken = iter(range(steps))

    def limited(rng: random.Random) -> Any:
        if next(taken, None) is None:
            raise InterruptedError
        return step(rng)

    return limited


def test_a_stopped_training_goes_on_to_the_same_weights(tmp_path: Path, tokenizer: Any) -> None:
    whole = _fit(tmp_path / "whole", 6, tokenizer)
    _fit(tmp_path / "halves", 3, tokenizer)
    halves = _fit(tmp_path / "halves", 6, tokenizer)
    for name, weight in whole.items():
        torch.testing.assert_close(halves[name], weight, rtol=1e-5, atol=1e-6)
    steps = [json.loads(line)["step"] for line in (tmp_path / "halves" / LOG).read_text().splitlines()]
    assert steps == [1, 2, 3, 4, 5, 6]


def test_infonce_by_hand() -> None:
    queries = torch.nn.functional.normalize(torch.randn(4, 8, generator=torch.Generator().manual_seed(0)), dim=-1)
    items = torch.nn.functional.normalize(torch.randn(4, 8, generator=torch.Generator().manual_seed(1)), dim=-1)
    loss, figures = symmetric_infonce(queries, items, torch.zeros(4, 4, dtype=torch.bool), scale=50.0)
    logits = (50 * queries @ items.T).numpy()
    rows = -np.log(np.exp(np.diag(logits)) / np.exp(logits).sum(1)).mean()
    columns = -np.log(np.exp(np.diag(logits)) / np.exp(logits).sum(0)).mean()
    assert loss.item() == pytest.approx((rows + columns) / 2, rel=1e-4)
    assert figures["in_batch_hit@1"] == np.mean(logits.argmax(1) == np.arange(4))


def test_infonce_does_not_push_away_what_is_also_right() -> None:
    same = torch.nn.functional.normalize(torch.ones(2, 8), dim=-1)
    pushed, _ = symmetric_infonce(same, same, torch.zeros(2, 2, dtype=torch.bool))
    spared, _ = symmetric_infonce(same, same, torch.ones(2, 2, dtype=torch.bool))
    assert pushed.item() == pytest.approx(np.log(2), rel=1e-4)
    assert spared.item() == pytest.approx(0.0, abs=1e-6)


def test_pooling_refuses_an_input_without_the_token() -> None:
    hidden, ids = torch.randn(2, 3, 4), torch.tensor([[1, 9, 0], [1, 2, 3]])
    with pytest.raises(ValueError, match="lacks the token"):
        pool_at_token(hidden, ids, 9)
    pooled = pool_at_token(hidden[:1], ids[:1], 9)
    torch.testing.assert_close(pooled[0], torch.nn.functional.normalize(hidden[0, 1], dim=-1))


# The released contrastive training never reads the T-CoT.


def test_the_embedder_is_trained_on_trace_and_crops() -> None:
    rng = random.Random(1)
    pair = TASKS["image_change"].draw(rng, LEVELS["default"])
    plain = shown_to_embedder(pair.query, rng, with_trace=False)
    traced = shown_to_embedder(pair.query, rng, with_trace=True)
    words = [part.text for message in traced for part in message.parts if isinstance(part, TextPart)]
    assert any(pair.query.tcot.answer in text for text in words)
    assert len(images_of(traced)) == len(images_of(plain)) + len(pair.query.tcot.boxes)


def test_batches_hold_families_of_look_alikes() -> None:
    pairs = pairs_with_look_alikes(random.Random(0), LEVELS["default"], TASKS["text_to_image"], 8, 4)
    right = also_right(pairs)
    assert right.diagonal().all()
    assert right.sum() < right.numel() / 2


def test_hit_at_1() -> None:
    similarities = np.array([[0.9, 0.1, 0.1], [0.8, 0.7, 0.1], [0.1, 0.1, 0.3]], dtype=np.float32)
    assert hit_at_1(similarities, [{0}, {1}, {2}]) == pytest.approx(2 / 3)


def test_a_stopped_training_writes_no_line_of_its_log_twice(tmp_path: Path) -> None:
    model, calls = torch.nn.Linear(1, 1), iter(range(99))

    def step(_: random.Random) -> tuple[Any, dict[str, float]]:
        if next(calls) == 7:
            raise KeyboardInterrupt
        return model(torch.ones(1)).sum() ** 2, {}

    schedule = Schedule(steps=10, learning_rate=0.1, warmup=1, save_every=4, log_every=2)
    with contextlib.suppress(KeyboardInterrupt):
        fit(model, step, schedule, folder=tmp_path, name="x", seed=0)
    fit(model, step, schedule, folder=tmp_path, name="x", seed=0)
    assert [json.loads(line)["step"] for line in (tmp_path / LOG).read_text().splitlines()] == [2, 4, 6, 8, 10]
