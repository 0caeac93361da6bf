"""What a step costs at true size: `python -m ume_training.contrastive.smoke FOLDER --language-layers 2 …`.

Qwen3-VL-2B's real widths with random weights (`ume_training.shapes.pair.true_size`), trained for a few steps on Shapes,
whose pictures are scaled to the published visual budget. What is learned means nothing; memory and seconds do.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any

import typer

from ume_retrieval.checkpoint import EmbedderSpec
from ume_training.contrastive.run import train_contrastive
from ume_training.contrastive.settings import ContrastiveSettings, LoraSettings
from ume_training.shapes.pair.true_size import TrueSize, build_qwen3_vl
from ume_training.shapes.pairs import ShapesSource

TASKS = ("text_to_image", "image_change")


def measure(folder: Path, settings: ContrastiveSettings, device: str) -> dict[str, Any]:
    """Train and time each step; the first one, which warms up, is told apart.

    Args:
        folder: Of the run.
        settings: At least two steps.
        device: "auto", "cpu" or "cuda".

    Returns:
        Seconds of the first and of the other steps, memory in GB (of the GPU where there is one), pairs a second.
    """
    sources = [ShapesSource(task, "default", seed=0, kin=4, count=4 * settings.batch) for task in TASKS]
    times: list[float] = []

    def watch(*_: int | Mapping[str, float]) -> None:
        times.append(time.monotonic())

    begun = time.monotonic()
    trained = train_contrastive(settings, sources, folder, watch=watch, device=device)
    later = [end - start for start, end in pairwise(times)]
    return {
        "load_and_first_step_s": round(times[0] - begun, 2),
        "step_s": [round(seconds, 2) for seconds in later],
        "pairs_per_s": round(settings.batch / (sum(later) / len(later)), 3),
        "peak_memory_gb": trained.figures["peak_memory_gb"],
        "loss": trained.figures["loss"],
    }


def main(
    folder: Annotated[Path, typer.Argument(help="Empty or missing; keeps the model and the run.")],
    *,
    size: Annotated[str, typer.Option(help="2b or 4b.")] = "2b",
    language_layers: Annotated[int | None, typer.Option(help="Cut in depth, for the CPU.")] = None,
    vision_layers: Annotated[int | None, typer.Option(help="Cut in depth, for the CPU.")] = None,
    steps: Annotated[int, typer.Option(min=2)] = 3,
    batch: Annotated[int, typer.Option(help="Pairs of a step, all each other's negatives.")] = 8,
    mini_batch: Annotated[int, typer.Option(help="Inputs at once.")] = 4,
    workers: Annotated[int, typer.Option(help="Loading processes.")] = 0,
    rank: Annotated[int, typer.Option(help="Of the adapters.")] = 64,
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
) -> None:
    """Build a model of true size, take a few contrastive steps, and print what they cost as JSON."""
    chosen: TrueSize = "4b" if size == "4b" else "2b"
    start = folder / "start"
    if not (start / "ume.json").is_file():
        spec = EmbedderSpec(family="embed-rl")
        build_qwen3_vl(start, chosen, language_layers, vision_layers, spec=spec)
    settings = ContrastiveSettings(
        embedder=str(start),
        batch=batch,
        sub_batch=batch,
        mini_batch=mini_batch,
        steps=steps,
        lora=LoraSettings(r=rank, alpha=2.0 * rank),
        workers=workers,
        log_every=1,
        warmup_steps=1,
    )
    asked = {"size": chosen, "batch": batch, "mini_batch": mini_batch, "language_layers": language_layers}
    figures = measure(folder / "run", settings, device)
    sys.stdout.write(json.dumps({**asked, "vision_layers": vision_layers, **figures}) + "\n")


if __name__ == "__main__":
    typer.run(main)
