"""`ume train contrastive`: the Embedder learns from pairs and their T-CoTs."""

from __future__ import annotations

import os
import sys
from contextlib import redirect_stdout
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from ume_cli.options import DeviceOption, JsonOption, quiet_libraries
from ume_cli.output import command
from ume_cli.training.shared import PairsArgument, facts_table, failures_data, progress_bar, read_settings
from ume_retrieval.util.progress import Progress


def contrastive(
    pairs: PairsArgument,
    out: Annotated[
        Path,
        typer.Argument(help="Folder of the run; the same one goes on where it was stopped.", show_default=False),
    ],
    *,
    settings: Annotated[
        Path | None,
        typer.Option(
            "--settings", "--recipe", help="YAML file of settings; flags change single ones.", show_default=False
        ),
    ] = None,
    embedder: Annotated[str | None, typer.Option(help="Start: a preset, a hub id or a folder.")] = None,
    batch: Annotated[int | None, typer.Option(min=2, help="Pairs of a step, over all processes.")] = None,
    sub_batch: Annotated[int | None, typer.Option(min=2, help="Pairs that are each other's negatives.")] = None,
    mini_batch: Annotated[int | None, typer.Option(min=1, help="Inputs that pass through the model at once.")] = None,
    epochs: Annotated[float | None, typer.Option(help="Passes over the data.")] = None,
    steps: Annotated[int | None, typer.Option(min=1, help="Optimizer steps, instead of passes.")] = None,
    learning_rate: Annotated[float | None, typer.Option(help="Peak learning rate.")] = None,
    trace_share: Annotated[
        float | None, typer.Option(min=0, max=1, help="Share of sub-batches whose inputs carry their T-CoTs.")
    ] = None,
    negatives: Annotated[int | None, typer.Option(min=0, help="Hard negatives a pair, of those in the data.")] = None,
    dtype: Annotated[str | None, typer.Option(help="auto, float32 or bfloat16.")] = None,
    checkpoint_every: Annotated[int | None, typer.Option(min=1, help="Steps between checkpoints.")] = None,
    workers: Annotated[int | None, typer.Option(min=0, help="Processes that load pairs ahead.")] = None,
    seed: Annotated[int | None, typer.Option(help="Of data order and new weights.")] = None,
    on_error: Annotated[
        Literal["skip", "stop"] | None, typer.Option(help="At a broken pair: leave it out and name it, or stop.")
    ] = None,
    device: DeviceOption = "auto",
    as_json: JsonOption = False,
) -> None:
    """Train an Embedder by symmetric InfoNCE on inputs with their T-CoTs (arXiv 2602.13823)."""
    given: dict[str, Any] = {
        "embedder": embedder,
        "batch": batch,
        "sub_batch": sub_batch,
        "mini_batch": mini_batch,
        "epochs": epochs,
        "steps": steps,
        "learning_rate": learning_rate,
        "trace_share": trace_share,
        "negatives": negatives,
        "dtype": dtype,
        "checkpoint_every": checkpoint_every,
        "workers": workers,
        "seed": seed,
        "on_error": on_error,
    }
    with command(as_json=as_json) as output:
        from ume_training.contrastive.plan import steps_of
        from ume_training.contrastive.run import train_contrastive
        from ume_training.contrastive.settings import ContrastiveSettings
        from ume_training.contrastive.start import resolve_start
        from ume_training.data.sources import file_sources

        chosen = read_settings(ContrastiveSettings, settings, given)
        budget = resolve_start(chosen.embedder, chosen.spec).spec.budget
        sources, failures = file_sources(pairs, budget, on_error=chosen.on_error)
        total = steps_of(chosen, sum(len(source) for source in sources))
        quiet_libraries()
        # Libraries print on standard output, which is for the result.
        with progress_bar(output, "steps", total) as tell, redirect_stdout(sys.stderr):

            def show(step: Progress) -> None:
                tell(step.done, f"loss {step.figures['loss']:.3f}" if "loss" in step.figures else None)

            trained = train_contrastive(chosen, sources, out, on_progress=show, device=device)
        if int(os.environ.get("RANK", "0")):
            return
        facts = {
            "trained": str(trained.folder),
            "steps": trained.steps,
            "skipped": trained.skipped,
            "log": str(out / "log.jsonl"),
        }
        output.result({**facts, **trained.figures, "failures": failures_data(failures)}, facts_table(facts))
        output.failures(tuple(failures))
        output.note(f"`ume train export {out} OUT` makes a checkpoint of it")
