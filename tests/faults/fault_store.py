"""Every file of a small Edge store, damaged in five ways while the store is closed.

    fault_store.py WORK [--every 1] [--seed 0]

Each damage has to end in one of three ways: the same results, a typed error with a hint, or, after `repair`, `index`
and `enrich`, the same points as before, without asking the Reasoner. `--every 7` takes every seventh damage. Counts are
printed as JSON: `lost` are points that are missing or changed without an error, `crashes` are untyped errors.
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import signal
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from fault_work import Counts, Journal, Records, compare, dump, note
from small_media import fill

from ume_qdrant import EdgeStore, enrich, index, repair
from ume_qdrant.stores.seal import copy_sparse
from ume_retrieval import ReasoningEmbedder, TraceCache, UmeError
from ume_retrieval.errors import StoreDamaged
from ume_retrieval.testing import FakeReasoner, HashEmbedder

ROUND_S = 120
NAME, ALIAS = "things", "live"

Damage = Callable[[Path, random.Random], None]


def delete(path: Path, rng: random.Random) -> None:
    path.unlink()


def empty(path: Path, rng: random.Random) -> None:
    path.write_bytes(b"")


def halve(path: Path, rng: random.Random) -> None:
    with path.open("r+b") as file:
        file.truncate(path.stat().st_size // 2)


def zero(path: Path, rng: random.Random) -> None:
    size = path.stat().st_size
    with path.open("wb") as file:
        file.truncate(size)


def flip_bit(path: Path, rng: random.Random) -> None:
    """In a byte that is not zero, if there is one."""
    data = bytearray(path.read_bytes())
    if data:
        place = _used(data, rng)
        data[place] ^= 1 << rng.randrange(8)
        with path.open("r+b") as file:
            file.seek(place)
            file.write(data[place : place + 1])


def _used(data: bytearray, rng: random.Random) -> int:
    block = 1 << 12
    blocks = [start for start in range(0, len(data), block) if data[start : start + block].strip(b"\0")]
    start = rng.choice(blocks or [0])
    return rng.choice([start + at for at, byte in enumerate(data[start : start + block]) if byte] or [start])


DAMAGES: dict[str, Damage] = {
    "deleted": delete,
    "emptied": empty,
    "halved": halve,
    "zeroed": zero,
    "bit-flipped": flip_bit,
}


def models(cache: Path) -> tuple[ReasoningEmbedder, FakeReasoner]:
    reasoner = FakeReasoner()
    return ReasoningEmbedder(HashEmbedder(), reasoner, cache=TraceCache(cache)), reasoner


def read(folder: Path) -> Records:
    """All points through the alias, and one search."""
    with EdgeStore(folder, ALIAS) as store:
        records = dump(store)
        for record in list(records.values())[:1]:
            store.search("direct", np.asarray(record["vectors"]["direct"], dtype=np.float32), limit=3)
    return records


def copied(whole: Path, target: Path) -> None:
    shutil.rmtree(target, ignore_errors=True)
    for path in sorted(whole.rglob("*")):
        if path.is_file():
            copy_sparse(path, target / path.relative_to(whole))
            stat = path.stat()
            os.utime(target / path.relative_to(whole), ns=(stat.st_atime_ns, stat.st_mtime_ns))


def mend(folder: Path, media: Path, cache: Path, counts: Counts) -> Records:
    """What the hint says: repair, then index and enrich as before."""
    with EdgeStore(folder, NAME) as store:
        report = repair(store)
    counts.notes["requeued"] = counts.notes.get("requeued", 0) + len(report.requeued)
    embedder, reasoner = models(cache)
    with EdgeStore(folder, NAME) as store:
        index(embedder, store, media)
        enrich(embedder, store)
    if reasoner.calls:
        counts.broken.append(f"the Reasoner was asked {reasoner.calls} times")
    return read(folder)


def one(folder: Path, media: Path, cache: Path, wanted: Records, counts: Counts) -> str:
    """Look at a damaged store; returns the outcome."""
    try:
        found = read(folder)
    except UmeError as error:
        if not error.hint:
            counts.broken.append(f"no hint: {error}")
        if not isinstance(error, StoreDamaged):
            return f"typed {error.code}"
        try:
            found = mend(folder, media, cache, counts)
        except UmeError as second:
            if not second.hint:
                counts.broken.append(f"no hint: {second}")
            return f"typed {second.code}"
        outcome = "repaired"
    else:
        outcome = "same"
    lost, doubled = compare(found, wanted)
    counts.lost += lost
    counts.doubled += doubled
    return f"{outcome}, {lost} lost, {doubled} doubled" if lost or doubled else outcome


@contextmanager
def watched(seconds: int) -> Iterator[None]:
    def late(*_: Any) -> None:
        raise TimeoutError

    signal.signal(signal.SIGALRM, late)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("work", type=Path)
    parser.add_argument("--every", type=int, default=1)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    work: Path = given.work
    work.mkdir(parents=True, exist_ok=True)
    media, whole, cache = work / "media", work / "whole", work / "traces.db"
    if not whole.exists():
        fill(media)
        embedder, _ = models(cache)
        with EdgeStore(whole, NAME) as store:
            index(embedder, store, media, reasoning="always")
            store.set_alias(ALIAS)
    wanted = read(whole)
    names = sorted(str(path.relative_to(whole)) for path in whole.rglob("*") if path.is_file())
    cases = [(name, how) for name in names for how in DAMAGES]
    journal, total = Journal(work / "store.jsonl"), Counts()
    for number, (name, how) in enumerate(cases[:: given.every]):
        label = f"{given.seed}-{name}-{how}"
        if journal.get(label) is None:
            counts = Counts(faults=1)
            folder = work / "damaged"
            copied(whole, folder)
            try:
                DAMAGES[how](folder / name, random.Random(label))
                with watched(ROUND_S):
                    outcome = one(folder, media, cache, wanted, counts)
                kind = outcome.split(",")[0]
                counts.notes[kind] = counts.notes.get(kind, 0) + 1
                if counts.lost or counts.doubled or counts.broken:
                    counts.broken.append(f"{label}: {outcome}")
            except TimeoutError:
                counts.hangs += 1
                counts.broken.append(f"{label}: hung")
            except BaseException as error:
                if isinstance(error, (KeyboardInterrupt, SystemExit)):
                    raise
                counts.crashes += 1
                counts.broken.append(f"{label}: {traceback.format_exc()[-800:]}")
            journal.put(label, counts)
        total.add(journal.get(label) or {})
        if number % 20 == 0:
            note(f"store: {number + 1} of {len(cases[:: given.every])} damages, {len(total.broken)} broken")
    total.print()


if __name__ == "__main__":
    main()
