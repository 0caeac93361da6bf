"""What does a CUDA machine do with Qwen3-VL-2B at its true size? One command, at most nine minutes.

Random weights at the published sizes (nothing is downloaded), bfloat16. First the ceiling: the fastest matrix product.
Then the mixed corpus is embedded directly, at several sizes of a batch, as floating-point operations a second against
the ceiling; and by sentence-transformers on the same weights, one kind of item a call, at its best batch size. Then
T-CoT prompts are answered by the `transformers` engine. Random weights never end a reply: each is `--max-tokens` long.

    python benchmarks/gpu.py [--items N] [--replies N] [--minutes N]

The last line printed is one JSON object. Off a GPU, `--device cpu --language-layers 2 --vision-layers 3` with few items
shows that the command works; its figures mean nothing and leave no file.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from bench_corpus import mixed_corpus
from bench_measure import finish, machine, medians, note, take_turns
from bench_models import parameters, with_stock_modules
from encode import Peers
from random_init import build_qwen3_vl

from ume_retrieval.chat import Chat
from ume_retrieval.checkpoint import EmbedderSpec, ReasonerSpec, write_spec
from ume_retrieval.engines.base import Sampling
from ume_retrieval.engines.families import embedding_chat
from ume_retrieval.engines.resize import fit_chat
from ume_retrieval.engines.transformers.embedder import TransformersEmbedder
from ume_retrieval.engines.transformers.reasoner import TransformersReasoner
from ume_retrieval.inputs import Item, LoadedItem
from ume_retrieval.tcot.prompts import DEFAULT_PROMPTS, reasoner_chat

BATCH_TOKENS = (8_192, 16_384, 32_768, 65_536)
PEER_SIZES = (8, 16, 32, 64)
ROUNDS = 5
RESERVE_S = 60.0
"""Left for what follows when a part decides whether it starts."""


def ceiling(device: str) -> dict[str, float]:
    """The fastest bfloat16 matrix product of square matrices, in 10^12 operations a second, by their side."""
    import torch

    rates: dict[str, float] = {}
    for side in (4096, 8192, 16_384) if device == "cuda" else (512, 1024):
        a, b = (torch.randn(side, side, device=device, dtype=torch.bfloat16) for _ in range(2))
        times = []
        for _ in range(13):
            _wait(device)
            started = time.perf_counter()
            a @ b
            _wait(device)
            times.append(time.perf_counter() - started)
        rates[str(side)] = round(2 * side**3 / min(times[3:]) / 1e12, 2)
    return rates


def embedding(folder: Path, items: Sequence[tuple[str, Item]], device: str, deadline: float) -> dict[str, Any]:
    """Direct embedding, ours and the peer's."""
    spec = EmbedderSpec(family="embed-rl")
    ours = TransformersEmbedder.from_pretrained(str(folder), spec=spec, device=device, dtype="bfloat16")
    loaded = [LoadedItem(i.text, i.images, i.videos, None, "") for _, i in items]  # type: ignore[arg-type]  # fitted
    chats = [embedding_chat(spec, one, None, None) for one in loaded]
    ours.batch_tokens = BATCH_TOKENS[0]
    vectors = ours.embed(chats[:8]).vectors  # warm
    operations, made = _operations(lambda: ours.embed(chats))
    tokens = made.tokens
    seconds: dict[str, float] = {}
    for size in BATCH_TOKENS:
        ours.batch_tokens = size
        _wait(device)
        seconds[str(size)] = min(_timed(lambda: ours.embed(chats), device) for _ in range(2))
        note(f"batches of {size} tokens: {len(items) / seconds[str(size)]:.1f} items/s")
    best = min(seconds, key=lambda size: seconds[size])
    ours.batch_tokens = int(best)
    facts: dict[str, Any] = {
        "parameters": parameters(ours.model),
        "items": len(items),
        "tokens": tokens,
        "operations": operations,
        "items_per_s_by_batch_tokens": {size: round(len(items) / s, 2) for size, s in seconds.items()},
        "best_batch_tokens": int(best),
        "memory_gb": _peak_gb(device),
    }
    runs: dict[str, Callable[[], object]] = {"ume": lambda: ours.embed(chats)}
    if time.monotonic() + RESERVE_S < deadline:
        peers = Peers(folder, items, device)
        vectors = ours.embed(chats).vectors
        speeds = {}
        for size in PEER_SIZES:
            started = time.perf_counter()
            theirs = peers.sentence_transformers(size)
            speeds[str(size)] = round(len(items) / (time.perf_counter() - started), 2)
            note(f"sentence-transformers, batches of {size}: {speeds[str(size)]} items/s")
        best_size = int(max(speeds, key=lambda size: speeds[size]))
        facts["peer_items_per_s_by_batch"] = speeds
        facts["cosine_min"] = float(np.min(np.sum(theirs * vectors, axis=1)))
        runs["sentence_transformers"] = lambda: peers.sentence_transformers(best_size)
    middle = medians(take_turns(runs, ROUNDS if time.monotonic() + RESERVE_S < deadline else 1))
    facts["items_per_s"] = {name: round(len(items) / s, 2) for name, s in middle.items()}
    facts["tokens_per_s"] = round(tokens / middle["ume"], 1)
    facts["tera_operations_per_s"] = round(operations / middle["ume"] / 1e12, 3)
    if "sentence_transformers" in middle:
        facts["ratio"] = round(middle["sentence_transformers"] / middle["ume"], 3)
    return facts


