"""Discs that are full or may not be written, stores that are held, caches that are spoilt, clocks that are wrong.

    fault_disk.py WORK [--sizes 8] [--seed 0]

Each scenario indexes the same folder while something is wrong, expects a typed error (or none) and nothing else, puts
it right, indexes again, and compares with a run where nothing was wrong. Each run is a child process. A full disc is a
real small file system where mounting is permitted, and a limit on file sizes besides. Prints counts as JSON.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import resource
import shutil
import signal
import socket
import sqlite3
import subprocess
import time
import traceback
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

from fault_kills import wait
from fault_work import Counts, Journal, Records, compare, dump, models, note, run, twice
from small_media import fill

from ume_qdrant import EdgeStore, Point
from ume_retrieval import CacheError, StoreError, UmeError
from ume_retrieval.errors import StoreLocked

PATIENCE_S = 180.0
NOBODY = 65534
TYPED, FINE, CRASHED = 10, 0, 1


@dataclass(frozen=True)
class Place:
    """Where one scenario works."""

    folder: Path
    work: Path

    @property
    def cache(self) -> Path:
        return self.work / "traces.sqlite3"

    def index(self) -> list[str]:
        """Index everything with reasoning; codes of what failed."""
        with EdgeStore(self.work / "vectors", "things") as store:
            return run(models(self.cache), store, self.folder, "always")

    def points(self) -> Records:
        """What the store holds."""
        with EdgeStore(self.work / "vectors", "things") as store:
            return dump(store)


def in_child(place: Place, act: Callable[[], Any]) -> tuple[int | None, str]:
    """Do something in a child process: its exit code (`TYPED` for a typed error) and what it said."""
    said = place.work.with_suffix(".said")
    said.unlink(missing_ok=True)
    child = os.fork()
    if child == 0:
        code = CRASHED
        try:
            result = act()
            words = json.dumps(result)
            code = FINE
        except UmeError as error:
            words, code = f"{error.code}: {error.message} | {error.hint}", TYPED
        except BaseException:  # noqa: BLE001  # whatever it was, the parent counts it
            words = traceback.format_exc()
        try:
            resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY,) * 2)
            said.write_text(words, encoding="utf-8")
        finally:
            os._exit(code)
    code = wait(child, PATIENCE_S)
    return code, said.read_text(encoding="utf-8") if said.exists() else ""


class Scenarios:
    """Runs them and counts."""

    def __init__(self, work: Path, journal: Journal) -> None:
        self.work, self.journal = work, journal
        self.total = Counts()
        self.folder = work / "things"
        if not self.folder.exists():
            fill(self.folder)
        self._wanted: Records | None = None

    def wanted(self) -> Records:
        """Points of a run where nothing is wrong."""
        if self._wanted is None:
            place = self.place("whole")
            code, said = in_child(place, lambda: (place.index(), place.points())[1])
            if code != FINE:
                raise SystemExit(said)
            self._wanted = json.loads(said)
        return self._wanted

    def place(self, name: str) -> Place:
        """An empty place."""
        work = self.work / name
        shutil.rmtree(work, ignore_errors=True)
        work.mkdir(parents=True)
        return Place(self.folder, work)

    def do(self, name: str, scenario: Callable[[Place, Counts], None]) -> None:
        """One scenario, unless it is done already."""
        done = self.journal.get(name)
        if done is None:
            counts, place = Counts(faults=1), self.place(name)
            try:
                scenario(place, counts)
            except Exception:  # noqa: BLE001  # the scenario itself broke: that must show
                counts.crashes += 1
                counts.broken.append(f"{name}: {traceback.format_exc()[-600:]}")
            self.journal.put(name, counts)
            done = self.journal.get(name) or {}
        self.total.add(done)
        note(f"disk: {name}: {done.get('notes')} {done.get('broken')}")

    def suffer(self, place: Place, counts: Counts, act: Callable[[], Any], *kinds: str) -> str:
        """Let it go wrong: a typed error (one of `kinds` when given) or success, and nothing else."""
        code, said = in_child(place, act)
        if code is None:
            counts.hangs += 1
            counts.broken.append(f"{place.work.name}: hung")
        elif code not in (FINE, TYPED):
            counts.crashes += 1
            counts.broken.append(f"{place.work.name}: ends with {code}: {said[-500:]}")
        elif code == TYPED and kinds and said.partition(":")[0] not in kinds:
            counts.crashes += 1
            counts.broken.append(f"{place.work.name}: not {kinds} but {said}")
        counts.notes["typed_errors"] = counts.notes.get("typed_errors", 0) + (code == TYPED)
        return said

    def recover(self, place: Place, counts: Counts) -> None:
        """All is well again: the same points as if it had always been."""
        code, said = in_child(place, lambda: (place.index(), place.points()))
        if code != FINE:
            counts.lost += len(self.wanted())
            counts.broken.append(f"{place.work.name}: cannot go on: {said[-500:]}")
            return
        failed, points = json.loads(said)
        counts.lost, counts.doubled = compare(points, self.wanted())
        counts.doubled += twice(place.cache)
        if counts.lost or counts.doubled or failed:
            counts.broken.append(f"{place.work.name}: {counts.lost} lost, {counts.doubled} doubled, {failed}")


def full_by_limit(scenarios: Scenarios, most: int) -> Callable[[Place, Counts], None]:
    """No file may grow beyond `most` bytes."""

    def limited(place: Place) -> list[str]:
        resource.setrlimit(resource.RLIMIT_FSIZE, (most, resource.RLIM_INFINITY))
        return place.index()

    def scenario(place: Place, counts: Counts) -> None:
        scenarios.suffer(place, counts, lambda: limited(place), StoreError.code, CacheError.code)
        scenarios.recover(place, counts)

    return scenario


def mounted(place: Place, size: int) -> bool:
    """Give the place a file system of its own; False when that is not permitted."""
    command = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(place.work)]
    return subprocess.run(command, capture_output=True, check=False).returncode == 0  # noqa: S603  # a fixed command


def remount(place: Place, options: str) -> None:
    subprocess.run(["mount", "-o", f"remount,{options}", str(place.work)], check=True)  # noqa: S603, S607  # as above


def full_in_truth(scenarios: Scenarios, size: int) -> Callable[[Place, Counts], None]:
    """A file system of `size` bytes, which then grows."""

    def scenario(place: Place, counts: Counts) -> None:
        if not mounted(place, size):
            counts.faults, counts.notes["not_permitted"] = 0, 1
            return
        try:
            scenarios.suffer(place, counts, place.index, StoreError.code, CacheError.code)
            remount(place, "size=2g")
            scenarios.recover(place, counts)
        finally:
            subprocess.run(["umount", "-l", str(place.work)], check=False)  # noqa: S603, S607  # as above

    return scenario


class Filling(EdgeStore):
    """A store on a disc that fills up by itself: after each write, 8 MB more of something else lie there."""

    junk: Path

    def upsert(self, points: Sequence[Point]) -> None:
        super().upsert(points)
        self._fill()

    def update(self, points: Sequence[Point]) -> None:
        super().update(points)
        self._fill()

    def _fill(self) -> None:
        with suppress(OSError), self.junk.open("ab") as file:
            file.write(bytes(8 * 2**20))


def fills_up(scenarios: Scenarios, size: int) -> Callable[[Place, Counts], None]:
    """There was room when the run began, and soon there is none."""

    def scenario(place: Place, counts: Counts) -> None:
        if not mounted(place, size):
            counts.faults, counts.notes["not_permitted"] = 0, 1
            return

        def filling() -> list[str]:
            with Filling(place.work / "vectors", "things") as store:
                store.junk = place.work / "junk"
                return run(models(place.cache), store, place.folder, "always")

        try:
            said = scenarios.suffer(place, counts, filling, StoreError.code, CacheError.code)
            if not said.startswith((StoreError.code, CacheError.code)):
                counts.notes["had_room"] = 1
            (place.work / "junk").unlink(missing_ok=True)
            remount(place, "size=2g")
            scenarios.recover(place, counts)
        finally:
            subprocess.run(["umount", "-l", str(place.work)], check=False)  # noqa: S603, S607  # as above

    return scenario


def read_only(scenarios: Scenarios) -> Callable[[Place, Counts], None]:
    """The store and the cache may be read and not written, and there is a new file."""

    def scenario(place: Place, counts: Counts) -> None:
        extra = scenarios.folder.parent / "more"
        in_child(place, place.index)

        def as_nobody() -> list[str]:
            if os.geteuid() == 0:
                os.setgroups([])
                os.setgid(NOBODY)
                os.setuid(NOBODY)
            with EdgeStore(place.work / "vectors", "things") as store:
                return run(models(place.cache), store, extra, "always")

        extra.mkdir(exist_ok=True)
        (extra / "new.txt").write_text("something new", encoding="utf-8")
        for path in (place.work, *place.work.rglob("*")):
            path.chmod(0o555 if path.is_dir() else 0o444)
        code, said = in_child(place, as_nobody)
        if code != TYPED:
            counts.crashes += 1
            counts.broken.append(f"read-only ends with {code}: {said[-300:]}")
        for path in (place.work, *place.work.rglob("*")):
            path.chmod(0o755 if path.is_dir() else 0o644)
        scenarios.recover(place, counts)

    return scenario


def held(scenarios: Scenarios) -> Callable[[Place, Counts], None]:
    """Another process has the store, and does not share it."""

    def scenario(place: Place, counts: Counts) -> None:
        in_child(place, place.index)
        ready, holder = os.pipe(), 0
        holder = os.fork()
        if holder == 0:
            del socket.AF_UNIX  # a process that cannot share it
            store = EdgeStore(place.work / "vectors", "things")
            store.count()
            os.write(ready[1], b"x")
            time.sleep(PATIENCE_S)
            os._exit(0)
        os.read(ready[0], 1)
        said = scenarios.suffer(place, counts, place.index, StoreLocked.code)
        os.kill(holder, signal.SIGKILL)
        os.waitpid(holder, 0)
        if not said.startswith(StoreLocked.code):
            counts.broken.append(f"held: {said}")
        scenarios.recover(place, counts)

    return scenario


def spoilt_cache(scenarios: Scenarios, spoil: Callable[[Path], None]) -> Callable[[Place, Counts], None]:
    """Traces on disc are no longer what was written; moving the file away is what the hint says."""

    def scenario(place: Place, counts: Counts) -> None:
        in_child(place, place.index)
        spoil(place.cache)
        (place.folder / "late.txt").write_text("something late", encoding="utf-8")
        try:
            said = scenarios.suffer(place, counts, place.index, CacheError.code)
        finally:
            (place.folder / "late.txt").unlink()
        if said.startswith(CacheError.code):
            for path in place.work.glob("traces.sqlite3*"):
                path.unlink()
        scenarios.recover(place, counts)

    return scenario


def _truncate(cache: Path) -> None:
    with cache.open("r+b") as file:
        file.truncate(cache.stat().st_size // 2)


def _garbage(cache: Path) -> None:
    cache.write_bytes(random.Random(0).randbytes(8_192))


def _middle(cache: Path) -> None:
    data = bytearray(cache.read_bytes())
    data[4_096:] = random.Random(1).randbytes(len(data) - 4_096)
    cache.write_bytes(data)


def _other_columns(cache: Path) -> None:
    with sqlite3.connect(cache) as database:
        database.execute("DROP TABLE traces")
        database.execute("CREATE TABLE traces (key TEXT PRIMARY KEY, words TEXT)")
    database.close()


def _other_program(cache: Path) -> None:
    cache.unlink()
    with sqlite3.connect(cache) as database:
        database.execute("CREATE TABLE theirs (a)")
    database.close()


def _folder(cache: Path) -> None:
    cache.unlink()
    cache.mkdir()
    (cache / "x").touch()
    shutil.rmtree(cache)
    cache.write_bytes(b"")


SPOILT = {
    "truncated": _truncate,
    "garbage": _garbage,
    "garbage behind the header": _middle,
    "other columns": _other_columns,
    "another program's": _other_program,
    "empty": _folder,
}


def clock(scenarios: Scenarios, shift_s: float) -> Callable[[Place, Counts], None]:
    """The clock is wrong, jumps in the middle of a run, and files come from the future."""

    def scenario(place: Place, counts: Counts) -> None:
        true, true_ns = time.time, time.time_ns
        asked = 0

        def jumping() -> float:
            nonlocal asked
            asked += 1
            return true() + (shift_s if asked > 5 else 0.0)

        def wrong() -> list[str]:
            with (
                mock.patch("time.time", jumping),
                mock.patch("time.time_ns", side_effect=lambda: true_ns() + int(shift_s * 10**9)),
            ):
                return place.index()

        scenarios.suffer(place, counts, wrong)
        # What is known stays known, whatever the clock says.
        code, said = in_child(place, lambda: _unchanged(place, shift_s))
        if code != FINE or json.loads(said) != [6, 0]:
            counts.doubled += 1
            counts.broken.append(f"clock: a second run found {said[-300:]}")
        scenarios.recover(place, counts)

    return scenario


def _unchanged(place: Place, shift_s: float) -> tuple[int, int]:
    from ume_qdrant import index

    true = time.time
    with (
        mock.patch("time.time", side_effect=lambda: true() - shift_s),
        EdgeStore(place.work / "vectors", "things") as store,
    ):
        report = index(models(place.cache), store, place.folder, reasoning="always")
    return report.unchanged, report.model_calls


def main() -> None:
    arguments = argparse.ArgumentParser()
    arguments.add_argument("work", type=Path)
    arguments.add_argument("--sizes", type=int, default=8)
    arguments.add_argument("--seed", type=int, default=0)
    given = arguments.parse_args()
    given.work.mkdir(parents=True, exist_ok=True)
    work = given.work.resolve()
    scenarios = Scenarios(work, Journal(work / "disk.jsonl"))
    rng = random.Random(given.seed)
    for number in range(given.sizes):
        most = int(10 ** rng.uniform(3.0, 7.6))
        scenarios.do(f"{given.seed}-limit-{number}-{most}", full_by_limit(scenarios, most))
        size = int(10 ** rng.uniform(4.5, 8.2))
        scenarios.do(f"{given.seed}-full-{number}-{size}", full_in_truth(scenarios, size))
        size = int(rng.uniform(65, 110) * 2**20)
        scenarios.do(f"{given.seed}-fills-{number}-{size}", fills_up(scenarios, size))
    scenarios.do(f"{given.seed}-read-only", read_only(scenarios))
    scenarios.do(f"{given.seed}-held", held(scenarios))
    for name, spoil in SPOILT.items():
        scenarios.do(f"{given.seed}-cache-{name}", spoilt_cache(scenarios, spoil))
    for shift_s in (-86_400.0, 86_400.0 * 365, -86_400.0 * 20_000):
        scenarios.do(f"{given.seed}-clock-{shift_s:.0f}", clock(scenarios, shift_s))
    scenarios.total.print()


if __name__ == "__main__":
    main()
