"""How fast are reasoning and embedding together, against Hugging Face `generate` and against HTTP to a vLLM server?

The bundled pair over scenes, pages, clips and texts of Shapes. The peer takes the items in the given order, one fixed
batch at a time: padded prompts through `model.generate`, then the replies' evidence cut out, then a padded forward pass
of the Embedder. Same weights, prompts, pixels and parser; its best batch size counts, and for both sides the better of
one thread and of all. Runs take turns; medians.

The second peer is the paper's released way: eight threads of HTTP to a vLLM server, then embedding one by one. It needs
an interpreter with vLLM (`make test-vllm` makes one) and wall-clock time; else it is left out.

    python benchmarks/pipeline.py [--items N] [--repeats N] [--clock wall|cpu] [--quick]

The last line printed is one JSON object.
"""

from __future__ import annotations

import argparse
import atexit
import random
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np
from bench_http import Http, python_with_vllm
from bench_measure import CLOCKS, finish, machine, medians, note, take_turns

from ume_retrieval import ReasoningEmbedder
from ume_retrieval.engines.base import tcot_sampling
from ume_retrieval.engines.families import embedding_chat, evidence_of
from ume_retrieval.engines.registry import resolve_embedder, resolve_reasoner
from ume_retrieval.engines.resize import fit_chat
from ume_retrieval.engines.transformers.processor import ChatInputs
from ume_retrieval.inputs import LoadedItem
from ume_retrieval.tcot.grammar import parse
from ume_retrieval.tcot.prompts import reasoner_chat
from ume_training.shapes.levels import LEVELS
from ume_training.shapes.tasks import TASKS

SIZES = (1, 8, 16, 32, 64)
THREADS = (8,)
"""Of the second peer, as in the released scripts."""


class Generate:
    """Hugging Face `generate`, then embedding, one fixed batch at a time."""

    def __init__(self, ours: ReasoningEmbedder, items: Sequence[LoadedItem]) -> None:
        from transformers import AutoModel, AutoModelForImageTextToText, AutoProcessor

        assert ours.reasoner is not None  # noqa: S101
        self.items = items
        self.folder = resolve_reasoner("ume-tiny").model
        self.spec, self.embedder_spec = ours.reasoner.spec, ours.embedder.spec
        self.most = tcot_sampling(ours.reasoner).max_tokens
        embedder = resolve_embedder("ume-tiny").model
        self.reasoner = AutoModelForImageTextToText.from_pretrained(self.folder).eval()
        self.reading = ChatInputs(AutoProcessor.from_pretrained(self.folder), "left")
        self.embedder = AutoModel.from_pretrained(embedder).eval()
        self.embedding = ChatInputs(AutoProcessor.from_pretrained(embedder), "right")
        self.pooled = self.embedding.tokenizer.convert_tokens_to_ids(self.embedder_spec.emb_token)

    def run(self, size: int) -> tuple[list[str], np.ndarray[Any, Any]]:
        """Replies and vectors."""
        replies: list[str] = []
        vectors = []
        for start in range(0, len(self.items), size):
            batch = self.items[start : start + size]
            said = self._reason(batch)
            replies += said
            vectors.append(self.embed(batch, said))
        return replies, np.concatenate(vectors)

    def _reason(self, batch: Sequence[LoadedItem]) -> list[str]:
        import torch

        chats = [fit_chat(reasoner_chat(i, "corpus", self.spec.prompts), self.spec.budget) for i in batch]
        tensors = self.reading.tensors(chats)
        with torch.inference_mode():
            output = self.reasoner.generate(**tensors, max_new_tokens=self.most, do_sample=False)
        rows = output[:, tensors["input_ids"].shape[1] :]
        return list(self.reading.tokenizer.batch_decode(rows, skip_special_tokens=True))

    def embed(self, batch: Sequence[LoadedItem], replies: Sequence[str]) -> np.ndarray[Any, Any]:
        """One padded forward pass over items with their replies and the evidence that these name."""
        import torch

        chats = []
        for item, reply in zip(batch, replies, strict=True):
            frames = sum(len(video.images) for video in item.videos)
            tcot = parse(reply, images=len(item.images), frames=frames or None)
            evidence = evidence_of(self.embedder_spec, item, tcot)
            chats.append(embedding_chat(self.embedder_spec, item, tcot, evidence))
        tensors = self.embedding.tensors(chats)
        with torch.inference_mode():
            hidden = self.embedder(**tensors, use_cache=False).last_hidden_state
            marked = tensors["input_ids"] == self.pooled
            last = marked.shape[1] - 1 - marked.int().flip(1).argmax(1)
            pooled = hidden[torch.arange(len(batch)), last].float()
        unit: np.ndarray[Any, Any] = torch.nn.functional.normalize(pooled, dim=-1).numpy()
        return unit


