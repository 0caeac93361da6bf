"""Recall and latency of each layout of a collection on Qdrant Edge, against exact search.

    python benchmarks/qdrant_layouts.py --points 6000 --dimension 1024

The vectors are made from a seed: clusters with noise. In the world "decaying" the spread of the values falls off along
the vector, as Matryoshka training makes it; in "flat" it does not. Neither is a real model's.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
import uuid
from typing import Any

import numpy as np
import numpy.typing as npt

from ume_qdrant import CollectionMeta, EdgeStore, Layout, Point, SearchEffort

LIMIT = 10
ROUNDS = 5

Rows = npt.NDArray[np.float32]


def world(kind: str, points: int, queries: int, dimension: int, seed: int) -> tuple[Rows, Rows]:
    """Unit vectors of a corpus and of queries, each query near a point of the corpus."""
    random = np.random.default_rng(seed)
    spread = (1.0 + np.arange(dimension)) ** -0.5 if kind == "decaying" else np.ones(dimension)
    centres = random.normal(size=(points // 50, dimension)) * spread
    corpus = centres[random.integers(0, len(centres), points)] + 0.6 * random.normal(size=(points, dimension)) * spread
    asked = corpus[random.integers(0, points, queries)] + 0.4 * random.normal(size=(queries, dimension)) * spread
    corpus /= np.linalg.norm(corpus, axis=1, keepdims=True)
    asked /= np.linalg.norm(asked, axis=1, keepdims=True)
    return corpus.astype(np.float32), asked.astype(np.float32)


def measure(layout: Layout, efforts: dict[str, SearchEffort], corpus: Rows, asked: Rows) -> list[dict[str, Any]]:
    """Recall@10 against exact search, and the median over queries of each one's median of five times."""
    dimension = corpus.shape[1]
    truth = [set(np.argsort(-row)[:LIMIT].tolist()) for row in asked @ corpus.T]
    results: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as folder, EdgeStore(folder, "points") as store:
        store.create(CollectionMeta("made", "", "made", dimension), layout)
        for start in range(0, len(corpus), 500):
            rows = enumerate(corpus[start : start + 500], start)
            store.upsert([Point(str(uuid.UUID(int=i)), {"direct": row}, {}) for i, row in rows])
        started = time.perf_counter()
        store.optimize()
        built = time.perf_counter() - started
        for name, effort in efforts.items():
            seconds = np.zeros((ROUNDS, len(asked)))
            found: list[set[int]] = []
            for turn in range(ROUNDS):
                found = []
                for number, query in enumerate(asked):
                    started = time.perf_counter()
                    hits = store.search("direct", query, limit=LIMIT, effort=effort)
                    seconds[turn, number] = time.perf_counter() - started
                    found.append({uuid.UUID(hit.id).int for hit in hits})
            recall = statistics.mean(len(a & b) / LIMIT for a, b in zip(truth, found, strict=True))
            results.append(
                {
                    "layout": str(layout),
                    "effort": name,
                    "recall": round(recall, 4),
                    "ms": round(1000 * float(np.median(np.median(seconds, axis=0))), 3),
                    "optimize_s": round(built, 1),
                }
            )
    return results


def main() -> None:
    """Measure, and print one JSON object a line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--points", type=int, default=6_000)
    parser.add_argument("--dimension", type=int, default=1024)
    parser.add_argument("--queries", type=int, default=100)
    parser.add_argument("--worlds", nargs="+", default=["decaying", "flat"], choices=["decaying", "flat"])
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    usual = {f"oversampling {n}": SearchEffort(oversampling=n) for n in (1.0, 4.0, 10.0)}
    layouts = {
        Layout(): {"exact": SearchEffort(exact=True), "index": SearchEffort()},
        Layout(quantization="scalar"): usual,
        Layout(quantization="binary"): usual,
        Layout(quantization="product"): usual,
        Layout(matryoshka_dim=options.dimension // 4): usual,
        Layout(matryoshka_dim=options.dimension // 4, quantization="scalar"): usual,
    }
    for kind in options.worlds:
        corpus, asked = world(kind, options.points, options.queries, options.dimension, options.seed)
        for layout, efforts in layouts.items():
            for result in measure(layout, efforts, corpus, asked):
                print(json.dumps({"world": kind, **result}), flush=True)


if __name__ == "__main__":
    main()
