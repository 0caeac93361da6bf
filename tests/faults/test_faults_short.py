"""The fault harness in its short form; `python benchmarks/faults.py` is the long one."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

BENCHMARK = Path(__file__).parents[2] / "benchmarks" / "faults.py"
DRIVERS = Path(__file__).parent

pytestmark = pytest.mark.skipif(os.name != "posix", reason="forks, signals and limits of POSIX systems")


def drive(part: str, work: Path, *arguments: str) -> dict[str, Any]:
    """Run a driver and hold it to what must be 0."""
    done = subprocess.run(  # noqa: S603  # our own interpreter and script
        [sys.executable, str(DRIVERS / f"fault_{part}.py"), str(work), *arguments],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    counts: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    assert counts["broken"] == []
    assert {name: counts[name] for name in ("lost", "doubled", "crashes", "hangs")} == dict.fromkeys(
        ("lost", "doubled", "crashes", "hangs"), 0
    )
    return counts


def test_killed_runs_end_like_whole_ones(tmp_path: Path) -> None:
    assert drive("kills", tmp_path, "--kills", "2", "--seed", "1")["kills"] >= 2


def test_hostile_media_cost_themselves_alone(tmp_path: Path) -> None:
    counts = drive("media", tmp_path, "--files", "26", "--seed", "1")
    assert counts["files"] == 26
    assert counts["notes"]["decoded"] > 2 < counts["notes"]["refused"]
    assert counts["notes"]["unforeseen"] == counts["notes"]["here_unforeseen"] == 0


def test_mutated_tcots_stay_in_range_and_inert(tmp_path: Path) -> None:
    assert drive("tcots", tmp_path, "--tcots", "150", "--seed", "1")["tcots"] == 150


def test_failing_servers_lose_nothing(tmp_path: Path) -> None:
    assert drive("servers", tmp_path, "--rounds", "3", "--seed", "1")["faults"] > 3


def test_discs_caches_and_clocks_lose_nothing(tmp_path: Path) -> None:
    assert drive("disk", tmp_path, "--sizes", "0", "--seed", "1")["faults"] > 8


def test_damaged_stores_lose_nothing_silently(tmp_path: Path) -> None:
    counts = drive("store", tmp_path, "--every", "53", "--seed", "1")
    assert counts["faults"] > 8
    assert counts["notes"]["repaired"] > 2


def test_a_driver_that_was_stopped_goes_on(tmp_path: Path) -> None:
    drive("tcots", tmp_path, "--tcots", "20")
    [line] = (tmp_path / "tcots.jsonl").read_text(encoding="utf-8").splitlines()
    spoilt = {**json.loads(line), "notes": {"usable": -1}}
    (tmp_path / "tcots.jsonl").write_text(json.dumps(spoilt) + '\n{"round": "cut by a ki', encoding="utf-8")
    assert drive("tcots", tmp_path, "--tcots", "20")["notes"] == {"usable": -1}, "a finished round is not done again"


@pytest.mark.slow
def test_the_whole_harness_quickly(tmp_path: Path) -> None:
    done = subprocess.run(  # noqa: S603  # our own interpreter and script
        [sys.executable, str(BENCHMARK), "--quick", "--work", str(tmp_path)],
        capture_output=True,
        text=True,
        check=False,
    )
    result = json.loads(done.stdout.splitlines()[-1])
    assert done.returncode == 0, result["broken"]
    assert result["kills"] >= 12
    assert result["peak_mb"] < result["peak_limit_mb"]
