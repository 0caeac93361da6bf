"""`ume store`: what a store holds, aliases, moving a collection, removing one."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table

from ume_cli.indexing import Bars
from ume_cli.layout_options import FullOption, QuantizationOption, ShortOption, layout_of
from ume_cli.options import (
    API_KEY_VARIABLE,
    DEFAULT_COLLECTION,
    DEFAULT_STORE,
    CollectionOption,
    JsonOption,
    StoreOption,
    open_named_store,
)
from ume_cli.output import command, plain

if TYPE_CHECKING:
    from ume_qdrant.stores.base import Store

TARGET_KEY_VARIABLE = "QDRANT_TARGET_API_KEY"
"""Key of the server that `migrate` writes to, where it differs from the source's."""

store_app = typer.Typer(no_args_is_help=True)


@store_app.command()
def info(
    *,
    store: StoreOption = DEFAULT_STORE,
    collection: CollectionOption = DEFAULT_COLLECTION,
    as_json: JsonOption = False,
) -> None:
    """Say what a collection holds, how it keeps it, and which models made it."""
    with command(as_json=as_json) as output, open_named_store(store, collection) as opened:
        from ume_qdrant import Filter

        meta, layout = opened.meta(), opened.layout()
        kinds = {kind: opened.count(Filter(kinds=(kind,))) for kind in ("image", "video", "page", "text")}
        aliases = opened.aliases()
        named = aliases.get(collection, collection)
        data: dict[str, Any] = {
            "collection": named,
            "aliases": [alias for alias, target in aliases.items() if target == named],
            "points": opened.count(),
            **kinds,
            "reasoned": opened.count(Filter(reasoning=("done",))),
            "embedder": f"{meta.model}@{meta.revision}",
            "reasoner": f"{meta.reasoner}@{meta.reasoner_revision}" if meta.reasoner else None,
            "dimension": meta.dimension,
            "layout": str(layout),
        }
        table = Table(box=None, pad_edge=False, show_header=False)
        for key, value in data.items():
            words = ", ".join(value) if isinstance(value, list) else str("" if value is None else value)
            table.add_row(key, plain(words))
        output.result(data, table)


@store_app.command()
def alias(
    name: Annotated[str, typer.Argument(help="The alias.")],
    *,
    store: StoreOption = DEFAULT_STORE,
    collection: CollectionOption = DEFAULT_COLLECTION,
    as_json: JsonOption = False,
) -> None:
    """Let an alias name a collection from now on, at once: so a new index swaps in."""
    with command(as_json=as_json) as output, open_named_store(store, collection) as opened:
        before = opened.set_alias(name)
        was = f" (was {before})" if before else ""
        output.result(
            {"alias": name, "collection": collection, "before": before}, plain(f"{name} is {collection}{was}")
        )


@store_app.command()
def unalias(
    name: Annotated[str, typer.Argument(help="The alias.")],
    *,
    store: StoreOption = DEFAULT_STORE,
    as_json: JsonOption = False,
) -> None:
    """Forget an alias; the collection stays."""
    with command(as_json=as_json) as output, open_named_store(store, DEFAULT_COLLECTION) as opened:
        known = opened.aliases()
        opened.drop_alias(name)
        output.result({"alias": name, "collection": known.get(name)}, plain(f"{name} names nothing now"))


@store_app.command()
def migrate(
    to: Annotated[str, typer.Argument(help=f"A directory or a server's address; its key is ${TARGET_KEY_VARIABLE}.")],
    *,
    store: StoreOption = DEFAULT_STORE,
    collection: CollectionOption = DEFAULT_COLLECTION,
    name: Annotated[str | None, typer.Option("--as", help="Name there; by default the same.")] = None,
    short: ShortOption = None,
    quantization: QuantizationOption = None,
    full: FullOption = None,
    as_json: JsonOption = False,
) -> None:
    """Copy a collection to another store or layout; stop and go on as you like."""
    with command(as_json=as_json) as output:
        from ume_qdrant import migrate as migrate_points

        layout = layout_of(short, quantization, full)
        target = _target(to, name or collection)
        with open_named_store(store, collection) as opened, target, Bars(output) as bars:
            report = migrate_points(opened, target, layout=layout, on_progress=bars.step)
        words = f"[bold]{report.copied}[/bold] copied, {report.unchanged} were there, {report.others} others there, "
        output.result(report.to_dict(), words + f"in {report.seconds:.1f} s")


@store_app.command()
def drop(
    collection: Annotated[str, typer.Argument(help="Name of the collection; never an alias.")],
    *,
    store: StoreOption = DEFAULT_STORE,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Remove a collection for ever, with its points and the aliases that name it."""
    with command(as_json=as_json) as output, open_named_store(store, collection) as opened:
        points = opened.count()
        if not yes:
            typer.confirm(f"remove {collection} with {points} points?", abort=True, err=True)
        opened.drop()
        output.result({"collection": collection, "points": points}, plain(f"{collection} removed, {points} points"))


def _target(location: str, collection: str) -> Store:
    from ume_qdrant import open_store

    key = os.environ.get(TARGET_KEY_VARIABLE) or os.environ.get(API_KEY_VARIABLE)
    return open_store(location, collection, api_key=key if "://" in location else None)
