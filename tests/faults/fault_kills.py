"""Kills indexing and enriching at random moments, resumes, and compares with a run that nobody disturbed.

    fault_kills.py WORK --kills 210 [--seed 0]

This process imports everything once and opens nothing; each run is a child of it, forked and killed. A round takes a
store (Qdrant Edge on a directory, or a Qdrant server over HTTP), a mode of reasoning and a start (nothing, or the same
collection before half of its files changed), kills a few runs of it, and lets one finish. Prints counts as JSON.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import signal
import time
import traceback
from dataclasses import dataclass
from pathlib import Path

from fault_qdrant import serving_apart
from fault_work import MODES, Counts, Journal, Mode, Records, change, compare, dump, models, note, run, twice
from small_media import fill

import ume_qdrant.stores.client  # noqa: F401  # imported where it is first used; here once for all children
from ume_qdrant import Store, open_store

STORES = ("edge", "server")
MAX_KILLS = 5
POINTS = 12
"""In the folder after its files changed."""

PATIENCE_S = 120.0
"""A run that nobody disturbs takes a second or two; after this it hangs."""


@dataclass(frozen=True)
class Case:
    """What is run: into which kind of store, how it reasons, and whether half of it was there before."""

    store: str
    mode: Mode
    begun: bool

    @property
    def name(self) -> str:
        return f"{self.store}-{self.mode}-{'begun' if self.begun else 'empty'}"


class Stage:
    """The folder in both states, the server's address, and where runs work."""

    def __init__(self, work: Path, url: str) -> None:
        self.before, self.after, self.runs, self.url = work / "was", work / "things", work / "runs", url
        self.runs.mkdir(parents=True, exist_ok=True)
        if not self.after.exists():
            # Sources are absolute paths, so the folder keeps its name while it changes.
            fill(work / "aside")
            shutil.copytree(work / "aside", self.before)
            change(work / "aside")
            (work / "aside").rename(self.after)

    def folder(self, *, begun: bool) -> Path:
        """The folder as it is now, or was, always under the same name."""
        shown = self.after.with_name("shown")
        shown.unlink(missing_ok=True)
        shown.symlink_to(self.before if begun else self.after)
        return shown

    def open(self, case: Case, name: str) -> Store:
        """The store of a run."""
        return open_store(self.url if case.store == "server" else self.runs / name / "vectors", name)

    def do(self, case: Case, name: str, *, begun: bool) -> None:
        """One run in this process, to its end."""
        (self.runs / name).mkdir(exist_ok=True)
        with self.open(case, name) as store:
            # A link that is named is followed, and files are called by their names below it.
            run(models(self.runs / name / "traces.sqlite3"), store, self.folder(begun=begun), case.mode)

    def finish(self, case: Case, name: str) -> None:
        """Run to the end and write down what is there."""
        self.do(case, name, begun=False)
        with self.open(case, name) as store:
            points = dump(store)
        (self.runs / name / "outcome.json").write_text(json.dumps(points), encoding="utf-8")

    def child(self, case: Case, name: str, step: str) -> int:
        """Fork a process that does a step."""
        process = os.fork()
        if process:
            return process
        code = 1
        try:
            if step == "finish":
                self.finish(case, name)
            else:
                self.do(case, name, begun=step == "begin")
            code = 0
        except BaseException:  # noqa: BLE001  # whatever it was, the parent counts it
            (self.runs / name).mkdir(exist_ok=True)
            (self.runs / name / "trouble.txt").write_text(traceback.format_exc(), encoding="utf-8")
        finally:
            os._exit(code)


def wait(process: int, patience_s: float) -> int | None:
    """The child's exit code, negative for a signal; None when it had to be killed because it hung."""
    deadline = time.monotonic() + patience_s
    while time.monotonic() < deadline:
        done, status = os.waitpid(process, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.002)
    os.kill(process, signal.SIGKILL)
    os.waitpid(process, 0)
    return None


