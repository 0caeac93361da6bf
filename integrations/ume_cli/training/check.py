"""`ume train check`."""

from __future__ import annotations

from collections import Counter
from itertools import chain
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeAlias

import typer
from rich.table import Table

from ume_cli.options import JsonOption
from ume_cli.output import ExitCode, command
from ume_cli.training.shared import OnErrorOption, PairsArgument, counts_table, failures_data
from ume_retrieval.errors import Failure

if TYPE_CHECKING:
    from ume_training.data.files import Located

Rule: TypeAlias = Literal["strict", "usable"]


def check(
    pairs: PairsArgument,
    *,
    decode: Annotated[
        bool, typer.Option("--decode", help="Decode every medium too; takes as long as training reads.")
    ] = False,
    tcots: Annotated[
        Rule, typer.Option(help="strict: as training reads them; usable: only T-CoTs without any words are faults.")
    ] = "strict",
    on_error: OnErrorOption = "skip",
    as_json: JsonOption = False,
) -> None:
    """Look for broken training data: file, line, field and reason of everything; exit code 1 when there is any."""
    with command(as_json=as_json) as output:
        from ume_retrieval.checkpoint import VisualBudget
        from ume_training.data.files import PairReader, count_lines
        from ume_training.data.sources import undecodable
        from ume_training.data.validation import tcot_problems

        total = count_lines(pairs)
        reader = PairReader(pairs, on_error=on_error, rule=tcots)
        broken: list[Failure] = []
        datasets: dict[str, Counter[str]] = {}
        problems = Counter[str]()
        with output.progress() as progress:
            bar = progress.add_task("check", total=total)
            for located in reader:
                record = located.record
                faults = list(undecodable(located, VisualBudget())) if decode else []
                if faults and on_error == "stop":
                    raise faults[0]
                broken += (fault.failure() for fault in faults)
                datasets.setdefault(record.dataset, Counter()).update(_traits(located))
                problems.update(chain.from_iterable(set(tcot_problems(text, item)) for _, item, text in record.tcots()))
                progress.advance(bar)
        failures = sorted([*reader.failures, *broken], key=lambda one: one.index)
        good = sum(counts["pairs"] for counts in datasets.values()) - len({one.source for one in broken})
        data: dict[str, Any] = {
            "pairs": good,
            "broken": len({failure.source for failure in failures}),
            "datasets": {name: dict(counts) for name, counts in datasets.items()},
            "problems": dict(problems),
            "failures": failures_data(failures),
        }
        views = [counts_table("T-CoT problem", problems)] if problems else []
        output.result(data, f"[bold]{good}[/bold] good pairs, {data['broken']} broken lines", _table(datasets), *views)
        output.failures(tuple(failures))
        if failures:
            raise typer.Exit(ExitCode.FAILED)


def _traits(located: Located) -> list[str]:
    """List the properties of a pair that are counted."""
    record = located.record
    return [
        "pairs",
        f"{record.query.modality} to {record.positive.modality}",
        *(["with T-CoTs"] if record.query_tcot and record.positive_tcot else []),
        *(["with negatives"] if record.negatives else []),
        *(["leaked"] if record.leaked else []),
    ]


def _table(datasets: dict[str, Counter[str]]) -> Table:
    table = Table(box=None, pad_edge=False)
    for column in ("data set", "pairs", "what"):
        table.add_column(column)
    for name, counts in datasets.items():
        what = ", ".join(f"{count} {trait}" for trait, count in counts.items() if trait != "pairs")
        table.add_row(name, str(counts["pairs"]), what)
    return table
