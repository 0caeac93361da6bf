"""What EG-RL gains on Shapes, and the paper's ablations: `make bench-egrl`.

EG-RL starts from an honest Reasoner that writes two kinds of true T-CoTs (`before`, `after`), from a lazy one
(`lazy_before`, `lazy_after`), and from one that was taught the T-CoT that each query needs (`specialist_before`,
`specialist_after`); `egrl_starts.py` says how they were trained. It learns from pairs that the start gets wrong, with
the bundled Embedder as its frozen reward. Ablations change the reward (three more runs a seed) or what of the T-CoTs
the Embedder gets to see (the `after` Reasoner). Everything is kept under --run as it is made; the same command goes
on. The last line is one JSON object.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from egrl_starts import LEVEL, MixedTasks, learn_starts

from ume_retrieval.checkpoint import EmbedderSpec
from ume_retrieval.engines.registry import resolve_embedder, resolve_reasoner
from ume_retrieval.engines.transformers.embedder import TransformersEmbedder
from ume_retrieval.engines.transformers.reasoner import TransformersReasoner
from ume_retrieval.tcot.evidence import Evidence
from ume_retrieval.tcot.trace import TCot
from ume_retrieval.util.progress import Progress
from ume_training.contrastive.settings import LoraSettings
from ume_training.data.sources import ChosenPairs
from ume_training.egrl.hard import hard_pairs
from ume_training.egrl.process import WordsDiscriminator
from ume_training.egrl.reasoner_eval import USES, Written, held_out_world, hit_at_1, write_about
from ume_training.egrl.run import run_egrl
from ume_training.egrl.settings import EgrlSettings, RewardWeights
from ume_training.shapes.benchmark import GROUP_SIZE
from ume_training.shapes.pairs import ShapesSource
from ume_training.shapes.tasks import TASKS

WORLDS_A_SEED = 1
FAMILIES = 60
"""Families of each task that are searched for pairs that the Reasoner gets wrong."""

EGRL = EgrlSettings(
    reasoner="set below",
    embedder="ume-tiny",
    discriminator="words",
    pairs=8,
    micro_batch=64,
    steps=30,
    learning_rate=2e-3,
    schedule="cosine",
    warmup_steps=2,
    max_tokens=160,
    # Full fine-tuning of so small a model forgets as fast as it learns: adapters move 30 times fewer weights.
    lora=LoraSettings(r=4, alpha=8),
    save_every=30,
)
REWARDS: dict[str, dict[str, Any]] = {
    "no_process_reward": {"weights": RewardWeights(process=0.0)},
    "no_outcome_reward": {"weights": RewardWeights(outcome=0.0)},
    "no_weighted_negatives": {"weighted_negatives": False},
}
USED = {
    "answer_only": "answer_only",
    "no_crops_and_frames": "without_pictures",
    "raw_input": "raw",
    "swapped": "swapped",
}


class Bench:
    """Trains and measures, keeping every result under a folder.

    Args:
        run: The folder.
        seeds: Of EG-RL and of the held-out worlds.
        settings: Of EG-RL.
    """

    def __init__(self, run: Path, seeds: tuple[int, ...], settings: EgrlSettings) -> None:
        self.run, self.seeds, self.settings = run, seeds, settings
        self.embedder = load_embedder("ume-tiny")
        self.rows: dict[str, list[dict[str, Any]]] = {}

    def measure(self, row: str, seed: int, reasoner: Path, uses: Mapping[str, str]) -> None:
        """hit@1 of a Reasoner on the worlds of a seed, for each way of using its T-CoTs; `uses` maps rows to ways."""
        path = self.run / "scores" / f"{row}-{seed}.json"
        if not path.is_file():
            scores = evaluate(load_reasoner(reasoner), self.embedder, seed, uses)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(json.dumps(scores, indent=1) + "\n", encoding="utf-8")
        for name, score in json.loads(path.read_text(encoding="utf-8")).items():
            self.rows.setdefault(name, []).append(score)
            note(f"{name:22s} seed {seed}  hit@1 {score['hit@1']:.4f}  in form {score['in_form']:.3f}")

    def hard(self, start: Path, name: str) -> MixedTasks:
        """The pairs that a Reasoner gets wrong, found once."""
        path = self.run / f"hard-{name}.json"
        sources = [
            ShapesSource(task, level=LEVEL, seed=5, group_size=GROUP_SIZE, count=FAMILIES * GROUP_SIZE)
            for task in TASKS
        ]
        if not path.is_file():
            reasoner = load_reasoner(start)
            chosen = {source.name: hard_pairs(source, reasoner, WordsDiscriminator()).chosen for source in sources}
            path.write_text(json.dumps(chosen) + "\n", encoding="utf-8")
            counts = ", ".join(f"{task} {len(pairs)}" for task, pairs in chosen.items())
            note(f"pairs to learn from, of {FAMILIES * GROUP_SIZE} each: {counts}")
        chosen = json.loads(path.read_text(encoding="utf-8"))
        return MixedTasks([ChosenPairs(source, tuple(chosen[source.name])) for source in sources])

    def reinforce(self, row: str, seed: int, start: Path, source: MixedTasks, changes: Mapping[str, Any]) -> Path:
        """EG-RL from a Reasoner; returns the trained one."""
        folder = self.run / "egrl" / f"{row}-{seed}"
        if not (folder / "reasoner" / "ume.json").is_file():
            settings = self.settings.model_copy(update={"reasoner": str(start), "seed": seed, **changes})
            started = time.monotonic()
            run_egrl(settings, [source], folder, on_progress=show_step)
            note(f"{row} seed {seed}: {settings.steps} steps in {time.monotonic() - started:.0f} s")
        return folder / "reasoner"


def swapped(written: Sequence[Written], spec: EmbedderSpec) -> list[tuple[TCot | None, Evidence | None]]:
    """Every item with the T-CoT of the next one of its task: shows whether the Embedder reads T-CoTs at all."""
    turned = [*written[1:], *written[:1]]
    return USES["whole"]([replace(one, tcot=other.tcot) for one, other in zip(written, turned, strict=True)], spec)


def evaluate(
    reasoner: TransformersReasoner, embedder: TransformersEmbedder, seed: int, uses: Mapping[str, str]
) -> dict[str, dict[str, Any]]:
    """hit@1 over two worlds, each task counting the same, for each way of using the T-CoTs."""
    by_task: dict[str, dict[str, list[float]]] = {row: {} for row in uses}
    queries, in_form, tokens = 0, [], []
    for world in range(WORLDS_A_SEED):
        for task in held_out_world(1000 * seed + world, LEVEL):
            asked = write_about(reasoner, task.queries, "query", task.targets)
            corpus = write_about(reasoner, task.candidates, "corpus", [None] * len(task.candidates))
            queries += len(asked)
            in_form += [one.in_form for one in (*asked, *corpus)]
            tokens += [one.tokens for one in (*asked, *corpus)]
            for row, use in uses.items():
                score = hit_at_1(embedder, task, asked, corpus, {**USES, "swapped": swapped}[use])
                by_task[row].setdefault(task.name, []).append(score)
    return {
        row: {
            "hit@1": statistics.mean(statistics.mean(scores) for scores in tasks.values()),
            "tasks": {task: round(statistics.mean(scores), 4) for task, scores in tasks.items()},
            "queries": queries,
            "in_form": round(statistics.mean(in_form), 4),
            "tokens": round(statistics.mean(tokens), 1),
        }
        for row, tasks in by_task.items()
    }


def load_embedder(name: str) -> TransformersEmbedder:
    """The frozen Embedder."""
    found = resolve_embedder(name)
    return TransformersEmbedder.from_pretrained(found.model, spec=found.spec)


def load_reasoner(folder: Path) -> TransformersReasoner:
    """A Reasoner from its folder."""
    found = resolve_reasoner(str(folder))
    return TransformersReasoner.from_pretrained(found.model, spec=found.spec)


def note(text: str) -> None:
    """Say something beside the result."""
    print(text, file=sys.stderr, flush=True)


def show_step(step: Progress) -> None:
    """A line every ten steps."""
    if step.done % 10 == 0 or step.done == step.total:
        shown = ("reward", "format", "process", "accuracy", "kl", "entropy", "tokens", "seconds")
        figures = (f"{name} {step.figures[name]:.3f}" for name in shown if name in step.figures)
        note(f"  step {step.done}/{step.total}  " + "  ".join(figures))


def summary(rows: Mapping[str, list[dict[str, Any]]]) -> dict[str, Any]:
    """Mean and spread of every row over its seeds."""
    return {
        name: {
            "hit@1": round(statistics.mean(score["hit@1"] for score in scores), 4),
            "std": round(statistics.stdev([score["hit@1"] for score in scores]), 4) if len(scores) > 1 else None,
            "seeds": len(scores),
            "queries": sum(score["queries"] for score in scores),
            "by_seed": [round(score["hit@1"], 4) for score in scores],
            "in_form": round(statistics.mean(score["in_form"] for score in scores), 4),
            "tokens": round(statistics.mean(score["tokens"] for score in scores), 1),
            "tasks": {
                task: round(statistics.mean(score["tasks"][task] for score in scores), 3) for task in scores[0]["tasks"]
            },
        }
        for name, scores in rows.items()
    }


def main() -> None:
    """Run everything that is not there yet and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--run", type=Path, default=Path("runs/bench-egrl"), help="where everything is kept")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/egrl-shapes.json"))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=0, help="processor threads, 0 for torch's own choice")
    options = parser.parse_args()
    if options.threads:
        import torch

        torch.set_num_threads(options.threads)
    run: Path = options.run
    starts = learn_starts(run)
    honest, lazy, specialist = starts["both"], starts["lazy"], starts["specialist"]
    bench = Bench(run, tuple(range(1, options.seeds + 1)), EGRL)
    hard, hard_lazy = bench.hard(honest, "before"), bench.hard(lazy, "lazy_before")
    hard_specialist = bench.hard(specialist, "specialist_before")
    for seed in bench.seeds:
        bench.measure("before", seed, honest, {"before": "whole"})
        after = bench.reinforce("after", seed, honest, hard, {})
        bench.measure("after", seed, after, {"after": "whole", **USED})
        bench.measure("lazy_before", seed, lazy, {"lazy_before": "whole"})
        lazy_after = bench.reinforce("lazy_after", seed, lazy, hard_lazy, {})
        bench.measure("lazy_after", seed, lazy_after, {"lazy_after": "whole"})
        bench.measure("specialist_before", seed, specialist, {"specialist_before": "whole"})
        specialist_after = bench.reinforce("specialist_after", seed, specialist, hard_specialist, {})
        bench.measure("specialist_after", seed, specialist_after, {"specialist_after": "whole"})
        for row, changes in REWARDS.items():
            bench.measure(row, seed, bench.reinforce(row, seed, honest, hard, changes), {row: "whole"})
    rows = summary(bench.rows)
    result = {
        "benchmark": "egrl-shapes",
        "level": LEVEL,
        "gain": round(rows["after"]["hit@1"] - rows["before"]["hit@1"], 4),
        "lazy_gain": round(rows["lazy_after"]["hit@1"] - rows["lazy_before"]["hit@1"], 4),
        "swap_cost": round(rows["after"]["hit@1"] - rows["swapped"]["hit@1"], 4),
        "rows": rows,
        "egrl": bench.settings.model_dump(exclude={"reasoner"}),
        "machine": {"processor": platform.processor() or platform.machine(), "cores": os.cpu_count()},
    }
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(result))


if __name__ == "__main__":
    main()
