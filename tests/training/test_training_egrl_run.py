"""EG-RL runs on TRL with the bundled pair: what it refuses, what it writes, and that a kill costs nothing."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from ume_retrieval import InputError
from ume_retrieval.engines.registry import resolve_reasoner
from ume_retrieval.engines.transformers.reasoner import TransformersReasoner
from ume_retrieval.errors import TrainingError
from ume_training.contrastive import LoraSettings
from ume_training.egrl import EgrlSettings, WatchSettings, WordsDiscriminator
from ume_training.egrl.hard import hard_pairs
from ume_training.egrl.run import _claim, count_steps, run_egrl
from ume_training.shapes.pairs import ShapesSource

SETTINGS = EgrlSettings(
    reasoner="ume-tiny",
    embedder="ume-tiny",
    discriminator="words",
    rollouts=2,
    pairs=2,
    micro_batch=4,
    steps=3,
    learning_rate=1e-4,
    schedule="constant",
    max_tokens=100,
    freeze_vision=False,
    save_every=1,
    samples_every=1,
    temperature=1.5,  # the bundled Reasoner is sure of itself: rollouts that are all alike teach nothing
    watch=WatchSettings(sampled_replies=4),
)


def sources(count: int = 8) -> list[ShapesSource]:
    return [
        ShapesSource(task, "questions", seed=3, group_size=2, count=count)
        for task in ("image_question", "video_question")
    ]


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "model.safetensors")


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """TRL and transformers warn of each other's deprecated names."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("egrl") / "run"
    with quiet():
        result = run_egrl(SETTINGS, sources(), folder)
    assert result.steps == 3
    assert result.sampled_format == 1.0
    return folder


def test_the_trained_reasoner_is_a_checkpoint_of_its_own(finished: Path) -> None:
    found = resolve_reasoner(str(finished / "reasoner"))
    before = resolve_reasoner("ume-tiny")
    assert found.spec == before.spec
    old, new = weights(Path(before.model)), weights(finished / "reasoner")
    assert old.keys() == new.keys()
    assert any(not torch.equal(old[name], new[name]) for name in old), "three steps leave the weights as they were"
    assert TransformersReasoner.from_pretrained(found.model, spec=found.spec).info.name.endswith("reasoner")


