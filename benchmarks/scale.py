"""What does an item cost, what memory, and how long does a search take, at 1,000, 10,000 and 50,000 items?

A folder of small text files goes through `ume_qdrant.index` with the bundled Embedder (the direct pass) into Qdrant
Edge: discovery, reading, embedding and writing are all in the cost. Each size runs in a process of its own, so that
peak memory is its own. Then the same encoded queries are searched through `search_vectors` and through the engine's own
`EdgeShard.query`, in turns.

    python benchmarks/scale.py [--sizes 1000 10000 50000] [--repeats N] [--quick]

The last line printed is one JSON object.
"""

from __future__ import annotations

import argparse
import json
import random
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from bench_corpus import WORDS
from bench_measure import finish, machine, note

SIZES = (1_000, 10_000, 50_000)
QUERIES = 50
LIMIT = 10


def write_files(folder: Path, count: int) -> None:
    """Texts of 12 words that differ, a thousand a folder."""
    rng = random.Random(count)
    for number in range(count):
        if number % 1000 == 0:
            (folder / str(number // 1000)).mkdir(parents=True)
        text = " ".join(rng.choice(WORDS) for _ in range(12))
        (folder / str(number // 1000) / f"{number}.txt").write_text(f"{text} {number}", encoding="utf-8")


def measure(count: int, repeats: int) -> dict[str, Any]:
    """One size, in this process."""
    from ume_qdrant import index, open_store
    from ume_retrieval import ReasoningEmbedder

    embedder = ReasoningEmbedder.from_pretrained("ume-tiny", reasoner=None, cache=None, device="cpu")
    embedder.encode_corpus(["warm up"], reasoning="never")
    with tempfile.TemporaryDirectory(prefix="bench-") as work:
        folder, store_folder = Path(work) / "texts", Path(work) / "vectors"
        write_files(folder, count)
        before = _peak_mb()
        with open_store(str(store_folder), "scale") as store:
            started = time.perf_counter()
            report = index(embedder, store, folder, reasoning="never")
            seconds = time.perf_counter() - started
        if report.points != count:
            raise RuntimeError(f"{report.points} points instead of {count}")
        peak = _peak_mb()
        ours, raw = _search(embedder, store_folder, repeats)
    return {
        "items": count,
        "seconds": round(seconds, 2),
        "ms_per_item": round(1000 * seconds / count, 4),
        "embed_ms_per_item": round(1000 * report.usage.seconds["embed"] / count, 4),
        "peak_mb": round(peak, 1),
        "peak_before_indexing_mb": round(before, 1),
        "search_ms": round(statistics.median(ours), 4),
        "raw_search_ms": round(statistics.median(raw), 4),
        "search_ratio": round(statistics.median(ours) / statistics.median(raw), 3),
    }


def _search(embedder: Any, store_folder: Path, repeats: int) -> tuple[list[float], list[float]]:
    """Milliseconds of each search, ours and the engine's own, with the same vectors, limit and payload."""
    import qdrant_edge as qe

    from ume_qdrant import open_store
    from ume_qdrant.searching.hits import FIELDS
    from ume_qdrant.searching.search import QueryVectors, search_vectors

    rng = random.Random(7)
    vectors = embedder.encode_query(
        [" ".join(rng.choice(WORDS) for _ in range(6)) for _ in range(QUERIES)], reasoning="never"
    )
    ours: list[float] = []
    raw: list[float] = []
    for repeat in range(repeats):
        with open_store(str(store_folder), "scale") as store:
            search_vectors(store, QueryVectors(direct=vectors[0]), limit=LIMIT)
            for vector in vectors:
                started = time.perf_counter()
                search_vectors(store, QueryVectors(direct=vector), limit=LIMIT)
                ours.append(1000 * (time.perf_counter() - started))
        # Another program that opens the engine's files changes them, which counts as damage: it gets a copy.
        [shard_folder] = store_folder.rglob("shard")
        shard_folder = shutil.copytree(shard_folder, store_folder.parent / f"raw-{repeat}")
        shard = qe.EdgeShard.load(str(shard_folder))
        for vector in [vectors[0], *vectors]:
            started = time.perf_counter()
            request = qe.QueryRequest(
                query=qe.Query.Nearest(vector.tolist(), using="direct"), limit=LIMIT, with_payload=list(FIELDS)
            )
            # The engine hands out lazy records: a caller reads what ours has read.
            _ = [(str(hit.id), hit.score, hit.payload) for hit in shard.query(request)]
            raw.append(1000 * (time.perf_counter() - started))
        del raw[-len(vectors) - 1]
        shard.close()
    return ours, raw


def _peak_mb() -> float:
    kilobytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return kilobytes / (1024 * 1024 if sys.platform == "darwin" else 1024)


def main() -> None:
    """Measure what the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", type=int, nargs="+", default=list(SIZES))
    parser.add_argument("--repeats", type=int, default=5, help="of the searches, and of the smallest size")
    parser.add_argument("--one", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--quick", action="store_true", help="a twentieth of the items, no file")
    chosen = parser.parse_args()
    if chosen.one:
        print(json.dumps(measure(chosen.one, chosen.repeats)))
        return
    where = machine()
    sizes = [size // 20 for size in chosen.sizes] if chosen.quick else chosen.sizes
    rows = []
    for size in sizes:
        # Small runs are over in seconds and vary; large ones take minutes and do not.
        times = 1 if chosen.quick or size > 5_000 else chosen.repeats
        rows.append(_middle([_in_process(size, chosen.repeats) for _ in range(times)]))
        note(json.dumps(rows[-1]))
    small, large = rows[0], rows[-1]
    finish(
        "scale",
        {
            "benchmark": "scale",
            "cost_ratio": round(large["ms_per_item"] / small["ms_per_item"], 3),
            "memory_ratio": round(large["peak_mb"] / small["peak_mb"], 3),
            "search_ratio": max(row["search_ratio"] for row in rows),
            "sizes": rows,
            "machine": where,
        },
        quick=chosen.quick,
    )


def _in_process(size: int, repeats: int) -> dict[str, Any]:
    command = [sys.executable, __file__, "--one", str(size), "--repeats", str(repeats)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)  # noqa: S603
    measured: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return measured


def _middle(runs: list[dict[str, Any]]) -> dict[str, Any]:
    """The run of median cost."""
    return sorted(runs, key=lambda run: run["ms_per_item"])[len(runs) // 2]


if __name__ == "__main__":
    main()
