"""`ume train egrl`: the Reasoner learns from what the frozen Embedder makes of its T-CoTs."""

from __future__ import annotations

import sys
from contextlib import redirect_stdout
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table

from ume_retrieval.cli.options import JsonOption
from ume_retrieval.cli.output import command

if TYPE_CHECKING:
    from ume_training.egrl.settings import EgrlSettings


def egrl(
    pairs: Annotated[Path, typer.Argument(help="Pair file or folder of shards (JSONL or Parquet).")],
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
    as_json: JsonOption = False,
) -> None:
    """Train a Reasoner by GRPO with a frozen Embedder as its reward (arXiv 2602.13823)."""
    with command(as_json=as_json) as output:
        from ume_training.data.sources import file_sources
        from ume_training.egrl.run import count_steps, run_egrl

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
        chosen = _settings(settings, {name: value for name, value in given.items() if value is not None})
        sources = file_sources(pairs)
        with output.progress() as progress, redirect_stdout(sys.stderr):
            bar = progress.add_task("steps", total=count_steps(chosen, sources))

            def show(done: int, _: int, figures: dict[str, float]) -> None:
                progress.update(bar, completed=done, description=f"reward {figures['reward']:.3f}")

            result = run_egrl(chosen, sources, out, on_progress=show)
        facts = {
            "reasoner": str(result.reasoner),
            "steps": result.steps,
            "sampled_format": result.sampled_format,
            "log": str(out / "log.jsonl"),
            "rollouts": str(out / "rollouts"),
        }
        output.result(facts, _table(facts))


def _settings(file: Path | None, changes: dict[str, Any]) -> EgrlSettings:
    from pydantic import ValidationError

    from ume_retrieval.errors import InputError, MissingExtra
    from ume_training.egrl.settings import EgrlSettings

    base: Any = {}
    if file is not None:
        try:
            import yaml
        except ImportError as error:
            raise MissingExtra("settings in a file need PyYAML", hint="pip install 'ume-retrieval[train]'") from error
        try:
            base = yaml.safe_load(file.read_text(encoding="utf-8")) or {}
        except (OSError, UnicodeError, yaml.YAMLError) as error:
            raise InputError(f"cannot read {file}: {str(error).splitlines()[0]}") from error
        if not isinstance(base, dict):
            raise InputError(f"{file} holds no settings", hint="write one `name: value` a line")
    try:
        return EgrlSettings.model_validate(base | changes)
    except ValidationError as error:
        first = error.errors()[0]
        name = ".".join(map(str, first["loc"]))
        raise InputError(f"{file or 'settings'}: {name}: {first['msg']}", hint="see docs/training.md") from error


def _table(facts: dict[str, Any]) -> Table:
    table = Table(box=None, pad_edge=False, show_header=False)
    for name, value in facts.items():
        table.add_row(name.replace("_", " "), str(value))
    return table
