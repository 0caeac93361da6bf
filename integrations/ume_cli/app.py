"""All commands in one Typer app."""

from __future__ import annotations

import typer

from ume_cli.cache import cache_app
from ume_cli.collections import store_app
from ume_cli.demo import demo
from ume_cli.doctor import doctor
from ume_cli.eval import mmeb_v2, uvrb
from ume_cli.evaluate import eval_app
from ume_cli.gate import gate
from ume_cli.indexing import enrich, index
from ume_cli.models import models_app
from ume_cli.plan import plan
from ume_cli.searching import report, search
from ume_cli.serving import mcp, serve
from ume_cli.training import train_app

app = typer.Typer(
    name="ume",
    help="Find the right image, second of video or page, and see why.",
    epilog="Exit codes: 0 done (items left out are named), 1 failed, 2 wrong usage, 130 stopped by you.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
for function in (demo, index, enrich, search, report, serve, mcp, gate, plan, doctor):
    app.command()(function)
app.add_typer(models_app, name="models", help="List the models that are known by a short name, or check one.")
app.add_typer(eval_app, name="eval", help="Measure retrieval.")
eval_app.command("mmeb-v2")(mmeb_v2)
eval_app.command()(uvrb)
app.add_typer(cache_app, name="cache", help="Look at or clear the traces kept on disk.")
app.add_typer(store_app, name="store", help="Look after collections: aliases, moving, removing.")
app.add_typer(train_app, name="train", help="Train Reasoners and Embedders.")
