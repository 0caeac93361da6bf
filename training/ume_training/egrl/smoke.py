"""What a step of EG-RL costs at true size: `python -m ume_training.egrl.smoke FOLDER --language-layers 2 …`.

Qwen3-VL-2B's real widths with random weights (`ume_training.shapes.pair.true_size`) as Reasoner and as frozen
Embedder, on Shapes pictures. Random weights write no T-CoT in form, so bounds on the form are off and every reply runs
to its full length: what is learned means nothing; memory, seconds and where they go do.
"""

from __future__ import annotations

import json
import resource
import statistics
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from ume_retrieval.checkpoint import EmbedderSpec, ReasonerSpec
from ume_retrieval.tcot.prompts import DEFAULT_PROMPTS
from ume_training.egrl.run import run_egrl
from ume_training.egrl.settings import EgrlLora, EgrlSettings, WatchSettings
from ume_training.shapes.pair.true_size import TrueSize, build_qwen3_vl
from ume_training.shapes.pairs import ShapesSource

TASKS = ("text_to_image", "image_change")


def measure(folder: Path, settings: EgrlSettings) -> dict[str, Any]:
    """Train and time each step; the first one, which warms up, is left out of the means.

    Args:
        folder: Of the run.
        settings: At least two steps.

    Returns:
        Seconds a step, the shares of generation, of scoring (which embeds) and of the update, and memory in GB (of the
        GPU where there is one).
    """
    steps: list[Mapping[str, float]] = []
    sources = [ShapesSource(task, "default", seed=0, kin=2, count=4 * settings.pairs) for task in TASKS]
    run_egrl(settings, sources, folder, on_progress=lambda _, __, figures: steps.append(figures))
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


def main(
    folder: Annotated[Path, typer.Argument(help="Empty or missing; keeps the models and the run.")],
    *,
    size: Annotated[str, typer.Option(help="2b or 4b.")] = "2b",
    language_layers: Annotated[int | None, typer.Option(help="Cut in depth, for the CPU.")] = None,
    vision_layers: Annotated[int | None, typer.Option(help="Cut in depth, for the CPU.")] = None,
    steps: Annotated[int, typer.Option(min=2)] = 3,
    pairs: Annotated[int, typer.Option(min=2, help="Pairs of a step.")] = 2,
    rollouts: Annotated[int, typer.Option(min=2, help="T-CoTs a side.")] = 2,
    micro_batch: Annotated[int, typer.Option(help="Rollouts in one forward and backward pass.")] = 2,
    max_tokens: Annotated[int, typer.Option(help="Of a reply; all of them run to it.")] = 64,
    rank: Annotated[int, typer.Option(help="Of the adapters; 0 trains all but the vision tower.")] = 64,
) -> None:
    """Build models of true size, take a few steps of EG-RL, and print what they cost as JSON."""
    chosen: TrueSize = "4b" if size == "4b" else "2b"
    specs: dict[str, EmbedderSpec | ReasonerSpec] = {
        "reasoner": ReasonerSpec(prompts=DEFAULT_PROMPTS),
        "embedder": EmbedderSpec(family="embed-rl"),
    }
    for number, (name, spec) in enumerate(specs.items()):
        if not (folder / name / "ume.json").is_file():
            build_qwen3_vl(folder / name, chosen, language_layers, vision_layers, spec=spec, seed=number)
    settings = EgrlSettings(
        reasoner=str(folder / "reasoner"),
        embedder=str(folder / "embedder"),
        discriminator="words",
        pairs=pairs,
        rollouts=rollouts,
        micro_batch=micro_batch,
        max_tokens=max_tokens,
        steps=steps,
        lora=EgrlLora(r=rank, alpha=2 * rank) if rank else None,
        gradient_checkpointing=True,
        watch=WatchSettings(min_sampled_format=0, min_format=0, sampled_replies=2),
        save_every=steps,
    )
    asked = {"size": chosen, "language_layers": language_layers, "vision_layers": vision_layers, "pairs": pairs}
    asked |= {"rollouts": rollouts, "max_tokens": max_tokens, "rank": rank}
    sys.stdout.write(json.dumps({**asked, **measure(folder / "run", settings)}) + "\n")


if __name__ == "__main__":
    typer.run(main)
