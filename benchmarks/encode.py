"""How fast is direct embedding of a mixed corpus, against peers on the same weights, pixels and machine?

Peers, each at its best batch size of 4 to 32:
- `sentence_transformers`: `SentenceTransformer.encode`, fixed batches of inputs sorted by its own measure of length.
- `padded`: fixed batches in the given order, padded to their longest, as the published Embed-RL script does.

Two models: `ume-tiny` (2.5 M parameters, where Python's own time counts) and a random Qwen3-VL of some 65 M (where the
matrix products do); the latter also over short texts that share an instruction. Runs take turns; figures are medians.
The headline is the middle model's over the mixed corpus. `ratio_one_by_one` is
against the faster peer without batches: it pads nothing, and on a CPU, where one input keeps the core busy, it comes
close; measured once.

    python benchmarks/encode.py [--case tiny|middle|instructed] [--items N] [--repeats N] [--quick]

The last line printed is one JSON object.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from bench_corpus import instructed_corpus, mixed_corpus
from bench_measure import CLOCKS, finish, machine, medians, note, take_turns
from bench_models import middle_embedder, parameters, tiny_embedder

from ume_retrieval import Item, ReasoningEmbedder
from ume_retrieval.engines.families import embedding_chat
from ume_retrieval.engines.transformers.embedder import TransformersEmbedder
from ume_retrieval.engines.transformers.processor import ChatInputs, video_metadata
from ume_retrieval.inputs import Frames, LoadedItem

SIZES = (1, 4, 8, 16, 32)
ITEMS = {"tiny": 256, "middle": 32, "instructed": 64}
"""Of each case."""


class Peers:
    """Both peers on the weights of a folder."""

    def __init__(self, folder: Path, items: Sequence[tuple[str, Item]], device: str) -> None:
        import torch
        from sentence_transformers import SentenceTransformer
        from transformers import AutoModel, AutoProcessor

        self.items = items
        dtype = torch.bfloat16 if device == "cuda" else torch.float32
        self.stock = SentenceTransformer(str(folder), device=device, model_kwargs={"dtype": dtype})
        self.model = AutoModel.from_pretrained(folder, dtype=dtype).to(device).eval()
        self.inputs = ChatInputs(AutoProcessor.from_pretrained(folder), "right")
        self.pooled = self.inputs.tokenizer.convert_tokens_to_ids("<emb>")

    def sentence_transformers(self, size: int) -> np.ndarray[Any, Any]:
        """Each kind in a call of its own: mixed in one call, version 6.2 gives pictures other vectors."""
        kinds = sorted({kind.split()[-1] for kind, _ in self.items})
        vectors = np.empty((len(self.items), self.stock.get_embedding_dimension()), np.float32)
        for kind in kinds:
            rows = [row for row, (name, _) in enumerate(self.items) if name.split()[-1] == kind]
            inputs = [_stock_input(self.items[row][1]) for row in rows]
            vectors[rows] = self.stock.encode(inputs, batch_size=size, show_progress_bar=False)
        return vectors

    def padded(self, size: int, spec: Any) -> np.ndarray[Any, Any]:
        """The model's own forward pass over padded batches."""
        import torch

        found = []
        for start in range(0, len(self.items), size):
            loaded = [
                LoadedItem(i.text, i.images, i.videos, i.instruction, "") for _, i in self.items[start : start + size]
            ]  # type: ignore[arg-type]
            tensors = self.inputs.tensors([embedding_chat(spec, one, None, None) for one in loaded])
            tensors = {name: value.to(self.model.device) for name, value in tensors.items()}
            with torch.inference_mode():
                hidden = self.model(**tensors, use_cache=False).last_hidden_state
                places = (tensors["input_ids"] == self.pooled).int().argmax(1)
                rows = hidden[torch.arange(len(loaded)), places].float()
                found.append(torch.nn.functional.normalize(rows, dim=-1).cpu().numpy())
        return np.concatenate(found)


def _stock_input(item: Item) -> Any:
    if item.videos:
        [frames] = item.videos
        assert isinstance(frames, Frames)  # noqa: S101
        return {
            "video": {
                "array": np.stack([np.asarray(i) for i in frames.images]),
                "video_metadata": video_metadata(frames),
            }
        }
    if item.images and item.text:
        content = [{"type": "image", "image": item.images[0]}, {"type": "text", "text": item.text}]
        return [{"role": "user", "content": content}]
    return item.images[0] if item.images else "\n".join(filter(None, (item.instruction, item.text)))


