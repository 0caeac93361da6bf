"""`ume train convert`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal, TypeAlias

import typer

from ume_cli.options import JsonOption
from ume_cli.output import Output, command
from ume_cli.training.shared import OnErrorOption, counts_table, failures_data, progress_bar
from ume_retrieval.errors import InputError

Traces: TypeAlias = Literal["none", "true"]

SHAPES = "shapes"


def convert(
    layout: Annotated[str, typer.Argument(help="A published layout, pairs or shapes; `list` names them.")],
    paths: Annotated[
        list[Path] | None,
        typer.Argument(
            metavar="[SOURCE] OUT", help="What is read (not for shapes), and the pair file.", show_default=False
        ),
    ] = None,
    *,
    media: Annotated[
        Path | None, typer.Option(help="Folder that paths in the source start from.", show_default=False)
    ] = None,
    dataset: Annotated[str | None, typer.Option(help="One name for all pairs.", show_default=False)] = None,
    keep_all: Annotated[
        bool, typer.Option("--keep-all", help="Keep HatefulMemes, N24News and VOC2007, which the paper leaves out.")
    ] = False,
    limit: Annotated[int | None, typer.Option(min=1, help="Most pairs.", show_default=False)] = None,
    count: Annotated[int, typer.Option(min=1, help="shapes: pairs a task.")] = 100,
    level: Annotated[str, typer.Option(help="shapes: default, questions, rich or hard.")] = "questions",
    seed: Annotated[int, typer.Option(help="shapes: of the world.")] = 0,
    group_size: Annotated[
        int, typer.Option("--group-size", "--kin", min=1, help="shapes: pairs per group of look-alikes.")
    ] = 4,
    task: Annotated[list[str] | None, typer.Option(help="shapes: only this task; may be repeated.")] = None,
    traces: Annotated[Traces, typer.Option(help="shapes: whether pairs carry the true T-CoTs.")] = "none",
    on_error: OnErrorOption = "skip",
    as_json: JsonOption = False,
) -> None:
    """Write a published training set, or Shapes, as a pair file."""
    with command(as_json=as_json) as output:
        from ume_training.data.layouts import LAYOUTS

        if layout == "list":
            rows = [{"name": one.name, "hub": one.hub, "about": one.about} for one in LAYOUTS.values()]
            rows += [{"name": SHAPES, "hub": "", "about": "the bundled world, drawn"}]
            output.result({"layouts": rows}, *(f"{row['name']:<22} {row['about']} {row['hub']}" for row in rows))
            return
        *sources, out = paths or [Path()]
        if paths is None or len(sources) != (0 if layout == SHAPES else 1):
            wanted = "OUT" if layout == SHAPES else "SOURCE OUT"
            raise InputError("wrong number of paths", hint=f"ume train convert {layout} {wanted}")
        if layout == SHAPES:
            _draw(output, out, count=count, level=level, seed=seed, group_size=group_size, tasks=task, traces=traces)
        else:
            options = {"media": media, "dataset": dataset, "keep_all": keep_all, "limit": limit, "on_error": on_error}
            _convert(output, layout, sources[0], out, **options)


def _draw(output: Output, out: Path, *, count: int, group_size: int, tasks: list[str] | None, **options: Any) -> None:
    from ume_training.data.files import write_records
    from ume_training.shapes.pairs import shapes_records
    from ume_training.shapes.tasks import TASKS

    chosen = tasks or list(TASKS)
    with output.progress() as progress:
        bar = progress.add_task("draw", total=count * len(chosen))
        drawn = shapes_records(out.parent, tasks=chosen, count=count, group_size=group_size, **options)
        written = write_records(progress.track(drawn, task_id=bar, total=count * len(chosen)), out)
    output.result({"pairs": written, "out": str(out), "tasks": chosen}, f"[bold]{written}[/bold] pairs in {out}")


def _convert(output: Output, layout: str, source: Path, out: Path, **options: Any) -> None:
    from ume_training.data.layouts import convert as run

    with progress_bar(output, "convert", options["limit"]) as pairs:
        done = run(layout, source, out, on_progress=pairs, **options)
    data = {
        "pairs": done.pairs,
        "datasets": dict(done.datasets),
        "left_out": list(done.left_out),
        "failures": failures_data(done.failures),
        "out": str(out),
    }
    views = [f"left out, as in the paper: {', '.join(done.left_out)} (--keep-all keeps them)"] if done.left_out else []
    output.result(data, f"[bold]{done.pairs}[/bold] pairs in {out}", counts_table("data set", done.datasets), *views)
    output.failures(tuple(done.failures))
