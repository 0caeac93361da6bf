"""Killed and resumed, and on two processes: the same weights as an undisturbed run of one process."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

HERE = Path(__file__).parent


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, list[int]]]:
    folder = tmp_path_factory.mktemp("processes")
    done = subprocess.run(  # noqa: S603  # this interpreter, on a script of ours
        [sys.executable, str(HERE / "contrastive_driver.py"), str(folder)],
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(HERE)},
        capture_output=True,
        text=True,
        timeout=900,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout.splitlines()[-1])
    assert 1 not in [code for codes in report.values() for code in codes], done.stderr
    return folder, report


def weights(run: Path) -> dict[str, torch.Tensor]:
    found: dict[str, torch.Tensor] = {}
    for name in ("adapter_model", "emb_row"):
        found |= {f"{name}/{key}": value for key, value in load_file(run / "trained" / f"{name}.safetensors").items()}
    return found


def lines(run: Path) -> list[dict[str, Any]]:
    timed = {"pairs_per_s", "peak_memory_gb"}
    return [
        {name: value for name, value in json.loads(line).items() if name not in timed}
        for line in (run / "log.jsonl").read_text().splitlines()
    ]


def test_a_run_killed_four_times_ends_where_an_undisturbed_one_ends(runs: tuple[Path, dict[str, list[int]]]) -> None:
    folder, report = runs
    ends = [codes for name, codes in report.items() if name.startswith("torn")]
    assert ends == [[-signal.SIGKILL]] * 4 + [[0]]
    whole, torn = weights(folder / "whole"), weights(folder / "torn")
    assert whole.keys() == torn.keys()
    for name, weight in whole.items():
        torch.testing.assert_close(torn[name], weight, rtol=0, atol=1e-6)


def test_the_log_of_a_killed_run_has_every_line_once(runs: tuple[Path, dict[str, list[int]]]) -> None:
    folder, _ = runs
    whole, torn = lines(folder / "whole"), lines(folder / "torn")
    assert [line["step"] for line in torn] == [2, 4, 5]
    for one, other in zip(whole, torn, strict=True):
        assert one == pytest.approx(other, abs=1e-5)


def test_training_changes_the_weights(runs: tuple[Path, dict[str, list[int]]]) -> None:
    folder, _ = runs
    moved = [name for name, weight in weights(folder / "whole").items() if "lora_B" in name and bool(weight.any())]
    assert len(moved) == 2 * 7


def test_two_processes_have_the_loss_and_the_gradients_of_one(runs: tuple[Path, dict[str, list[int]]]) -> None:
    folder, report = runs
    assert report["two"] == [0, 0]
    for alone, shared in zip(lines(folder / "one"), lines(folder / "two"), strict=True):
        assert shared == pytest.approx(alone, abs=1e-5)
    one, two = (
        torch.load(folder / name / "checkpoints" / "checkpoint-2" / "optimizer.pt", weights_only=True)["state"]
        for name in ("one", "two")
    )
    assert one.keys() == two.keys()
    # The first matrix of an adapter has no gradient while its second, still zero after a warm-up step, hides it.
    assert sum(bool(state["exp_avg"].any()) for state in one.values()) >= len(one) // 2
    # AdamW's first moment is a mean of gradients, its second of their squares.
    for number, state in one.items():
        torch.testing.assert_close(two[number]["exp_avg"], state["exp_avg"], rtol=1e-3, atol=1e-7)
        torch.testing.assert_close(two[number]["exp_avg_sq"], state["exp_avg_sq"], rtol=1e-3, atol=1e-9)
    for name, weight in weights(folder / "one").items():
        torch.testing.assert_close(weights(folder / "two")[name], weight, rtol=0, atol=2e-6)


def test_processes_name_a_broken_pair_once(runs: tuple[Path, dict[str, list[int]]]) -> None:
    folder, _ = runs
    for name in ("one", "two"):
        named = [json.loads(line) for line in (folder / name / "skipped.jsonl").read_text().splitlines()]
        assert {(line["dataset"], line["row"]) for line in named} == {("text_to_image", 5)}
        assert "text_to_image.jsonl line 6" in named[0]["message"]
