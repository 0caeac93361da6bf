"""Searches a second from eight threads, and writers side by side that lose nothing.

    python benchmarks/store_load.py [--points 20000] [--threads 8] [--seconds 10] [--trials 20] [--quick]

First, a folder store of 20,000 points with given vectors is searched by eight threads of one process, and by four other
processes through the one that owns it. Then, 20 trials each, 8 threads, 8 tasks and 4 processes write 80 points to a
fresh collection: errors, lost and doubled points are counted, and have to be 0. The last line printed is one JSON
object; the exit status is 1 when one of the counts is not 0.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import subprocess
import sys
import tempfile
import threading
import time
import uuid
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from bench_measure import finish, machine, note

from ume_qdrant import CollectionMeta, EdgeStore, Point, open_async_store

DIMENSION = 64
LIMIT = 10
WRITERS = {"threads": 8, "tasks": 8, "processes": 4}
WRITTEN = 80
META = CollectionMeta("given", "1", "given", DIMENSION)


def unit_rows(count: int, seed: int) -> np.ndarray[Any, np.dtype[np.float32]]:
    """Random vectors of length 1, shape (count, DIMENSION)."""
    rows = np.random.default_rng(seed).normal(size=(count, DIMENSION)).astype(np.float32)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def fill(folder: Path, count: int) -> None:
    """A store of that many points with the fields of a text."""
    rows = unit_rows(count, 0)
    with EdgeStore(folder, "load") as store:
        store.create(META)
        for start in range(0, count, 500):
            store.upsert([made(number, rows[number]) for number in range(start, min(start + 500, count))])
        store.optimize()


def made(number: int, row: np.ndarray[Any, np.dtype[np.float32]]) -> Point:
    """A point like those of `index`."""
    return Point(str(uuid.UUID(int=number)), {"direct": row}, {"source": f"{number}.txt", "kind": "text"})


def search(folder: Path, threads: int, seconds: float) -> dict[str, float]:
    """Searches a second, and milliseconds of the slowest hundredth, from threads that share a store."""
    queries = unit_rows(1000, 1)
    taken: list[list[float]] = [[] for _ in range(threads)]
    begin = threading.Barrier(threads)
    with EdgeStore(folder, "load") as store:
        for query in queries[:50]:
            store.search("direct", query, limit=LIMIT, fields=())

        def ask(number: int) -> None:
            begin.wait()
            end = time.perf_counter() + seconds
            at = number * 100
            while (started := time.perf_counter()) < end:
                store.search("direct", queries[at % len(queries)], limit=LIMIT, fields=())
                taken[number].append(1000 * (time.perf_counter() - started))
                at += 1

        with ThreadPoolExecutor(threads) as pool:
            list(pool.map(ask, range(threads)))
    times = np.sort(np.concatenate([np.asarray(one) for one in taken]))
    return {
        "searches_per_s": round(len(times) / seconds, 1),
        "p50_ms": round(float(np.quantile(times, 0.5)), 3),
        "p99_ms": round(float(np.quantile(times, 0.99)), 3),
    }


def search_from_another_process(folder: Path, threads: int, seconds: float) -> dict[str, float]:
    """The same from another process, while this one owns the store."""
    with EdgeStore(folder, "load") as store:
        store.count()
        command = [sys.executable, __file__, "--search", str(folder), str(threads), str(seconds)]
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)  # noqa: S603  # this script
    found: dict[str, float] = json.loads(done.stdout)
    return found


def write(folder: Path, numbers: range) -> None:
    """Create the collection, and write points one by one."""
    rows = unit_rows(1, 2)
    with EdgeStore(folder, "fresh") as store:
        store.create(META)
        for number in numbers:
            store.upsert([made(number, rows[0])])


def by_threads(folder: Path, shares: list[range]) -> int:
    """Write from threads with stores of their own; returns the number of errors."""
    with ThreadPoolExecutor(len(shares)) as pool:
        return sum(future.exception() is not None for future in [pool.submit(write, folder, one) for one in shares])


def by_tasks(folder: Path, shares: list[range]) -> int:
    """Write from tasks of one event loop."""

    async def task(numbers: range) -> None:
        rows = unit_rows(1, 2)
        async with open_async_store(folder, "fresh") as store:
            await store.create(META)
            for number in numbers:
                await store.upsert([made(number, rows[0])])

    async def together() -> list[BaseException | None]:
        return await asyncio.gather(*map(task, shares), return_exceptions=True)

    return sum(one is not None for one in asyncio.run(together()))


def by_processes(folder: Path, shares: list[range]) -> int:
    """Write from processes."""
    commands = [[sys.executable, __file__, "--write", str(folder), str(one.start), str(one.stop)] for one in shares]
    running = [subprocess.Popen(command) for command in commands]  # noqa: S603  # this script
    return sum(process.wait() != 0 for process in running)


KINDS: dict[str, Callable[[Path, list[range]], int]] = {
    "threads": by_threads,
    "tasks": by_tasks,
    "processes": by_processes,
}


def trial(kind: str) -> dict[str, int]:
    """One fresh collection, written from all sides."""
    each = WRITTEN // WRITERS[kind]
    shares = [range(start, start + each) for start in range(0, WRITTEN, each)]
    with tempfile.TemporaryDirectory(prefix="bench-") as place:
        errors = KINDS[kind](Path(place), shares)
        with EdgeStore(place, "fresh") as store:
            ids = [point.id for point in store.scroll(fields=())]
    wanted = {str(uuid.UUID(int=number)) for number in range(WRITTEN)}
    return {"errors": errors, "lost": len(wanted - set(ids)), "doubled": len(ids) - len(set(ids))}


def main() -> None:
    """Measure what the command line asks for."""
    if sys.argv[1:2] == ["--write"]:
        write(Path(sys.argv[2]), range(int(sys.argv[3]), int(sys.argv[4])))
        return
    if sys.argv[1:2] == ["--search"]:
        print(json.dumps(search(Path(sys.argv[2]), int(sys.argv[3]), float(sys.argv[4]))))
        return
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--points", type=int, default=20_000)
    parser.add_argument("--threads", type=int, default=8)
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--trials", type=int, default=20)
    parser.add_argument("--quick", action="store_true", help="a tenth of everything, no file")
    given = parser.parse_args()
    scale = 10 if given.quick else 1
    result: dict[str, Any] = {"benchmark": "store_load", "points": given.points // scale, "threads": given.threads}
    with tempfile.TemporaryDirectory(prefix="bench-") as place:
        fill(Path(place), given.points // scale)
        result["one_process"] = search(Path(place), given.threads, given.seconds / scale)
        note(f"one process: {result['one_process']}")
        result["through_the_owner"] = search_from_another_process(Path(place), given.threads, given.seconds / scale)
        note(f"through the owner: {result['through_the_owner']}")
    trials = max(1, given.trials // scale)
    result["writers"] = {}
    for kind in KINDS:
        counted = [trial(kind) for _ in range(trials)]
        result["writers"][kind] = {name: sum(one[name] for one in counted) for name in ("errors", "lost", "doubled")}
        note(f"{trials} trials of {WRITERS[kind]} {kind}: {result['writers'][kind]}")
    result |= {"trials": trials, "machine": machine()}
    finish("store_load", result, quick=given.quick)
    sys.exit(any(count for counts in result["writers"].values() for count in counts.values()))


if __name__ == "__main__":
    main()
