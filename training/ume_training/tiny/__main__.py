"""Train `ume-tiny` from scratch: `python -m ume_training.tiny --run runs/tiny --out OUT`."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from ume_training.tiny.recipe import TinyRecipe, learn_captions, learn_questions, learn_traces, learn_vectors


class Stage(StrEnum):
    """What to train."""

    ALL = "all"
    CAPTIONS = "captions"
    TRACES = "traces"
    QUESTIONS = "questions"
    VECTORS = "vectors"


def main(
    run: Annotated[Path, typer.Option(help="Where states and logs are kept; the same folder goes on.")],
    out: Annotated[Path, typer.Option(help="Where `reasoner/` and `embedder/` are written.")],
    seed: Annotated[int, typer.Option(help="Of weights and data.")] = 0,
    stage: Annotated[Stage, typer.Option(help="One stage, or all in order.")] = Stage.ALL,
    threads: Annotated[int, typer.Option(help="Processor threads, 0 for torch's own choice.")] = 0,
) -> None:
    """Train the bundled pair from scratch on Shapes, on the CPU, resumably."""
    import torch

    if threads:
        torch.set_num_threads(threads)
    recipe = TinyRecipe(seed=seed)
    captions, traces = run / "captions" / "checkpoint", run / "traces" / "checkpoint"
    if stage in {Stage.ALL, Stage.CAPTIONS}:
        captions = learn_captions(recipe, run)
    if stage in {Stage.ALL, Stage.TRACES}:
        traces = learn_traces(recipe, run, captions)
    if stage in {Stage.ALL, Stage.QUESTIONS}:
        learn_questions(recipe, run, traces, out / "reasoner")
    if stage in {Stage.ALL, Stage.VECTORS}:
        learn_vectors(recipe, run, traces, out / "embedder")


if __name__ == "__main__":
    typer.run(main)