def shapes_items(count: int, seed: int) -> list[LoadedItem]:
    """What every task looks for, task by task in turn."""
    rng = random.Random(seed)
    items: list[LoadedItem] = []
    while len(items) < count:
        items += [task.draw(rng, LEVELS["default"]).positive.item(rng) for task in TASKS.values()]
    return items[:count]


def on(threads: int, run: Callable[[], object]) -> Callable[[], object]:
    """A run with so many threads in each of torch's operations."""

    def running() -> object:
        import torch

        torch.set_num_threads(threads)
        return run()

    return running


def main() -> None:
    """Measure what the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--items", type=int, default=1024)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--clock", choices=list(CLOCKS), default="wall", help="cpu: for a busy machine and one thread")
    parser.add_argument("--vllm", help="interpreter with vLLM; by default this one or .venv-vllm's")
    parser.add_argument("--quick", action="store_true", help="a quarter of the items, one round, no file")
    chosen = parser.parse_args()
    where = machine()
    count, repeats = (chosen.items // 4, 1) if chosen.quick else (chosen.items, chosen.repeats)
    ours = ReasoningEmbedder.from_pretrained("ume-tiny", cache=None, device="cpu")
    items = shapes_items(count, chosen.seed)

    own = partial(ours.encode_corpus, items, strict=False, return_traces=True)
    first = own()
    # Two stages that work at the same time may get more out of few cores with a thread each.
    threads = sorted({1, where["torch_threads"]})
    alone = medians(take_turns({str(n): on(n, own) for n in threads}, min(repeats, 3), chosen.clock))
    best_threads = min(threads, key=lambda n: alone[str(n)])
    note(f"ume by threads: {alone}")
    generate = Generate(ours, items)
    peers: dict[str, tuple[Any, Sequence[int]]] = {"generate": (generate, SIZES)}
    python = chosen.vllm or python_with_vllm()
    if python and chosen.clock == "wall":  # processor time of this process says nothing of a server
        http = Http(
            python,
            str(generate.folder),
            spec=generate.spec,
            items=items,
            embed=generate.embed,
            most=generate.most,
        )
        atexit.register(http.close)
        peers["http"] = (http, THREADS)
    runs: dict[str, Callable[[], object]] = {"ume": on(best_threads, own)}
    facts: dict[str, Any] = {}
    for name, (peer, sizes) in peers.items():
        peer.run(sizes[-1])  # warm
        seconds = take_turns({str(size): on(threads[-1], partial(peer.run, size)) for size in sizes}, 1, chosen.clock)
        speeds = {size: round(count / seconds[str(size)][0], 2) for size in sizes}
        best = max(speeds, key=lambda size: speeds[size])
        by_threads = take_turns({str(n): on(n, partial(peer.run, best)) for n in threads}, 1, chosen.clock)
        most = min(threads, key=lambda n: by_threads[str(n)][0])
        replies, vectors = peer.run(best)
        sound = [row for row, trace in enumerate(first.traces) if trace is not None]
        facts[name] = {
            "items_per_s_by_batch": speeds,
            "best_batch": best,
            "best_threads": most,
            "same_replies": sum(_same(first.traces[row], replies[row], items[row]) for row in sound),
            "cosine_min": float(np.min(np.sum(vectors[sound] * first.vectors[sound], axis=1))),
        }
        runs[name] = on(most, partial(peer.run, best))
        note(f"{name}: {facts[name]}")
    seconds = take_turns(runs, repeats, chosen.clock)
    middle = medians(seconds)
    usage = first.usage
    finish(
        "pipeline",
        {
            "benchmark": "pipeline",
            "ratio_generate": round(middle["generate"] / middle["ume"], 3),
            "ratio_http": round(middle["http"] / middle["ume"], 3) if "http" in middle else None,
            "cosine_min": min(fact["cosine_min"] for fact in facts.values()),
            "items": count,
            "traces": sum(trace is not None for trace in first.traces),
            "completion_tokens": usage.completion_tokens,
            "threads": best_threads,
            "items_per_s": {name: round(count / s, 2) for name, s in middle.items()},
            "tokens_per_s": {name: round(usage.completion_tokens / s, 1) for name, s in middle.items()},
            "stage_seconds": {stage: round(s, 3) for stage, s in usage.seconds.items()},
            "peers": facts,
            "seconds": {run: [round(s, 4) for s in values] for run, values in seconds.items()},
            "clock": chosen.clock,
            "machine": where,
        },
        quick=chosen.quick,
    )


def _same(trace: Any, reply: str, item: LoadedItem) -> bool:
    frames = sum(len(video.images) for video in item.videos)
    return bool(trace.tcot == parse(reply, images=len(item.images), frames=frames or None))


if __name__ == "__main__":
    main()