def reasoning(folder: Path, items: Sequence[tuple[str, Item]], device: str, max_tokens: int) -> dict[str, Any]:
    """T-CoT prompts answered by random weights."""
    spec = ReasonerSpec(prompts=DEFAULT_PROMPTS)
    reasoner = TransformersReasoner.from_pretrained(str(folder), spec=spec, device=device, dtype="bfloat16")
    loaded = [LoadedItem(i.text, i.images, i.videos, None, "") for _, i in items]  # type: ignore[arg-type]  # fitted
    chats: list[Chat] = [fit_chat(reasoner_chat(one, "corpus", spec.prompts), spec.budget) for one in loaded]
    reasoner.generate(chats[:2], Sampling(max_tokens=4))  # warm
    _wait(device)
    started = time.perf_counter()
    replies = reasoner.generate(chats, Sampling(max_tokens=max_tokens))
    seconds = time.perf_counter() - started
    written = sum(one.completion_tokens for one in replies)
    return {
        "replies": len(chats),
        "prompt_tokens": sum(one.prompt_tokens for one in replies),
        "completion_tokens": written,
        "seconds": round(seconds, 2),
        "completion_tokens_per_s": round(written / seconds, 1),
        "replies_per_s": round(len(chats) / seconds, 2),
        "memory_gb": _peak_gb(device),
    }


def main() -> None:
    """Measure what the command line asks for."""
    import torch

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--items", type=int, default=1024)
    parser.add_argument("--replies", type=int, default=256)
    parser.add_argument("--max-tokens", type=int, default=256)
    parser.add_argument("--minutes", type=float, default=9.0, help="parts that would run past it are left out")
    parser.add_argument("--device", choices=["cuda", "cpu"], default="cuda")
    parser.add_argument("--language-layers", type=int)
    parser.add_argument("--vision-layers", type=int)
    chosen = parser.parse_args()
    if chosen.device == "cuda" and not torch.cuda.is_available():
        sys.exit("no CUDA GPU here; --device cpu with few layers and items shows that the command works")
    deadline = time.monotonic() + 60 * chosen.minutes
    where = machine()
    rates = ceiling(chosen.device)
    note(f"matrix products, 10^12 operations/s by side: {rates}")
    with tempfile.TemporaryDirectory(prefix="bench-") as work:
        embedder, reasoner = Path(work) / "embedder", Path(work) / "reasoner"
        spec = EmbedderSpec(family="embed-rl")
        build_qwen3_vl(embedder, "2b", chosen.language_layers, chosen.vision_layers, spec=spec)
        with_stock_modules(embedder)
        _same_weights(embedder, reasoner)
        items = mixed_corpus(chosen.items, spec.budget)
        direct = embedding(embedder, items, chosen.device, deadline)
        asked = items[: chosen.replies]
        left = time.monotonic() + RESERVE_S < deadline
        replied = reasoning(reasoner, asked, chosen.device, chosen.max_tokens) if left else None
    finish(
        "gpu",
        {
            "benchmark": "gpu",
            "share_of_ceiling": round(direct["tera_operations_per_s"] / max(rates.values()), 3),
            "ceiling_tera_operations_per_s": max(rates.values()),
            "ceiling_by_side": rates,
            "embedding": direct,
            "reasoning": replied,
            "device": chosen.device,
            "language_layers": chosen.language_layers,
            "machine": where,
        },
        quick=chosen.device == "cpu",
    )


def _same_weights(embedder: Path, reasoner: Path) -> None:
    """A Reasoner of the Embedder's weights, without copying them."""
    reasoner.mkdir()
    for path in embedder.iterdir():
        if path.is_file():
            os.link(path, reasoner / path.name)
    (reasoner / "ume.json").unlink()
    write_spec(ReasonerSpec(prompts=DEFAULT_PROMPTS), reasoner)


def _operations(run: Callable[[], Any]) -> tuple[int, Any]:
    """Floating-point operations of matrix products and attention, as torch counts them, and what the run made."""
    from torch.utils.flop_counter import FlopCounterMode

    with FlopCounterMode(display=False) as counter:
        made = run()
    return counter.get_total_flops(), made


def _timed(run: Callable[[], object], device: str) -> float:
    started = time.perf_counter()
    run()
    _wait(device)
    return time.perf_counter() - started


def _wait(device: str) -> None:
    import torch

    if device == "cuda":
        torch.cuda.synchronize()


def _peak_gb(device: str) -> float | None:
    import torch

    return round(torch.cuda.max_memory_allocated() / 1e9, 2) if device == "cuda" else None


if __name__ == "__main__":
    main()
