"""How long does a Reasoner take to read prompts that begin alike, and what is that of a whole T-CoT?

The default prompts of texts put their task and form first, some hundreds of tokens that are the same for every text. A
batch computes them once. A random Qwen3-VL of some 65 M reads the prompts of short texts, and writes replies of a fixed
length: with shared beginnings, without them, and as padded batches of Hugging Face `generate`. Runs take turns; figures
are medians.

    python benchmarks/prompts.py [--items N] [--repeats N] [--clock wall|cpu] [--quick]

The last line printed is one JSON object.
"""

from __future__ import annotations

import argparse
import math
import tempfile
from collections.abc import Callable
from pathlib import Path

from bench_corpus import instructed_corpus
from bench_measure import CLOCKS, finish, machine, medians, take_turns
from bench_models import MIDDLE_BUDGET, middle_embedder

from ume_retrieval.checkpoint import ReasonerSpec
from ume_retrieval.engines.base import Generation, Sampling
from ume_retrieval.engines.transformers import processor as chat_inputs
from ume_retrieval.engines.transformers.reasoner import TransformersReasoner
from ume_retrieval.inputs import LoadedItem
from ume_retrieval.tcot.prompts import DEFAULT_PROMPTS, reasoner_chat

REPLIES = (1, 150)
"""Tokens of a reply: as good as none, and those of a T-CoT."""

USUAL = chat_inputs.SHARED_SHARE


def sharing(least: float, run: Callable[[], list[Generation]]) -> Callable[[], list[Generation]]:
    """A run whose batches share what they begin with from a share of their tokens on."""

    def running() -> list[Generation]:
        chat_inputs.SHARED_SHARE = least
        try:
            return run()
        finally:
            chat_inputs.SHARED_SHARE = USUAL

    return running


def main() -> None:
    """Measure what the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--items", type=int, default=24)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--clock", choices=list(CLOCKS), default="wall", help="cpu: for a busy machine and one thread")
    parser.add_argument("--quick", action="store_true", help="a quarter of the items, one round, no file")
    chosen = parser.parse_args()
    where = machine()
    count, repeats = (chosen.items // 4, 1) if chosen.quick else (chosen.items, chosen.repeats)
    texts = [item.text for _, item in instructed_corpus(count)]
    chats = [reasoner_chat(LoadedItem(text, (), (), None, ""), "query", DEFAULT_PROMPTS) for text in texts]
    rows = {}
    with tempfile.TemporaryDirectory(prefix="bench-") as work:
        spec = ReasonerSpec(prompts=DEFAULT_PROMPTS, budget=MIDDLE_BUDGET)
        reasoner = TransformersReasoner.from_pretrained(
            str(middle_embedder(Path(work) / "model")), spec=spec, device="cpu"
        )
        for length in REPLIES:
            sampling = Sampling(max_tokens=length)
            runs: dict[str, Callable[[], list[Generation]]] = {
                "shared": sharing(USUAL, lambda s=sampling: reasoner.generate(chats, s)),  # type: ignore[misc]
                "unshared": sharing(math.inf, lambda s=sampling: reasoner.generate(chats, s)),  # type: ignore[misc]
                "generate": lambda s=sampling: reasoner._generate_batch(chats, s),  # type: ignore[misc]  # noqa: SLF001
            }
            replies = {name: run() for name, run in runs.items()}
            seconds = take_turns(runs, repeats, chosen.clock)
            middle = medians(seconds)
            rows[str(length)] = {
                "reply_tokens": length,
                "prompt_tokens": sum(one.prompt_tokens for one in replies["shared"]) / count,
                "same_replies": len({tuple(said) for said in replies.values()}) == 1,
                "items_per_s": {name: round(count / s, 3) for name, s in middle.items()},
                "ratio_unshared": round(middle["unshared"] / middle["shared"], 3),
                "ratio_generate": round(middle["generate"] / middle["shared"], 3),
                "seconds": {name: [round(s, 3) for s in values] for name, values in seconds.items()},
            }
    result = {
        "benchmark": "prompts",
        "ratio_unshared": rows[str(REPLIES[-1])]["ratio_unshared"],
        "ratio_generate": rows[str(REPLIES[-1])]["ratio_generate"],
        "replies": rows,
        "items": count,
        "machine": where,
        "clock": chosen.clock,
    }
    finish("prompts", result, quick=chosen.quick)


if __name__ == "__main__":
    main()
