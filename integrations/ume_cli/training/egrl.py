"""`ume train egrl`: the Reasoner learns from what the frozen Embedder makes of its T-CoTs."""

from __future__ import annotations

import sys
from contextlib import redirect_stdout
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, cast

import typer

from ume_cli.options import JsonOption, quiet_libraries
from ume_cli.output import command
from ume_cli.training.shared import (
    OnErrorOption,
    PairsArgument,
    facts_table,
    failures_data,
    progress_bar,
    read_settings,
)
from ume_retrieval.util.progress import Progress

if TYPE_CHECKING:
    from ume_retrieval.checkpoint import ReasonerSpec
    from ume_training.data.sources import PairSource


def egrl(
    pairs: PairsArgument,
    out: Annotated[Path, typer.Argument(help="Folder of the run; the same one goes on where it was stopped.")],
    *,
    settings: Annotated[
        Path | None, typer.Option(help="YAML file of settings; flags change single ones.", show_default=False)
    ] = None,
    reasoner: Annotated[str | None, typer.Option(help="Who learns: preset, hub id or folder.")] = None,
    embedder: Annotated[str | None, typer.Option(help="Whose vectors reward: preset, hub id or folder.")] = None,
    discriminator: Annotated[
        str | None, typer.Option(help='Who judges T-CoTs: a Reasoner, or "words" for Shapes.')
    ] = None,
    rollouts: Annotated[int | None, typer.Option(min=2, help="T-CoTs sampled for each side of a pair.")] = None,
    pairs_a_step: Annotated[int | None, typer.Option(min=2, help="Pairs of a step, over all processes.")] = None,
    micro_batch: Annotated[int | None, typer.Option(min=1, help="Rollouts in one forward pass.")] = None,
    steps: Annotated[int | None, typer.Option(min=1, help="Optimizer steps; an epoch without.")] = None,
    learning_rate: Annotated[float | None, typer.Option(help="Peak learning rate.")] = None,
    max_tokens: Annotated[int | None, typer.Option(min=1, help="Most tokens of a T-CoT.")] = None,
    seed: Annotated[int | None, typer.Option(help="Of sampling, order and shuffles.")] = None,
    on_error: OnErrorOption = "stop",
    as_json: JsonOption = False,
) -> None:
    """Train a Reasoner by GRPO with a frozen Embedder as its reward (arXiv 2602.13823)."""
    with command(as_json=as_json) as output:
        from ume_retrieval.engines.registry import resolve_reasoner
        from ume_training.data.sources import file_sources, readable_pairs
        from ume_training.egrl.run import count_steps, run_egrl
        from ume_training.egrl.settings import EgrlSettings

        given = {
            "reasoner": reasoner,
            "embedder": embedder,
            "discriminator": discriminator,
            "rollouts": rollouts,
            "pairs": pairs_a_step,
            "micro_batch": micro_batch,
            "steps": steps,
            "learning_rate": learning_rate,
            "max_tokens": max_tokens,
            "seed": seed,
        }
        chosen = read_settings(EgrlSettings, settings, given)
        budget = cast("ReasonerSpec", resolve_reasoner(chosen.reasoner).spec).budget
        files, failures = file_sources(pairs, budget, on_error=on_error, rule="any")
        sources: list[PairSource] = [*files]
        if on_error == "skip":
            looked = [readable_pairs(source) for source in files]
            sources = [found for found, _ in looked]
            failures = (*failures, *(failure for _, missed in looked for failure in missed))
        quiet_libraries()
        with progress_bar(output, "steps", count_steps(chosen, sources)) as tell, redirect_stdout(sys.stderr):

            def show(step: Progress) -> None:
                tell(step.done, f"reward {step.figures['reward']:.3f}")

            result = run_egrl(chosen, sources, out, on_progress=show)
        facts = {
            "reasoner": str(result.reasoner),
            "steps": result.steps,
            "sampled_format": result.sampled_format,
            "log": str(out / "log.jsonl"),
            "rollouts": str(out / "rollouts"),
        }
        output.result({**facts, "failures": failures_data(failures)}, facts_table(facts))
        output.failures(failures)
        output.note(f"`ume train export {out} OUT` makes a checkpoint with a card of it")
