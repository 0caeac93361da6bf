"""A run as its user sees it: its folder, its log, what it refuses, and what it does with broken pairs."""

from __future__ import annotations

import json
import math
import shutil
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

import pytest
from contrastive_world import MemorySource, small, source, write_start
from safetensors.torch import load_file

from ume_retrieval import InputError
from ume_retrieval.errors import TrainingError
from ume_retrieval.util.progress import Progress
from ume_training.contrastive import train_contrastive
from ume_training.contrastive.plan import plan_run
from ume_training.contrastive.records import newest_checkpoint, skipped_pairs
from ume_training.contrastive.run import read_facts


@pytest.fixture(scope="module")
def start(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_start(tmp_path_factory.mktemp("start"))


def data(broken: frozenset[int] = frozenset()) -> list[MemorySource]:
    return [source("text_to_image", 2, broken=broken), source("image_change", 2)]


def test_a_run_learns_logs_and_is_not_done_twice(start: Path, tmp_path: Path) -> None:
    seen: list[int] = []

    def watch(step: Progress) -> None:
        assert step.total == 12
        seen.append(step.done)

    settings = small(start, steps=12, sub_batch=8, learning_rate=3e-3, log_every=4, checkpoint_every=5, logit_scale=10)
    trained = train_contrastive(settings, data(), tmp_path, on_progress=watch)
    lines = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [4, 8, 12]
    assert {"loss", "direct", "reasoned", "pairs", "traced", "learning_rate", "pairs_per_s", "peak_memory_gb"} < set(
        lines[0] | lines[1] | lines[2]
    )
    assert lines[-1]["loss"] < lines[0]["loss"]
    assert all(0 <= line["traced"] <= 1 and line["pairs"] == 8 and line["peak_memory_gb"] > 0 for line in lines)
    assert trained.figures == lines[-1]
    assert (trained.steps, trained.skipped) == (12, 0)
    assert sorted(path.name for path in (tmp_path / "checkpoints").iterdir()) == ["checkpoint-10", "checkpoint-12"]
    assert train_contrastive(settings, data(), tmp_path, on_progress=watch) == trained
    assert seen == list(range(1, 13))
    # Killed after the last checkpoint: what is missing is written, and nothing is learned twice.
    before = load_file(trained.folder / "adapter_model.safetensors")
    shutil.rmtree(trained.folder)
    assert train_contrastive(settings, data(), tmp_path) == trained
    after = load_file(trained.folder / "adapter_model.safetensors")
    assert all(bool((before[name] == after[name]).all()) for name in before)


def test_a_checkpoint_that_was_cut_off_is_not_gone_on_from(tmp_path: Path) -> None:
    for step in (2, 4, 10):
        folder = tmp_path / "checkpoints" / f"checkpoint-{step}"
        folder.mkdir(parents=True)
        if step != 10:
            (folder / "whole.json").write_text("{}")
    newest = newest_checkpoint(tmp_path)
    assert newest is not None
    assert newest.name == "checkpoint-4"


def test_a_folder_of_another_run_is_refused(start: Path, tmp_path: Path) -> None:
    settings = small(start, steps=1)
    train_contrastive(settings, data(), tmp_path)
    with pytest.raises(InputError, match="other settings: learning_rate"):
        train_contrastive(settings.model_copy(update={"learning_rate": 1.0}), data(), tmp_path)
    with pytest.raises(InputError, match="the data"):
        train_contrastive(settings, data()[:1], tmp_path)
    train_contrastive(settings.model_copy(update={"workers": 3, "mini_batch": 2}), data(), tmp_path)
    other = tmp_path / "other"
    other.mkdir()
    (other / "notes.txt").write_text("mine")
    with pytest.raises(InputError, match="not empty"):
        train_contrastive(settings, data(), other)


def test_a_start_that_has_changed_is_refused(tmp_path: Path) -> None:
    begun = write_start(tmp_path / "start")
    settings, run = small(begun, steps=1), tmp_path / "run"
    train_contrastive(settings, data(), run)
    shutil.rmtree(run / "trained")
    (begun / "generation_config.json").write_text("{}")
    with pytest.raises(InputError, match="has changed"):
        train_contrastive(settings, data(), run)


def test_bfloat16_keeps_what_learns_in_float32(start: Path, tmp_path: Path) -> None:
    trained = train_contrastive(small(start, steps=2, dtype="bfloat16"), data(), tmp_path)
    assert math.isfinite(trained.figures["loss"])
    adapters = load_file(trained.folder / "adapter_model.safetensors")
    assert {str(weight.dtype) for weight in adapters.values()} == {"torch.float32"}


def test_broken_pairs_are_named_and_left_out(start: Path, tmp_path: Path) -> None:
    trained = train_contrastive(small(start, steps=4, workers=1), data(frozenset({1, 2, 3})), tmp_path)
    assert trained.skipped == 3
    named = skipped_pairs(tmp_path)
    assert {line["row"] for line in named} == {1, 2, 3}
    assert named[0]["error"] == "broken_media"
    assert "text_to_image.jsonl line" in named[0]["message"]
    lines = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert min(line["pairs"] for line in lines) < 8


def test_a_broken_pair_stops_the_run_when_told_so(start: Path, tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match=r"text_to_image\.jsonl line 2: the picture does not decode") as caught:
        train_contrastive(small(start, steps=9, on_error="stop"), data(frozenset({1})), tmp_path)
    assert "on_error" in caught.value.hint


def test_nothing_but_broken_pairs_is_an_error(start: Path, tmp_path: Path) -> None:
    broken = [source("text_to_image", 1, broken=frozenset(range(4)))]
    with pytest.raises(TrainingError, match="4 of 4 pairs could not be used"):
        train_contrastive(small(start, steps=1), broken, tmp_path)


def test_what_cannot_be_shared_by_the_processes_is_refused(
    start: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WORLD_SIZE", "3")
    with pytest.raises(InputError, match="shared by 3 processes"):
        train_contrastive(small(start), data(), tmp_path)


def test_a_cut_beyond_the_vector_is_refused(start: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot be cut to 64"):
        train_contrastive(small(start, matryoshka_dims=(16, 64)), data(), tmp_path)


def test_nothing_to_tell_apart_is_an_error(start: Path, tmp_path: Path) -> None:
    alone = [MemorySource(one.name, one.pairs[:1]) for one in data()]
    with pytest.raises(TrainingError, match="no two pairs come together"):
        train_contrastive(small(start, steps=1), alone, tmp_path / "alone")
    two = [MemorySource("two", data()[0].pairs[:2], frozenset({0}))]
    with pytest.raises(TrainingError, match="1 of 2 pairs could not be used"):
        train_contrastive(small(start, steps=1), two, tmp_path / "two")


def test_weights_are_passes_and_lengthen_the_run(start: Path) -> None:
    def drawn(weights: Mapping[str, float] | None, **changes: object) -> tuple[int, ...]:
        sources = [MemorySource(name, pairs) for name, pairs in (("big", world * 9), ("small", world))]
        plan = plan_run(sources, small(start, steps=None, epochs=100, **changes), weights)
        parts = Counter(sources[part.source].name for step in plan.steps for part in step)
        return len(plan.steps), parts["big"], parts["small"]

    world = source("text_to_image", 1).pairs
    assert drawn({"big": 1.0, "small": 1.0}) == drawn(None) == drawn({})
    steps, big, few = drawn({"small": 3})
    assert steps == 600  # 36 + 3 * 4 pairs, 8 a step, 100 times
    assert big == pytest.approx(900, rel=0.1)
    assert few == pytest.approx(300, rel=0.1)
    assert drawn({"small": 0}) == (450, 900, 0)
    with pytest.raises(InputError, match="unknown data set 'smal'"):
        drawn({"smal": 2})


def test_a_start_that_has_moved_is_the_same_start(tmp_path: Path) -> None:
    begun, run = write_start(tmp_path / "here"), tmp_path / "run"
    train_contrastive(small(begun, steps=1), data(), run)
    there = begun.rename(tmp_path / "there")
    assert train_contrastive(small(there, steps=1), data(), run).steps == 1
    assert read_facts(run / "trained").base == str(there)
    shutil.rmtree(run / "trained")
    again = there.rename(tmp_path / "again")
    train_contrastive(small(again, steps=1), data(), run)
    assert read_facts(run / "trained").base == str(again)
    (again / "generation_config.json").write_text("{}")
    other = again.rename(tmp_path / "other")
    with pytest.raises(InputError, match="other settings: embedder"):
        train_contrastive(small(other, steps=1), data(), run)
