"""Measure memory and seconds of a training step at a published size: `python benchmarks/training_step.py egrl FOLDER`.

The models have the widths of Qwen3-VL-2B or 4B and random weights (`random_init.py`); they are trained for a few steps
on Shapes, whose pictures are scaled to the published visual budget. In EG-RL such a model is the Reasoner and the
frozen Embedder; as it writes no valid T-CoT, the bounds on the format are off and every reply has its full length.
"""

from __future__ import annotations

import json
import resource
import statistics
import sys
import time
from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any

import typer
from random_init import PublishedSize, build_qwen3_vl

from ume_retrieval.checkpoint import EmbedderSpec, ReasonerSpec
from ume_retrieval.tcot.prompts import DEFAULT_PROMPTS
from ume_retrieval.util.progress import Progress
from ume_training.contrastive.run import train_contrastive
from ume_training.contrastive.settings import ContrastiveSettings, LoraSettings
from ume_training.egrl.run import run_egrl
from ume_training.egrl.settings import EgrlSettings, WatchSettings
from ume_training.shapes.pairs import ShapesSource

TASKS = ("text_to_image", "image_change")

SizeOption = Annotated[PublishedSize, typer.Option(help="Published size.")]
LayersOption = Annotated[int | None, typer.Option(help="Reduced depth, for the CPU.")]

app = typer.Typer()


def measure_contrastive(folder: Path, settings: ContrastiveSettings, device: str) -> dict[str, Any]:
    """Train and time each step; the first one, which warms up, is told apart.

    Args:
        folder: Of the run.
        settings: At least two steps.
        device: "auto", "cpu" or "cuda".

    Returns:
        Seconds of the first and of the other steps, memory in GB (of the GPU where there is one), pairs a second.
    """
    sources = [ShapesSource(task, "default", seed=0, group_size=4, count=4 * settings.batch) for task in TASKS]
    times: list[float] = []

    def watch(_: Progress) -> None:
        times.append(time.monotonic())

    begun = time.monotonic()
    trained = train_contrastive(settings, sources, folder, on_progress=watch, device=device)
    later = [end - start for start, end in pairwise(times)]
    return {
        "load_and_first_step_s": round(times[0] - begun, 2),
        "step_s": [round(seconds, 2) for seconds in later],
        "pairs_per_s": round(settings.batch / (sum(later) / len(later)), 3),
        "peak_memory_gb": trained.figures["peak_memory_gb"],
        "loss": trained.figures["loss"],
    }


def measure_egrl(folder: Path, settings: EgrlSettings) -> dict[str, Any]:
    """Train and time each step; the first one, which warms up, is left out of the means.

    Args:
        folder: Of the run.
        settings: At least two steps.

    Returns:
        Seconds a step, the shares of generation, of scoring (which embeds) and of the update, and memory in GB (of the
        GPU where there is one).
    """
    steps: list[Mapping[str, float]] = []
    sources = [ShapesSource(task, "default", seed=0, group_size=2, count=4 * settings.pairs) for task in TASKS]
    run_egrl(settings, sources, folder, on_progress=lambda step: steps.append(step.figures))
    later = steps[1:]
    mean = {
        name: statistics.mean(figures[name] for figures in later)
        for name in ("seconds", "generate_seconds", "score_seconds", "tokens")
    }
    generation, scoring = (mean[name] / mean["seconds"] for name in ("generate_seconds", "score_seconds"))
    return {
        "step_s": [round(figures["seconds"], 2) for figures in steps],
        "share_generation": round(generation, 3),
        "share_scoring": round(scoring, 3),
        "share_update": round(1 - generation - scoring, 3),
        "generated_tokens_per_s": round(
            mean["tokens"] * settings.pairs * 2 * settings.rollouts / mean["generate_seconds"], 1
        ),
        "peak_memory_gb": round(_peak_memory(), 2),
    }


def _peak_memory() -> float:
    import torch

    if torch.cuda.is_available():
        return float(torch.cuda.max_memory_allocated()) / 1e9
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9


@app.command()
def contrastive(
    folder: Annotated[Path, typer.Argument(help="Empty or missing; keeps the model and the run.")],
    *,
    size: SizeOption = "2b",
    language_layers: LayersOption = None,
    vision_layers: LayersOption = None,
    steps: Annotated[int, typer.Option(min=2)] = 3,
    batch: Annotated[int, typer.Option(help="Pairs of a step, all each other's negatives.")] = 8,
    mini_batch: Annotated[int, typer.Option(help="Inputs at once.")] = 4,
    workers: Annotated[int, typer.Option(help="Loading processes.")] = 0,
    rank: Annotated[int, typer.Option(help="Of the adapters.")] = 64,
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
) -> None:
    """Build a model of true size, take a few contrastive steps, and print what they cost as JSON."""
    start = folder / "start"
    if not (start / "ume.json").is_file():
        spec = EmbedderSpec(family="embed-rl")
        build_qwen3_vl(start, size, language_layers, vision_layers, spec=spec)
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
    asked = {"size": size, "batch": batch, "mini_batch": mini_batch, "language_layers": language_layers}
    figures = measure_contrastive(folder / "run", settings, device)
    sys.stdout.write(json.dumps({**asked, "vision_layers": vision_layers, **figures}) + "\n")


@app.command()
def egrl(
    folder: Annotated[Path, typer.Argument(help="Empty or missing; keeps the models and the run.")],
    *,
    size: SizeOption = "2b",
    language_layers: LayersOption = None,
    vision_layers: LayersOption = None,
    steps: Annotated[int, typer.Option(min=2)] = 3,
    pairs: Annotated[int, typer.Option(min=2, help="Pairs of a step.")] = 2,
    rollouts: Annotated[int, typer.Option(min=2, help="T-CoTs a side.")] = 2,
    micro_batch: Annotated[int, typer.Option(help="Rollouts in one forward and backward pass.")] = 2,
    max_tokens: Annotated[int, typer.Option(help="Of a reply; all of them run to it.")] = 64,
    rank: Annotated[int, typer.Option(help="Of the adapters; 0 trains all but the vision tower.")] = 64,
) -> None:
    """Build models of true size, take a few steps of EG-RL, and print what they cost as JSON."""
    specs: dict[str, EmbedderSpec | ReasonerSpec] = {
        "reasoner": ReasonerSpec(prompts=DEFAULT_PROMPTS),
        "embedder": EmbedderSpec(family="embed-rl"),
    }
    for number, (name, spec) in enumerate(specs.items()):
        if not (folder / name / "ume.json").is_file():
            build_qwen3_vl(folder / name, size, language_layers, vision_layers, spec=spec, seed=number)
    settings = EgrlSettings(
        reasoner=str(folder / "reasoner"),
        embedder=str(folder / "embedder"),
        discriminator="words",
        pairs=pairs,
        rollouts=rollouts,
        micro_batch=micro_batch,
        max_tokens=max_tokens,
        steps=steps,
        lora=LoraSettings(r=rank, alpha=2 * rank) if rank else None,
        gradient_checkpointing=True,
        watch=WatchSettings(min_sampled_format=0, min_format=0, sampled_replies=2),
        save_every=steps,
    )
    asked = {"size": size, "language_layers": language_layers, "vision_layers": vision_layers, "pairs": pairs}
    asked |= {"rollouts": rollouts, "max_tokens": max_tokens, "rank": rank}
    sys.stdout.write(json.dumps({**asked, **measure_egrl(folder / "run", settings)}) + "\n")


if __name__ == "__main__":
    app()
