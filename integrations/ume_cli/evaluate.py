"""`ume eval`."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from ume_cli.option_groups import ModelOptions, grouped
from ume_cli.options import JsonOption
from ume_cli.output import command

if TYPE_CHECKING:
    from ume_training.shapes.evaluate import Report

eval_app = typer.Typer(no_args_is_help=True)


@eval_app.callback()
def evaluate() -> None:
    """Measure retrieval."""


@eval_app.command()
@grouped
def shapes(
    *,
    seed: Annotated[int, typer.Option(help="Seed of the data; the bundled pair was not trained on it.")] = 1,
    level: Annotated[str, typer.Option(help="default, questions, rich or hard.")] = "default",
    queries: Annotated[int, typer.Option(min=1, help="Queries per task.")] = 20,
    candidates: Annotated[int, typer.Option(min=2, help="Fewest candidates per task, including look-alikes.")] = 100,
    models: ModelOptions,
    as_json: JsonOption = False,
) -> None:
    """Compare direct and reasoned retrieval on the Shapes world: hit@1 by task."""
    with command(as_json=as_json) as output, tempfile.TemporaryDirectory(prefix="ume-shapes-") as folder:
        from ume_training.shapes.benchmark import build_benchmark
        from ume_training.shapes.evaluate import evaluate as run
        from ume_training.shapes.tasks import TASKS

        embedder = models.load(cache=Path(folder) / "traces.sqlite3")
        output.note("drawing the world …")
        benchmark = build_benchmark(Path(folder), seed=seed, level=level, queries=queries, candidates=candidates)
        with output.progress() as progress:
            bar = progress.add_task("tasks", total=len(TASKS))
            report = run(embedder, benchmark, on_task=lambda _: progress.advance(bar))
        output.result(report.to_dict(), scores_table(report))


def scores_table(report: Report) -> Table:
    """Tabulate hit@1 by task and overall: direct, reasoned and fused."""
    table = Table(box=None, pad_edge=False)
    table.add_column("hit@1")
    for name in ("queries", "candidates", "direct", "reasoned", "fused"):
        table.add_column(name, justify="right")
    for task in report.tasks:
        figures = (f"{value:.2f}" for value in (task.scores.direct, task.scores.reasoned, task.scores.fused))
        table.add_row(task.name, str(task.queries), str(task.candidates), *figures)
    mean = (f"[bold]{value:.3f}[/bold]" for value in (report.mean.direct, report.mean.reasoned, report.mean.fused))
    table.add_row("[bold]mean[/bold]", "", "", *mean)
    return table
