"""`accelerate launch -m ume_training.recipes RECIPE --run DIR`: `ume train run` on several processes."""

from __future__ import annotations

import typer

from ume_retrieval.cli.training.run import run

if __name__ == "__main__":
    typer.run(run)
