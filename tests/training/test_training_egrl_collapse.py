"""Signs of a collapse, and a log that a resumed run goes on with."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import pytest

from ume_training.egrl import WatchSettings
from ume_training.egrl.collapse import CollapseMonitor, read_figures, resume_monitor
from ume_training.run_folder import LOG, append_lines

FINE = {"format": 0.9, "kl": 0.1, "entropy": 0.5}


def log_step(folder: Path, step: int, figures: Mapping[str, float]) -> None:
    append_lines(folder / LOG, [{"step": step, **figures}])


@pytest.mark.parametrize(
    ("sign", "words"),
    [
        ({"format": 0.2}, "20% of replies follow the form"),
        ({"kl": 9.0}, "KL divergence from the start is 9.00"),
        ({"kl": float("nan")}, "KL divergence"),
        ({"entropy": 0.01}, "entropy is 0.0100"),
    ],
)
def test_each_sign_is_named_after_patience(sign, words):
    watch = CollapseMonitor(WatchSettings(min_entropy=0.05, patience=3))
    assert watch.look(1, FINE) is None
    bad = FINE | sign
    assert [watch.look(step, bad) for step in (2, 3)] == [None, None]
    collapse = watch.look(4, bad)
    assert collapse is not None
    assert (collapse.step, watch.good_step) == (4, 1)
    assert words in collapse.reason


def test_one_good_step_calms_the_watch():
    watch = CollapseMonitor(WatchSettings(patience=2))
    for step in range(0, 20, 2):
        assert watch.look(step, FINE | {"format": 0.0}) is None
        assert watch.look(step + 1, FINE) is None


def test_figures_have_our_names():
    assert read_figures({"rewards/format/mean": 0.5, "egrl/margin": 0.25, "kl": None, "other": 3}) == {
        "format": 0.5,
        "margin": 0.25,
    }


def test_a_resumed_run_takes_back_what_came_after_its_checkpoint(tmp_path):
    for step in range(1, 6):
        log_step(tmp_path, step, {"reward": step / 10})
    with (tmp_path / LOG).open("a") as log:
        log.write('{"step": 6, "rew')
    resume_monitor(WatchSettings(), tmp_path, 3)
    log_step(tmp_path, 4, {"reward": 0.4})
    steps = [json.loads(line)["step"] for line in (tmp_path / LOG).read_text().splitlines()]
    assert steps == [1, 2, 3, 4]


def test_a_resumed_run_remembers_its_last_good_step(tmp_path):
    for step in range(1, 8):
        log_step(tmp_path, step, FINE | ({"format": 0.0} if step in {5, 6} else {}))
    assert resume_monitor(WatchSettings(), tmp_path, 6) == CollapseMonitor(WatchSettings(), bad_steps=2, good_step=4)
    assert resume_monitor(WatchSettings(), tmp_path / "new", 0).good_step == 0
