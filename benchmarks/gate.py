"""hit@1 on Shapes against the Reasoner's tokens, from never to always: `make bench-gate`.

A gate is calibrated on worlds of its own, and tested on others that it has never seen. "Never" compares a query's
direct vector with both kinds of corpus vectors, "always" fuses direct and reasoned rankings, as `ume search` does; the
corpus is reasoned over in all of them. The last line is one JSON object.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ume_retrieval.engines.registry import resolve_embedder, resolve_reasoner
from ume_retrieval.engines.transformers.embedder import TransformersEmbedder
from ume_retrieval.engines.transformers.reasoner import TransformersReasoner
from ume_retrieval.gate import SHOWN, DirectView, Gate, calibrate
from ume_training.egrl.reasoner_eval import USES, HeldOutTask, Written, held_out_world, write_about

CALIBRATION = (9001, 9002)
"""Worlds that the gate learns from; tests draw 1000 and up, by the thousand."""

Matrix = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Asked:
    """One query, with what each way of searching makes of it.

    Attributes:
        view: What the gate sees.
        never: Whether the first hit is right when the query is not reasoned over.
        always: Whether it is right when it is.
        tokens: What reasoning over it costs.
    """

    view: DirectView
    never: bool
    always: bool
    tokens: int


def ask(world: int, level: str, reasoner: TransformersReasoner, embedder: TransformersEmbedder) -> list[Asked]:
    """Every query of a world, both ways."""
    return [one for task in held_out_world(world, level) for one in _ask_task(task, reasoner, embedder)]


def _ask_task(task: HeldOutTask, reasoner: TransformersReasoner, embedder: TransformersEmbedder) -> list[Asked]:
    queries = write_about(reasoner, task.queries, "query", task.targets)
    corpus = write_about(reasoner, task.candidates, "corpus", [None] * len(task.candidates))
    query, thought = (_vectors(embedder, queries, use) for use in ("raw", "whole"))
    direct, reasoned = (_vectors(embedder, corpus, use) for use in ("raw", "whole"))
    plain, plain_reasoned = query @ direct.T, query @ reasoned.T
    never = (plain + plain_reasoned).argmax(axis=1).tolist()
    always = (plain + thought @ reasoned.T).argmax(axis=1).tolist()
    return [
        Asked(
            DirectView(query[row], _best(plain[row]), _best(plain_reasoned[row])),
            never[row] in right,
            always[row] in right,
            written.tokens,
        )
        for row, (right, written) in enumerate(zip(task.relevant, queries, strict=True))
    ]


def _vectors(embedder: TransformersEmbedder, written: list[Written], use: str) -> Matrix:
    from ume_retrieval.engines.families import embedding_chat

    shown = USES[use](written, embedder.spec)
    chats = [embedding_chat(embedder.spec, one.item, *given) for one, given in zip(written, shown, strict=True)]
    return embedder.embed(chats).vectors


def _best(scores: Matrix) -> tuple[tuple[str, float], ...]:
    order = np.argsort(-scores, kind="stable")[:SHOWN]
    return tuple((str(index), float(scores[index])) for index in order.tolist())


def outcome(asked: list[Asked], reasons: list[bool]) -> dict[str, float]:
    """hit@1 and the share of the Reasoner's tokens that are spent."""
    spent = sum(one.tokens for one, reason in zip(asked, reasons, strict=True) if reason)
    hits = [one.always if reason else one.never for one, reason in zip(asked, reasons, strict=True)]
    return {"hit@1": round(float(np.mean(hits)), 4), "tokens": round(spent / sum(one.tokens for one in asked), 4)}


def curve(gate: Gate, asked: list[Asked]) -> list[dict[str, float]]:
    """The same gate at every tenth of queries spared."""
    odds = np.asarray([one.view.features() @ np.asarray(gate.weights) + gate.bias for one in asked])
    cuts = np.quantile(odds, np.linspace(0, 1, 11))
    return [outcome(asked, (odds < cut).tolist()) for cut in cuts]


def main() -> None:
    """Calibrate, test, and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--level", default="default")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--max-loss", type=float, default=0.004)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/gate.json"))
    options = parser.parse_args()
    found, writer = resolve_embedder("ume-tiny"), resolve_reasoner("ume-tiny")
    embedder = TransformersEmbedder.from_pretrained(found.model, spec=found.spec)
    reasoner = TransformersReasoner.from_pretrained(writer.model, spec=writer.spec)
    started = time.monotonic()
    learned = [one for world in CALIBRATION for one in ask(world, options.level, reasoner, embedder)]
    name = f"{embedder.info.name}@{embedder.info.revision}"
    spare = [one.never >= one.always for one in learned]
    gate = calibrate([one.view for one in learned], spare, embedder=name, max_loss=options.max_loss)
    seeds: list[dict[str, Any]] = []
    tested: list[Asked] = []
    for seed in range(1, options.seeds + 1):
        asked = ask(1000 * seed, options.level, reasoner, embedder)
        tested += asked
        chosen = outcome(asked, [gate.needs_reasoning(one.view) for one in asked])
        never, always = (outcome(asked, [reason] * len(asked)) for reason in (False, True))
        seeds.append({"never": never, "always": always, "gate": chosen})
        print(seeds[-1], file=sys.stderr, flush=True)
    always = outcome(tested, [True] * len(tested))
    chosen = outcome(tested, [gate.needs_reasoning(one.view) for one in tested])
    result = {
        "benchmark": "gate",
        "level": options.level,
        "tokens_saved": round(1 - chosen["tokens"], 4),
        "hit1_loss": round(always["hit@1"] - chosen["hit@1"], 4),
        "never": outcome(tested, [False] * len(tested)),
        "always": always,
        "gate": chosen,
        "max_loss": options.max_loss,
        "expected": {"saved": round(gate.saved, 4), "loss": round(gate.loss, 4), "queries": gate.queries},
        "by_seed": seeds,
        "curve": curve(gate, tested),
        "queries": len(tested),
        "seconds": round(time.monotonic() - started, 1),
        "machine": {"processor": platform.processor() or platform.machine(), "cores": os.cpu_count()},
    }
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(result))


if __name__ == "__main__":
    main()