def test_every_step_is_logged_with_all_parts(finished: Path) -> None:
    rows = [json.loads(line) for line in (finished / "log.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == [1, 2, 3]
    wanted = {"reward", "format", "process", "outcome", "accuracy", "margin", "kl", "entropy", "tokens", "words"}
    assert all(wanted <= row.keys() for row in rows)
    assert any("boxes" in row for row in rows) or any("key_frames" in row for row in rows)
    weighted = [0.05 * row["format"] + 0.8 * row["process"] + 0.2 * row["outcome"] for row in rows]
    assert [row["reward"] for row in rows] == pytest.approx(weighted, abs=1e-5)


def test_rollouts_can_be_read(finished: Path) -> None:
    text = (finished / "rollouts" / "step-000000.md").read_text()
    assert "| reward | format | process | outcome | reply |" in text
    assert text.count("<answer>") == 2 * SETTINGS.pairs * SETTINGS.rollouts


def test_other_settings_do_not_go_on_in_the_same_folder(finished: Path) -> None:
    with pytest.raises(InputError, match="other settings"):
        run_egrl(SETTINGS.model_copy(update={"learning_rate": 1e-5}), sources(), finished)


def test_too_little_data_is_said_before_anything_is_loaded(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="none has so many"):
        run_egrl(SETTINGS.model_copy(update={"pairs": 64}), sources(), tmp_path)
    assert count_steps(SETTINGS.model_copy(update={"steps": None, "epochs": 2}), sources(8)) == 2 * 8


def test_a_micro_batch_that_does_not_divide_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="micro-batches of 3"):
        run_egrl(SETTINGS.model_copy(update={"micro_batch": 3}), sources(), tmp_path)


def test_a_reasoner_that_breaks_the_form_when_sampled_is_not_trained(tmp_path: Path) -> None:
    hot = SETTINGS.model_copy(update={"temperature": 30.0})
    with pytest.raises(TrainingError, match="sampled replies follow the form"):
        run_egrl(hot, sources(), tmp_path)
    assert not list(tmp_path.glob("checkpoint-*"))


def test_a_collapse_stops_the_run_and_names_the_last_good_checkpoint(tmp_path: Path) -> None:
    wild = SETTINGS.model_copy(
        update={"learning_rate": 0.05, "steps": 9, "watch": WatchSettings(sampled_replies=4, patience=2)}
    )
    told = r"collapsed at step \d+: .*; the last good checkpoint is .*checkpoint-\d"
    with pytest.raises(TrainingError, match=told), quiet():
        run_egrl(wild, sources(24), tmp_path)
    rows = (tmp_path / "log.jsonl").read_text().splitlines()
    assert len(rows) < 9
    assert not (tmp_path / "reasoner").exists()


def test_lora_leaves_the_vision_tower_and_merges_at_the_end(tmp_path: Path) -> None:
    with quiet():
        run_egrl(SETTINGS.model_copy(update={"lora": LoraSettings(r=4, alpha=8), "steps": 2}), sources(), tmp_path)
    old, new = weights(Path(resolve_reasoner("ume-tiny").model)), weights(tmp_path / "reasoner")
    assert old.keys() == new.keys()
    changed = {name for name in old if not torch.equal(old[name], new[name])}
    assert changed
    assert not [name for name in changed if "visual" in name]
    assert all("language_model" in name for name in changed)


def test_a_frozen_vision_tower_stays_bit_for_bit(tmp_path: Path) -> None:
    with quiet():
        run_egrl(SETTINGS.model_copy(update={"freeze_vision": True, "steps": 3}), sources(), tmp_path)
    old, new = weights(Path(resolve_reasoner("ume-tiny").model)), weights(tmp_path / "reasoner")
    changed = {name for name in old if not torch.equal(old[name], new[name])}
    assert changed
    assert not [name for name in changed if "visual" in name]


def read_log(folder: Path) -> list[dict[str, float]]:
    rows = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    return [{name: value for name, value in row.items() if not name.endswith("seconds")} for row in rows]


SCRIPT = """
import sys, warnings
from pathlib import Path
warnings.simplefilter("ignore")
sys.path.insert(0, {tests!r})
import test_training_egrl_run as here
here.run_egrl(here.SETTINGS, here.sources(), Path(sys.argv[1]))
"""


def test_a_run_killed_at_a_step_ends_where_an_uninterrupted_one_ends(finished: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    script = SCRIPT.format(tests=str(Path(__file__).parent))
    process = subprocess.Popen(  # noqa: S603 - our own interpreter
        [sys.executable, "-c", script, str(folder)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    deadline = time.monotonic() + 240
    while not (folder / "checkpoint-1" / "trainer_state.json").is_file():
        assert process.poll() is None, "the run ended before it could be killed"
        assert time.monotonic() < deadline
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not (folder / "reasoner").exists()
    with quiet():
        result = run_egrl(SETTINGS, sources(), folder)
    assert result.sampled_format is None, "a resumed run checks nothing again"
    whole, resumed = weights(finished / "reasoner"), weights(folder / "reasoner")
    assert all(torch.allclose(whole[name], resumed[name], atol=1e-6) for name in whole)
    assert read_log(finished) == read_log(folder)


def test_hard_pairs_are_whole_groups_that_the_reasoner_misses() -> None:
    found = resolve_reasoner("ume-tiny")
    reasoner = TransformersReasoner.from_pretrained(found.model, spec=found.spec)
    easy = hard_pairs(ShapesSource("image_classification", "questions", 3, 4, 8), reasoner, WordsDiscriminator())
    assert len(easy) == 0
    source = ShapesSource("image_question", "questions", 3, 4, 40)
    hard = hard_pairs(source, reasoner, WordsDiscriminator())
    assert 0 < len(hard) < 40
    assert len(hard) % 4 == 0
    assert hard.name == source.name
    assert hard.group(0) == hard.group(3) == source.group(hard.chosen[0])
    assert hard[0].query.content_id == source[hard.chosen[0]].query.content_id


def test_a_folder_belongs_to_what_has_learned_in_it(finished: Path, tmp_path: Path) -> None:
    for size in (3, 5):
        with pytest.raises(InputError, match=f"micro-batches of {size}"):
            run_egrl(SETTINGS.model_copy(update={"micro_batch": size}), sources(), tmp_path)
    with pytest.raises(InputError, match="other settings: data"):
        run_egrl(SETTINGS, sources(12), finished)
    (tmp_path / "file").write_text("mine")
    with pytest.raises(TrainingError, match="is not a folder"):
        run_egrl(SETTINGS, sources(), tmp_path / "file")


def test_a_model_that_has_moved_is_the_same_model(tmp_path: Path) -> None:
    run, here, there = (tmp_path / name for name in ("run", "here", "there"))
    (run / "checkpoint-1").mkdir(parents=True)
    (run / "checkpoint-1" / "trainer_state.json").write_text("{}")
    here.mkdir()
    (here / "config.json").write_text("{}")
    _claim(run, SETTINGS.model_copy(update={"reasoner": str(here)}), sources())
    here.rename(there)
    moved = SETTINGS.model_copy(update={"reasoner": str(there)})
    _claim(run, moved, sources())
    with pytest.raises(InputError, match="other settings: reasoner"):
        _claim(run, SETTINGS, sources())
    (there / "config.json").write_text("[]")
    with pytest.raises(InputError, match="other settings: models"):
        _claim(run, moved, sources())
