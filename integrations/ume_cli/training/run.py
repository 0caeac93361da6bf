"""`ume train run`: a recipe from its first stage to its last, or on from where it was stopped."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from contextlib import redirect_stdout
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape
from rich.table import Table

from ume_cli.options import JsonOption, quiet_libraries
from ume_cli.output import Output, command

if TYPE_CHECKING:
    from ume_training.recipes.run import Decision, StageReport
    from ume_training.recipes.stages import Stage

RecipeArgument = Annotated[str, typer.Argument(help="A YAML file, or the name of a bundled recipe: shapes-small, …")]
SeedOption = Annotated[int | None, typer.Option(help="Instead of the recipe's own.", show_default=False)]


def run(
    recipe: RecipeArgument,
    *,
    run: Annotated[Path, typer.Option(help="Folder of the run; the same one goes on where it was stopped.")],
    out: Annotated[
        Path | None, typer.Option(help="Where `export` writes the pair.", show_default="inside the run folder")
    ] = None,
    until: Annotated[str | None, typer.Option(help="Name of the last stage to run.", show_default="all")] = None,
    seed: SeedOption = None,
    threads: Annotated[int, typer.Option(min=0, help="Processor threads, 0 for torch's own choice.")] = 0,
    as_json: JsonOption = False,
) -> None:
    """Run a recipe: make data, train, score and export, stage by stage; what is done is skipped."""
    with command(as_json=as_json) as output:
        from ume_training.recipes.context import is_main_process
        from ume_training.recipes.run import run_recipe
        from ume_training.recipes.schema import load_recipe

        chosen = load_recipe(recipe)
        if seed is not None:
            chosen = chosen.model_copy(update={"seed": seed})
        quiet_libraries()
        if threads:
            import torch

            torch.set_num_threads(threads)

        def announce(stage: Stage, decision: Decision) -> None:
            output.note(_announcement(stage.name, decision))

        # Libraries print on standard output, which is for the result.
        with redirect_stdout(sys.stderr):
            reports = run_recipe(chosen, run, out=out, until=until, announce=announce)
        if is_main_process():
            _print(reports, chosen.name, run, output)


def _announcement(name: str, decision: Decision) -> str:
    words = {
        "skip": f"{name}: done before",
        "start": f"{name} …",
        "resume": f"{name}: goes on where it was stopped …",
        "again": f"{name}: again, because of {decision.why} …",
    }
    return words[decision.how]


def _print(reports: Sequence[StageReport], recipe: str, run: Path, output: Output) -> None:
    table = Table(box=None, pad_edge=False)
    for column in ("stage", "", "time", "figures", "made"):
        table.add_column(column, overflow="fold")
    for report in reports:
        figures = ", ".join(f"{key} {_short(value)}" for key, value in list(report.figures.items())[:4])
        made = next(iter(report.outputs.values()), None)
        seconds = f"{report.seconds:.0f} s" if report.how != "skip" else ""
        table.add_row(report.name, report.how, seconds, escape(figures), escape(str(made or "")))
    data = {"recipe": recipe, "run": str(run), "stages": [report.to_dict() for report in reports]}
    output.result(data, table)


def _short(value: object) -> str:
    if isinstance(value, dict):
        return _short(next(iter(value.values()), ""))
    return f"{value:.4g}" if isinstance(value, float) else str(value)
