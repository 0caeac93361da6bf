"""`ume train filter`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, TypeAlias

import typer
from rich.table import Table

from ume_cli.options import DeviceOption, JsonOption, quiet_libraries
from ume_cli.output import command
from ume_cli.training.shared import (
    OnErrorOption,
    PairsArgument,
    ResumeOption,
    failures_data,
    progress_bar,
)

if TYPE_CHECKING:
    from ume_training.data.filter import FilterReport

Undecided: TypeAlias = Literal["keep", "reject"]


def filter_pairs(
    pairs: PairsArgument,
    *,
    kept: Annotated[Path, typer.Option(help="The .jsonl file for contrastive training.", show_default=False)],
    rejected: Annotated[Path, typer.Option(help="The .jsonl file for EG-RL.", show_default=False)],
    judge: Annotated[
        str,
        typer.Option(help="A Reasoner (preset, hub id or folder), or words:SHARE for words in common (Shapes only)."),
    ],
    undecided: Annotated[
        Undecided, typer.Option(help="What becomes of pairs that the judge is undecided about.")
    ] = "reject",
    resume: ResumeOption = False,
    on_error: OnErrorOption = "stop",
    device: DeviceOption = "auto",
    as_json: JsonOption = False,
) -> None:
    """Sort annotated pairs: kept ones for contrastive training, rejected ones for EG-RL."""
    with command(as_json=as_json) as output:
        from ume_training.data.files import count_lines
        from ume_training.data.filter import filter_pairs as run
        from ume_training.data.judge import load_judge

        total = count_lines(pairs)
        quiet_libraries()
        with progress_bar(output, "judge", total) as done:
            report = run(
                pairs,
                kept,
                rejected,
                load_judge(judge, device),
                undecided=undecided,
                resume=resume,
                on_error=on_error,
                on_progress=done,
            )
        data = {**report.to_dict(), "failures": failures_data(report.failures)}
        words = f"[bold]{report.kept}[/bold] kept in {kept}, [bold]{report.rejected}[/bold] rejected in {rejected}"
        output.result(data, words, _table(report))
        output.failures(tuple(report.failures))


def _table(report: FilterReport) -> Table:
    from ume_training.data.filter import REASONS

    columns = ("kept", "rejected", *(reason for reason in REASONS if report.reasons[reason]))
    table = Table(box=None, pad_edge=False)
    table.add_column("data set")
    for column in columns:
        table.add_column(column.replace("_", " "), justify="right")
    for name, counts in report.datasets.items():
        table.add_row(name, *(str(counts[column]) for column in columns))
    return table
