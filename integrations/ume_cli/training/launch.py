"""`accelerate launch -m ume_cli.training.launch RECIPE --run DIR`: `ume train run` on several processes."""

from __future__ import annotations

import typer

from ume_cli.training.run import run

if __name__ == "__main__":
    typer.run(run)
