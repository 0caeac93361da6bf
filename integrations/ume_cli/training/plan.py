"""`ume train plan`: what a recipe would take, and what is missing here, without running it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import RenderableType
from rich.markup import escape
from rich.table import Table

from ume_cli.options import JsonOption
from ume_cli.output import ExitCode, command
from ume_cli.training.run import RecipeArgument

if TYPE_CHECKING:
    from ume_training.recipes.planning.plan import Plan


def plan(
    recipe: RecipeArgument,
    *,
    run: Annotated[Path, typer.Option(help="Where it would run, to look for disk space.")] = Path(),
    gpu: Annotated[
        float | None,
        typer.Option(min=0.0, help="Plan for GPUs with so many GB.", show_default="this machine's"),
    ] = None,
    processes: Annotated[int, typer.Option(min=1, help="Processes that would share a step.")] = 1,
    zero2: Annotated[bool, typer.Option("--zero2", help="Share gradients and optimizer.")] = False,
    strict: Annotated[bool, typer.Option("--strict", help="Fail when something is missing.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Say what a recipe would do: steps, tokens, memory, time where it was measured, and what is missing here."""
    with command(as_json=as_json) as output:
        from ume_training.recipes.planning.memory import GB
        from ume_training.recipes.planning.plan import plan_recipe
        from ume_training.recipes.schema import load_recipe

        bytes_each = None if gpu is None else round(gpu * GB)
        shards = processes if zero2 else 1
        found = plan_recipe(load_recipe(recipe), run, gpu_bytes=bytes_each, processes=processes, shards=shards)
        output.result(found.to_dict(), *_views(found))
        if strict and found.missing:
            raise typer.Exit(ExitCode.FAILED)


def _views(plan: Plan) -> Iterator[RenderableType]:
    table = Table(box=None, pad_edge=False)
    table.add_column("stage")
    for column in ("steps", "tokens", "memory", "disk", "time"):
        table.add_column(column, justify="right")
    for stage in plan.stages:
        memory = f"{stage.memory.total / 1e9:.1f} GB" if stage.memory else ""
        disk = f"{stage.disk / 1e9:.1f} GB" if stage.disk else ""
        time = "not measured" if stage.seconds is None else f"{stage.seconds / 60:.0f} min"
        table.add_row(stage.name, _count(stage.steps), _count(stage.tokens), memory, disk, time)
    yield table
    notes = [f"{stage.name}: {note}" for stage in plan.stages for note in stage.notes if "not measured" not in note]
    yield from (f"[dim]{escape(note)}[/dim]" for note in notes)
    if plan.missing:
        yield "[yellow]missing:[/yellow]"
    for one in plan.missing:
        yield f"  {one.kind}: {escape(one.what)} [dim]({escape(one.fix)})[/dim]"


def _count(number: int | None) -> str:
    if number is None:
        return "?"
    for unit, size in (("G", 10**9), ("M", 10**6)):
        if number >= size:
            return f"{number / size:.1f} {unit}"
    return f"{number:,}"