def whole(stage: Stage, case: Case) -> tuple[Records, float]:
    """What an undisturbed run leaves, and how long it takes."""
    name = f"whole-{case.name}"
    shutil.rmtree(stage.runs / name, ignore_errors=True)
    if case.begun and wait(stage.child(case, name, "begin"), PATIENCE_S) != 0:
        raise SystemExit((stage.runs / name / "trouble.txt").read_text())
    started = time.monotonic()
    if wait(stage.child(case, name, "finish"), PATIENCE_S) != 0:
        raise SystemExit((stage.runs / name / "trouble.txt").read_text())
    took = time.monotonic() - started
    wanted = json.loads((stage.runs / name / "outcome.json").read_text(encoding="utf-8"))
    states = {point["reasoning"] for point in wanted.values()}
    if len(wanted) != POINTS or states != {"never" if case.mode == "never" else "done"}:
        raise SystemExit(f"an undisturbed run leaves {len(wanted)} points in the states {states}")
    return wanted, took


def round_of(stage: Stage, case: Case, name: str, whole_run: tuple[Records, float]) -> Counts:
    """Kill a few runs, let one finish, and count."""
    (wanted, took), rng, counts = whole_run, random.Random(name), Counts()
    shutil.rmtree(stage.runs / name, ignore_errors=True)
    if case.begun:
        wait(stage.child(case, name, "begin"), PATIENCE_S)
    for _ in range(rng.randint(1, MAX_KILLS)):
        process = stage.child(case, name, "do")
        time.sleep(rng.uniform(0.0, 1.1 * took))
        done, status = os.waitpid(process, os.WNOHANG)
        if not done:
            os.kill(process, signal.SIGKILL)
            _, status = os.waitpid(process, 0)
        code = os.waitstatus_to_exitcode(status)
        counts.kills += code == -signal.SIGKILL
        if code not in (0, -signal.SIGKILL):
            _count_trouble(counts, stage, name, code)
    code = wait(stage.child(case, name, "finish"), PATIENCE_S)
    if code is None:
        counts.hangs += 1
        counts.broken.append(f"{name}: hung")
    elif code:
        _count_trouble(counts, stage, name, code)
        counts.lost += len(wanted)
    else:
        found = json.loads((stage.runs / name / "outcome.json").read_text(encoding="utf-8"))
        counts.lost, counts.doubled = compare(found, wanted)
        counts.doubled += twice(stage.runs / name / "traces.sqlite3")
        if counts.lost or counts.doubled:
            counts.broken.append(f"{name}: {counts.lost} lost, {counts.doubled} doubled")
    if not counts.broken:
        shutil.rmtree(stage.runs / name)
    counts.notes = {f"kills_{case.store}_{case.mode}": counts.kills}
    return counts


def _count_trouble(counts: Counts, stage: Stage, name: str, code: int) -> None:
    counts.crashes += 1
    trouble = stage.runs / name / "trouble.txt"
    last = trouble.read_text().strip().splitlines()[-1] if trouble.exists() else f"exit code {code}"
    counts.broken.append(f"{name}: {last}")


def main() -> None:
    arguments = argparse.ArgumentParser()
    arguments.add_argument("work", type=Path)
    arguments.add_argument("--kills", type=int, default=210)
    arguments.add_argument("--seed", type=int, default=0)
    given = arguments.parse_args()
    given.work.mkdir(parents=True, exist_ok=True)
    given.work = given.work.resolve()
    journal = Journal(given.work / "kills.jsonl")
    cases = [Case(store, mode, begun) for store in STORES for mode in MODES for begun in (False, True)]
    total, number = Counts(), 0
    with serving_apart() as url:
        stage = Stage(given.work, url)
        known: dict[Case, tuple[Records, float]] = {}
        while total.kills < given.kills:
            case = cases[number % len(cases)]
            name = f"{given.seed}-{number}-{case.name}"
            done = journal.get(name)
            if done is None:
                if case not in known:
                    known[case] = whole(stage, case)
                journal.put(name, round_of(stage, case, name, known[case]))
                done = journal.get(name) or {}
            total.add(done)
            number += 1
            note(f"kills: {total.kills} of {given.kills}, {name}, {len(total.broken)} broken")
    total.notes["rounds"] = number
    total.print()


if __name__ == "__main__":
    main()
