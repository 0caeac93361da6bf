"""Tries to lose data: kills, full discs, failing servers, hostile media, model output of every kind, large files.

Runs the drivers of `tests/faults`, each in a process of its own, and adds up what they counted. `lost`, `doubled`,
`crashes` and `hangs` have to be 0. A run that is stopped goes on where it was when it is given the same `--work`.

    python benchmarks/faults.py [--quick] [--only kills media ...] [--work DIR] [--seed N]

The last line printed is one JSON object; the exit status is 1 when one of the four is not 0.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from bench_measure import finish, machine, note

DRIVERS = Path(__file__).parents[1] / "tests" / "faults"
MUST_BE_ZERO = ("lost", "doubled", "crashes", "hangs")
COUNTED = ("kills", "files", "tcots", "faults", *MUST_BE_ZERO)
LIMIT_MB = 2_000

# What each part is asked for, in a full run and in a quick one.
PARTS = {
    "kills": (["--kills", "210"], ["--kills", "12"]),
    "media": (["--files", "1500"], ["--files", "40"]),
    "tcots": (["--tcots", "10000"], ["--tcots", "200"]),
    "servers": (["--rounds", "30"], ["--rounds", "3"]),
    "store": (["--every", "1"], ["--every", "97"]),
    "disk": (["--sizes", "8"], ["--sizes", "1"]),
    "memory": ([], ["--quick"]),
}


def run_part(name: str, work: Path, seed: int, *, quick: bool) -> dict[str, Any]:
    """One driver, with its progress shown."""
    full, short = PARTS[name]
    command = [sys.executable, str(DRIVERS / f"fault_{name}.py"), str(work / name), *(short if quick else full)]
    started = time.perf_counter()
    done = subprocess.run([*command, "--seed", str(seed)], stdout=subprocess.PIPE, text=True, check=False)  # noqa: S603
    if done.returncode or not done.stdout.strip():
        return {"crashes": 1, "broken": [f"the driver {name} ended with {done.returncode}"]}
    counts: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    note(f"{name}: {time.perf_counter() - started:.0f} s")
    return counts


def main() -> None:
    """Run the parts, add up, and keep the result."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--quick", action="store_true", help="a minute or two; nothing is written to results")
    parser.add_argument("--only", nargs="*", choices=list(PARTS), default=list(PARTS))
    parser.add_argument("--work", type=Path, default=Path("runs/faults"), help="where finished rounds are kept")
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    work = given.work / "quick" if given.quick else given.work
    work.mkdir(parents=True, exist_ok=True)
    parts = {name: run_part(name, work, given.seed, quick=given.quick) for name in given.only}
    result: dict[str, Any] = {name: sum(part.get(name, 0) for part in parts.values()) for name in COUNTED}
    result["broken"] = [words for part in parts.values() for words in part.get("broken", [])][:20]
    result["parts"] = {
        name: {key: value for key, value in part.items() if value and key in COUNTED} | part.get("notes", {})
        for name, part in parts.items()
    }
    peak = result["parts"].get("memory", {}).get("peak_mb")
    result["peak_mb"], result["peak_limit_mb"] = peak, LIMIT_MB
    result |= {"seed": given.seed, "machine": machine()}
    finish("faults", result, quick=given.quick or set(given.only) != set(PARTS))
    sys.exit(any(result[name] for name in MUST_BE_ZERO) or (peak or 0) > LIMIT_MB)


if __name__ == "__main__":
    main()
