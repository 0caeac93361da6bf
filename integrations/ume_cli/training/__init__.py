"""`ume train`: from training pairs to exported checkpoints."""

from __future__ import annotations

import typer

from ume_cli.training.annotate import annotate
from ume_cli.training.check import check
from ume_cli.training.contrastive import contrastive
from ume_cli.training.convert import convert
from ume_cli.training.egrl import egrl
from ume_cli.training.export import export
from ume_cli.training.filter import filter_pairs
from ume_cli.training.plan import plan
from ume_cli.training.run import run

train_app = typer.Typer(no_args_is_help=True)
for name, function in (
    ("plan", plan),
    ("run", run),
    ("convert", convert),
    ("check", check),
    ("annotate", annotate),
    ("filter", filter_pairs),
    ("contrastive", contrastive),
    ("egrl", egrl),
    ("export", export),
):
    train_app.command(name)(function)
