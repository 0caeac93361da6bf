"""Which items of a corpus to reason over first, when not all can be: `make bench-budget`.

The bundled pair on Shapes. Items are reasoned over in an order, the rest keeps its direct vector only, and queries (all
reasoned over) rank by fused scores, as `ume search` does. Two orders: by chance, and "crowded": first the items whose
direct vector has the nearest neighbour in the corpus. The last line is one JSON object.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
from bench_measure import machine
from gate import Matrix, _vectors

from ume_qdrant.searching.fusion import fuse
from ume_retrieval.engines.registry import resolve_embedder, resolve_reasoner
from ume_retrieval.engines.transformers.embedder import TransformersEmbedder
from ume_retrieval.engines.transformers.reasoner import TransformersReasoner
from ume_training.egrl.reasoner_eval import HeldOutTask, held_out_world, write_about

SHARES = tuple(tenth / 10 for tenth in range(11))


def crowded(direct: Matrix) -> list[int]:
    """Rows by the similarity of their nearest neighbour, closest first."""
    near = direct @ direct.T
    np.fill_diagonal(near, -1)
    return np.argsort(-near.max(axis=1), kind="stable").tolist()


def hits(task: HeldOutTask, plain: Matrix, thought: Matrix, reasoned: set[int]) -> list[bool]:
    """Whether each query finds its answer first when only some rows are reasoned over."""
    found = []
    for row, right in enumerate(task.relevant):
        direct = {str(index): float(score) for index, score in enumerate(plain[row])}
        scores = fuse(direct, {str(index): float(thought[row, index]) for index in reasoned}, 0.5)
        found.append(int(max(scores, key=lambda key: scores[key])) in right)
    return found


def main() -> None:
    """Measure, print, and write."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--level", default="default")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/corpus_budget.json"))
    options = parser.parse_args()
    found, writer = resolve_embedder("ume-tiny"), resolve_reasoner("ume-tiny")
    embedder = TransformersEmbedder.from_pretrained(found.model, spec=found.spec)
    reasoner = TransformersReasoner.from_pretrained(writer.model, spec=writer.spec)
    rows: dict[str, dict[float, list[bool]]] = {name: {share: [] for share in SHARES} for name in ("chance", "crowded")}
    queries = 0
    for seed in range(1, options.seeds + 1):
        rng = np.random.default_rng(seed)
        for task in held_out_world(1000 * seed, options.level):
            asked = write_about(reasoner, task.queries, "query", task.targets)
            corpus = write_about(reasoner, task.candidates, "corpus", [None] * len(task.candidates))
            direct = _vectors(embedder, corpus, "raw")
            plain = _vectors(embedder, asked, "raw") @ direct.T
            thought = _vectors(embedder, asked, "whole") @ _vectors(embedder, corpus, "whole").T
            orders = {"chance": rng.permutation(len(corpus)).tolist(), "crowded": crowded(direct)}
            queries += len(asked)
            for name, order in orders.items():
                for share in SHARES:
                    rows[name][share] += hits(task, plain, thought, set(order[: round(share * len(order))]))
        now = {name: [round(float(np.mean(row[share])), 3) for share in SHARES] for name, row in rows.items()}
        print(now, file=sys.stderr, flush=True)
    result: dict[str, Any] = {
        "benchmark": "corpus_budget",
        "level": options.level,
        "queries": queries,
        "shares": SHARES,
        "hit@1": {name: [round(float(np.mean(row[share])), 4) for share in SHARES] for name, row in rows.items()},
        "machine": machine(),
    }
    options.out.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(result))


if __name__ == "__main__":
    main()
