"""`ume train export`: what was trained, as a checkpoint that loads anywhere."""

from __future__ import annotations

import json
import sys
from contextlib import redirect_stdout
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ume_cli.options import JsonOption, quiet_libraries
from ume_cli.output import command

if TYPE_CHECKING:
    from ume_training.export.card import Card, Score


def export(
    run: Annotated[Path, typer.Argument(help="Folder of a finished run, or a checkpoint.", show_default=False)],
    out: Annotated[Path, typer.Argument(help="Where to write; missing or empty.", show_default=False)],
    *,
    name: Annotated[str | None, typer.Option(help="Of the model, for its card.", show_default="the folder's")] = None,
    scores: Annotated[
        Path | None,
        typer.Option(help="JSON list of what was measured: dataset, metric, value, …", show_default=False),
    ] = None,
    replace: Annotated[bool, typer.Option("--replace", help="Put it in the place of what is there.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Merge adapters and write a self-describing checkpoint with its model card."""
    with command(as_json=as_json) as output:
        from ume_training.export.folder import export as write

        quiet_libraries()
        with redirect_stdout(sys.stderr):
            exported = write(run, out, card=_card(run, name or out.resolve().name, scores), replace=replace)
        facts = {"folder": str(exported.folder), "role": exported.role}
        output.result(facts, f"{exported.role} in [bold]{out}[/bold]")


def _card(run: Path, name: str, scores: Path | None) -> Card:
    from ume_retrieval.checkpoint import read_spec
    from ume_training.contrastive.run import RUN, read_facts
    from ume_training.export.card import Card, card_of_run

    measured = _scores(scores) if scores is not None else ()
    if (run / RUN).is_file():
        return card_of_run(read_facts(run), name, measured)
    spec = read_spec(run / "reasoner") if (run / "reasoner").is_dir() else read_spec(run)
    return Card(name=name, role=spec.role if spec is not None else "reasoner", scores=measured)


def _scores(file: Path) -> tuple[Score, ...]:
    from pydantic import TypeAdapter, ValidationError

    from ume_retrieval.errors import InputError
    from ume_training.export.card import Score

    try:
        return TypeAdapter(tuple[Score, ...]).validate_python(json.loads(file.read_text(encoding="utf-8")))
    except (OSError, ValueError, ValidationError) as error:
        first = error.errors()[0] if isinstance(error, ValidationError) else None
        reason = f"{'.'.join(map(str, first['loc']))}: {first['msg']}" if first else str(error)
        raise InputError(
            f"cannot read {file}: {reason}", hint="write a list of objects with dataset, metric, value"
        ) from error
