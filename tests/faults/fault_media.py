"""Decodes hostile media in workers, and looks what it costs the others.

    fault_media.py WORK --files 1500 [--seed 0]

In rounds of 100: each file is discovered and decoded alone under limits, then all are indexed together with good
files, whose points must be those of a run over the good files alone. The same files are also decoded without workers,
each in a child process of its own, to count how many would have taken the process with them. Prints counts as JSON.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import shutil
import signal
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

from fault_kills import wait
from fault_seeds import crafted, hostile, seeds
from fault_work import Counts, Journal, compare, dump, models, note, run
from small_media import fill

from ume_qdrant import EdgeStore
from ume_retrieval import Failure, Limits, UmeError, VisualBudget
from ume_retrieval.errors import MediaCrashed, MediaTimeout
from ume_retrieval.media import Isolation, discover, load
from ume_retrieval.media.isolation.pool import close_pools

ROUND = 100
ISOLATION = Isolation(memory_bytes=1024**3, seconds=20.0, workers=2)
APART = Limits(max_bytes=2**26, max_pixels=2**24, max_frames=2_000, isolation=ISOLATION)
HERE = Limits(max_bytes=2**26, max_pixels=2**24, max_frames=2_000)
BUDGET = VisualBudget()
MOST_ENTRIES = 3
"""Segments or pages of a file that are decoded."""

ROUND_PATIENCE_S = 3_600.0


def look_at(path: Path, limits: Limits) -> list[str]:
    """Discover and decode one file; returns what came of it: "fine", or codes of errors."""
    outcomes: list[str] = []
    decoded = 0
    for found in discover([path], limits=limits):
        if isinstance(found, Failure):
            outcomes.append(_said(found.error, found.message, found.hint))
            continue
        decoded += 1
        if decoded > MOST_ENTRIES:
            break
        try:
            loaded = load(found.item, BUDGET, limits)
        except UmeError as error:
            outcomes.append(_said(error.code, error.message, error.hint))
            continue
        pictures = [*loaded.images, *(image for video in loaded.videos for image in video.images)]
        if any(picture.mode != "RGB" or picture.width * picture.height > limits.max_pixels for picture in pictures):
            raise RuntimeError("a picture beyond the limits")
        outcomes.append("fine")
    return outcomes


def _said(code: str, message: str, hint: str) -> str:
    if not f"{message}{hint}".isprintable():
        raise RuntimeError(f"unprintable words: {message!r}")
    if code == MediaCrashed.code and "decoder failed with" in message:
        return f"unforeseen: {message}"
    return code


def alone(paths: list[Path]) -> Counts:
    """Every file by itself, in workers."""
    counts = Counts(files=len(paths))
    notes = {"decoded": 0, "refused": 0, "workers_died": 0, "workers_stopped": 0, "unforeseen": 0}
    for path in paths:
        started = time.monotonic()
        try:
            outcomes = look_at(path, APART)
        except Exception as error:  # noqa: BLE001  # whatever comes through is what is looked for
            counts.crashes += 1
            counts.broken.append(f"{path.name!r}: {type(error).__name__}: {error}")
            continue
        # Each decoding may take its time; what is beyond that hangs.
        if time.monotonic() - started > (ISOLATION.seconds + 60.0) * (1 + MOST_ENTRIES):
            counts.hangs += 1
            counts.broken.append(f"{path.name!r}: hung")
        notes["decoded" if outcomes and set(outcomes) == {"fine"} else "refused"] += 1
        notes["workers_died"] += outcomes.count(MediaCrashed.code)
        notes["workers_stopped"] += outcomes.count(MediaTimeout.code)
        unforeseen = [outcome for outcome in outcomes if outcome.startswith("unforeseen")]
        notes["unforeseen"] += len(unforeseen)
        counts.broken += [f"{path.name!r}: {outcome}" for outcome in unforeseen]
        if {MediaCrashed.code, MediaTimeout.code} & set(outcomes):
            note(f"media: {path.name!r}: {outcomes}")
    counts.notes = notes
    return counts


def together(folder: Path, good: Path, work: Path) -> Counts:
    """All files at once, with good ones among them that must not suffer."""
    counts = Counts()
    with EdgeStore(work / "vectors", "all") as store:
        try:
            said = run(models(None, limits=APART), store, folder, "always")
            said += run(models(None, limits=APART), store, folder, "always")
            counts.broken += [words for words in said if f"{good}/" in words]
        except Exception as error:  # noqa: BLE001  # as above
            counts.crashes += 1
            counts.broken.append(f"index: {type(error).__name__}: {error}")
        found = {key: one for key, one in dump(store).items() if one["source"].startswith(f"{good}/")}
    with EdgeStore(work / "vectors", "good") as store:
        run(models(None), store, good, "always")
        wanted = dump(store)
    counts.lost, counts.doubled = compare(found, wanted)
    if counts.lost or counts.doubled:
        counts.broken.append(
            f"index: lost {sorted(wanted.keys() - found.keys())}, {counts.lost} lost, {counts.doubled} doubled"
        )
    return counts


def without_workers(paths: list[Path]) -> dict[str, Any]:
    """What each file would have done to a process that decodes by itself."""
    ends = {"here_died": 0, "here_stopped": 0, "here_unforeseen": 0}
    for path in paths:
        child = os.fork()
        if child == 0:
            with suppress(BaseException):
                resource.setrlimit(resource.RLIMIT_AS, (4 * 1024**3,) * 2)
                signal.alarm(60)
                look_at(path, HERE)
                os._exit(0)
            os._exit(3)
        code = wait(child, 90.0)
        ends["here_stopped"] += code in (None, -signal.SIGALRM)
        ends["here_unforeseen"] += code == 3
        ends["here_died"] += code is not None and code < 0 and code != -signal.SIGALRM
        if code != 0:
            note(f"media: without workers {path.name!r} ends with {code}")
    return ends


def round_of(work: Path, number: int, count: int, originals: dict[str, bytes], seed: int) -> Counts:
    """One round."""
    folder = work / f"round{number}"
    shutil.rmtree(folder, ignore_errors=True)
    good = fill(folder / "hostile" / "good")
    paths: list[Path] = []
    made = crafted().items() if number == 0 else ()
    more = (hostile(seed * 10**6 + number * ROUND + n, originals) for n in range(count - len(made)))
    for name, data in (*made, *more):
        paths.append(folder / "hostile" / name)
        paths[-1].write_bytes(data)
    ends = without_workers(paths)
    counts = alone(paths)
    counts.add({"notes": ends})
    result = together(folder / "hostile", good, folder)
    for name in ("lost", "doubled", "crashes", "hangs"):
        setattr(counts, name, getattr(counts, name) + getattr(result, name))
    counts.broken += result.broken
    close_pools()
    shutil.rmtree(folder)
    return counts


def main() -> None:
    arguments = argparse.ArgumentParser()
    arguments.add_argument("work", type=Path)
    arguments.add_argument("--files", type=int, default=1_500)
    arguments.add_argument("--seed", type=int, default=0)
    given = arguments.parse_args()
    given.work.mkdir(parents=True, exist_ok=True)
    work = given.work.resolve()
    journal, total = Journal(work / "media.jsonl"), Counts()
    originals = seeds(work / "seeds")
    number = 0
    while total.files < given.files:
        name = f"{given.seed}-{number}"
        if journal.get(name) is None:
            count = min(ROUND, given.files - total.files)
            child = os.fork()
            if child == 0:
                code = 1
                with suppress(Exception):
                    journal.put(name, round_of(work, number, count, originals, given.seed))
                    code = 0
                os._exit(code)
            code = wait(child, ROUND_PATIENCE_S)
            if code == 0:
                journal = Journal(work / "media.jsonl")
            else:
                hung = code is None
                broken = [f"round {number} ends with {code}"]
                journal.put(name, Counts(files=count, crashes=not hung, hangs=hung, broken=broken))
        total.add(journal.get(name) or {})
        number += 1
        note(f"media: {total.files} of {given.files} files, {json.dumps(total.notes)}, {len(total.broken)} broken")
    total.print()


if __name__ == "__main__":
    main()