def compare(name: str, count: int, repeats: int, device: str, clock: str) -> dict[str, Any]:
    """Measure one case."""
    with tempfile.TemporaryDirectory(prefix="bench-") as work:
        folder = (tiny_embedder if name == "tiny" else middle_embedder)(Path(work) / "model")
        ours = ReasoningEmbedder.from_pretrained(folder, reasoner=None, cache=None, device=device)
        assert isinstance(ours.embedder, TransformersEmbedder)  # noqa: S101
        spec = ours.embedder.spec
        items = instructed_corpus(count) if name == "instructed" else mixed_corpus(count, spec.budget)
        peers = Peers(folder, items, device)
        inputs = [item for _, item in items]

        def own() -> np.ndarray[Any, Any]:
            return ours.encode_corpus(inputs, reasoning="never")

        ways: dict[str, Callable[[int], np.ndarray[Any, Any]]] = {
            "sentence_transformers": peers.sentence_transformers,
            "padded": lambda size: peers.padded(size, spec),
        }
        vectors = own()
        tried: dict[str, dict[int, float]] = {}
        agreement: dict[str, float] = {}
        for peer, way in ways.items():
            seconds = take_turns({str(size): (lambda s=size, w=way: w(s)) for size in SIZES}, 1, clock)  # type: ignore[misc]
            tried[peer] = {size: round(count / seconds[str(size)][0], 2) for size in SIZES}
            # Alone, so that what a peer's batches do to its vectors does not count against it.
            agreement[peer] = float(np.min(np.sum(way(1) * vectors, axis=1)))
            note(f"{name} {peer}: items/s by batch size {tried[peer]}, cosine {agreement[peer]:.7f}")
        # One at a time, nothing is padded and nothing is batched; that has a figure of its own.
        best = {peer: max(SIZES[1:], key=lambda size, of=sizes: of[size]) for peer, sizes in tried.items()}
        runs: dict[str, Callable[[], object]] = {"ume": own}
        runs |= {peer: (lambda p=peer: ways[p](best[p])) for peer in ways}  # type: ignore[misc]
        seconds_of = take_turns(runs, repeats, clock)
        middle = medians(seconds_of)
        others = vectors @ vectors.T
        return {
            "model": "tiny" if name == "tiny" else "middle",
            "corpus": "instructed" if name == "instructed" else "mixed",
            "parameters": parameters(ours.embedder.model),
            "weights": "ume-tiny's Embedder" if name == "tiny" else "random",
            "items": count,
            "tokens": ours.encode_corpus(inputs, reasoning="never", return_traces=True).usage.embedded_tokens,
            "items_per_s": {run: round(count / s, 2) for run, s in middle.items()},
            "ratio_one_by_one": round(count / max(sizes[1] for sizes in tried.values()) / middle["ume"], 3),
            "ratio": {peer: round(middle[peer] / middle["ume"], 3) for peer in ways},
            "ratio_best_peer": round(min(middle[peer] for peer in ways) / middle["ume"], 3),
            "cosine_min": min(agreement.values()),
            "cosine": agreement,
            "cosine_between_items": round(float(np.median(others[~np.eye(count, dtype=bool)])), 4),
            "best_batch": best,
            "items_per_s_by_batch": tried,
            "seconds": {run: [round(s, 4) for s in values] for run, values in seconds_of.items()},
        }


def main() -> None:
    """Measure what the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--case", choices=[*ITEMS], action="append", help="by default all")
    parser.add_argument("--items", type=int)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--clock", choices=list(CLOCKS), default="wall", help="cpu: for a busy machine and one thread")
    parser.add_argument("--quick", action="store_true", help="a quarter of the items, one round, no file")
    chosen = parser.parse_args()
    where = machine()
    rows = {}
    for name in chosen.case or ITEMS:
        count = chosen.items or ITEMS[name] // (4 if chosen.quick else 1)
        rows[name] = compare(name, count, 1 if chosen.quick else chosen.repeats, chosen.device, chosen.clock)
    headline = rows.get("middle") or next(iter(rows.values()))
    result = {
        "benchmark": "encode",
        "ratio_best_peer": headline["ratio_best_peer"],
        "ratio_one_by_one": headline["ratio_one_by_one"],
        "cosine_min": min(row["cosine_min"] for row in rows.values()),
        "headline_model": headline["model"],
        "cases": rows,
        "machine": where,
        "device": chosen.device,
        "clock": chosen.clock,
    }
    # Some of the cases do not stand in for all of them.
    finish("_".join(["encode", *(chosen.case or ())]), result, quick=chosen.quick)


if __name__ == "__main__":
    main()
