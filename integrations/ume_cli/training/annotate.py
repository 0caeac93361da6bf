"""`ume train annotate`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ume_cli.options import DEFAULT_MODEL, DeviceOption, JsonOption, quiet_libraries
from ume_cli.output import command
from ume_cli.training.shared import (
    OnErrorOption,
    PairsArgument,
    ResumeOption,
    counts_table,
    failures_data,
    open_cache,
    progress_bar,
)


def annotate(
    pairs: PairsArgument,
    out: Annotated[Path, typer.Argument(help="The .jsonl file that grows.", show_default=False)],
    *,
    reasoner: Annotated[
        str, typer.Option(help="Who writes the T-CoTs: a preset, a hub id or a folder.")
    ] = DEFAULT_MODEL,
    answer_hint_prob: Annotated[
        float,
        typer.Option(
            "--answer-hint-prob",
            "--leak-share",
            min=0,
            max=1,
            help="Share of queries whose Reasoner is shown the answer; marked in the data.",
        ),
    ] = 0.0,
    seed: Annotated[int, typer.Option(help="Of the choice which queries leak, and of sampling.")] = 0,
    max_tokens: Annotated[int | None, typer.Option(min=1, help="Most tokens of a T-CoT.", show_default=False)] = None,
    temperature: Annotated[float, typer.Option(min=0, help="0 is greedy decoding.")] = 0.0,
    batch: Annotated[int, typer.Option(min=1, help="Pairs that are asked and written together.")] = 32,
    cache: Annotated[str, typer.Option(help="Where replies are kept between runs: auto, none or a path.")] = "auto",
    resume: ResumeOption = False,
    on_error: OnErrorOption = "stop",
    device: DeviceOption = "auto",
    as_json: JsonOption = False,
) -> None:
    """Write T-CoTs for both sides of training pairs; stop and go on (--resume) as you like."""
    with command(as_json=as_json) as output:
        from ume_training.data.annotate import AnnotateSettings
        from ume_training.data.annotate import annotate as run
        from ume_training.data.files import count_lines
        from ume_training.data.judge import load_reasoner

        settings = AnnotateSettings(answer_hint_prob, seed, max_tokens, temperature, batch)
        total = count_lines(pairs)
        quiet_libraries()
        engine = load_reasoner(reasoner, device)
        with progress_bar(output, "annotate", total) as done:
            report = run(
                pairs,
                out,
                engine,
                settings,
                resume=resume,
                cache=open_cache(cache),
                on_error=on_error,
                on_progress=done,
            )
        data = {**report.to_dict(), "out": str(out), "failures": failures_data(report.failures)}
        words = (
            f"[bold]{report.annotated}[/bold] annotated, {report.kept} were there, {len(report.failures)} left out; "
        )
        cost = f"{report.reasoner_calls} calls, {report.prompt_tokens} tokens read, {report.completion_tokens} written"
        views = [counts_table("problem", report.problems)] if report.problems else []
        output.result(data, words + cost, *views)
        output.failures(tuple(report.failures))
