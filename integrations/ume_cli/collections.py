"""`ume store`: inspect, check, repair, alias, copy and delete collections."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer
from rich.table import Table

from ume_cli.indexing import Bars
from ume_cli.option_groups import LayoutOptions, StoreOptions, grouped
from ume_cli.options import (
    API_KEY_VARIABLE,
    DEFAULT_COLLECTION,
    DEFAULT_STORE,
    JsonOption,
    StoreOption,
    open_named_store,
)
from ume_cli.output import ExitCode, command, plain
from ume_retrieval.errors import InputError

if TYPE_CHECKING:
    from ume_qdrant.stores.base import Store
    from ume_qdrant.stores.schema import IndexKind

TARGET_KEY_VARIABLE = "QDRANT_TARGET_API_KEY"
"""Key of the server that `migrate` writes to, if it differs from the source's."""

store_app = typer.Typer(no_args_is_help=True)


@store_app.command()
@grouped
def info(
    *,
    place: StoreOptions,
    as_json: JsonOption = False,
) -> None:
    """Show what a collection contains, how it stores it, and which models made it."""
    with command(as_json=as_json) as output, place.open() as opened:
        from ume_qdrant import ANY_TENANT, Filter

        meta, layout = opened.meta(), opened.layout()
        kinds = {
            kind: opened.count(Filter(kinds=(kind,), tenant=ANY_TENANT)) for kind in ("image", "video", "page", "text")
        }
        aliases = opened.aliases()
        named = aliases.get(place.collection, place.collection)
        data: dict[str, Any] = {
            "collection": named,
            "aliases": [alias for alias, target in aliases.items() if target == named],
            "points": opened.count(Filter(tenant=ANY_TENANT)),
            **kinds,
            "reasoned": opened.count(Filter(reasoning=("done",), tenant=ANY_TENANT)),
            "embedder": f"{meta.model}@{meta.revision}",
            "reasoner": f"{meta.reasoner}@{meta.reasoner_revision}" if meta.reasoner else None,
            "dimension": meta.dimension,
            "layout": str(layout),
            "tenant_key": layout.tenant,
            "indexes": [f"{key} ({kind})" for key, kind in opened.indexes().items()],
        }
        table = Table(box=None, pad_edge=False, show_header=False)
        for key, value in data.items():
            words = ", ".join(value) if isinstance(value, list) else str("" if value is None else value)
            table.add_row(key, plain(words))
        output.result(data, table)


@store_app.command(name="create-index")
@grouped
def create_index(
    keys: Annotated[list[str], typer.Argument(help="KEY=KIND, such as year=integer; several at once.")],
    *,
    place: StoreOptions,
    as_json: JsonOption = False,
) -> None:
    """Index your own metadata, so that filters on large collections are fast.

    Kinds: keyword, integer, float, bool, datetime, and text (words).
    """
    with command(as_json=as_json) as output, place.open() as opened:
        for entry in keys:
            key, equals, kind = entry.rpartition("=")
            if not equals:
                raise InputError(f"{entry!r} names no kind of index", hint="write KEY=KIND, such as year=integer")
            opened.create_index(key, cast("IndexKind", kind))
        indexes = opened.indexes()
        output.result({"indexes": indexes}, *(plain(f"{key}: {kind}") for key, kind in indexes.items()))


@store_app.command()
@grouped
def alias(
    name: Annotated[str, typer.Argument(help="The alias.")],
    *,
    place: StoreOptions,
    as_json: JsonOption = False,
) -> None:
    """Point an alias at a collection, atomically: for example to swap in a new index."""
    with command(as_json=as_json) as output, place.open() as opened:
        before = opened.set_alias(name)
        was = f" (was {before})" if before else ""
        output.result(
            {"alias": name, "collection": place.collection, "before": before},
            plain(f"{name} is {place.collection}{was}"),
        )


@store_app.command()
def unalias(
    name: Annotated[str, typer.Argument(help="The alias.")],
    *,
    store: StoreOption = DEFAULT_STORE,
    as_json: JsonOption = False,
) -> None:
    """Remove an alias; the collection is kept."""
    with command(as_json=as_json) as output, open_named_store(store, DEFAULT_COLLECTION) as opened:
        known = opened.aliases()
        opened.drop_alias(name)
        output.result({"alias": name, "collection": known.get(name)}, plain(f"{name} names nothing now"))


@store_app.command()
@grouped
def migrate(
    to: Annotated[str, typer.Argument(help=f"A directory or a server's address; its key is ${TARGET_KEY_VARIABLE}.")],
    *,
    place: StoreOptions,
    name: Annotated[str | None, typer.Option("--as", help="Its name there; the same by default.")] = None,
    layout: LayoutOptions,
    as_json: JsonOption = False,
) -> None:
    """Copy a collection to another store or layout; can be stopped and resumed."""
    _copy(to, place, name, layout, as_json=as_json)


@store_app.command()
@grouped
def export(
    *,
    to: Annotated[str, typer.Option(help=f"A server's address or a directory; its key is ${TARGET_KEY_VARIABLE}.")],
    place: StoreOptions,
    name: Annotated[str | None, typer.Option("--as", help="Its name there; the same by default.")] = None,
    layout: LayoutOptions,
    as_json: JsonOption = False,
) -> None:
    """Copy a collection to a server, where Qdrant's own tools can open it; the same as `migrate`."""
    _copy(to, place, name, layout, as_json=as_json)


@store_app.command()
@grouped
def verify(*, place: StoreOptions, as_json: JsonOption = False) -> None:
    """Check all files and points of a collection on disk, and change nothing; exit code 1 if it is damaged."""
    with command(as_json=as_json) as output:
        from ume_qdrant import verify as verify_files

        with place.open() as opened, Bars(output) as bars:
            report = verify_files(opened, on_progress=bars.step)
        compared = f"{report.files} files compared" if report.sealed else "not closed cleanly, so no files compared"
        counted = "" if report.points is None else f", {report.points} points read"
        output.result(
            report.to_dict(),
            f"[bold]{'intact' if report.intact else 'damaged'}[/bold]: {compared}{counted}",
            *(plain(f"  {name} is not as it was written") for name in report.damaged),
            *(plain(f"  point {key}: {why}") for key, why in report.faulty.items()),
            *(plain(f"  {report.reason}") for _ in range(bool(report.reason))),
            *(plain(f"  {name} is incomplete: `ume index` completes it") for name in report.incomplete),
        )
        if not report.intact:
            output.note("`ume store repair` rebuilds what can be read")
            raise typer.Exit(ExitCode.FAILED)


@store_app.command()
@grouped
def repair(*, place: StoreOptions, as_json: JsonOption = False) -> None:
    """Rebuild a damaged collection on disk from what can be trusted, and name the rest; no model is called."""
    with command(as_json=as_json) as output:
        from ume_qdrant import repair as repair_files

        with place.open() as opened, Bars(output) as bars:
            report = repair_files(opened, on_progress=bars.step)
        lost = "" if not report.unnamed else f"  {report.unnamed} points were removed that cannot be named"
        output.result(
            report.to_dict(),
            f"[bold]{report.kept}[/bold] points kept, {len(report.restored)} files restored",
            *(plain(f"  {name}: to be indexed again") for name in report.requeued),
            *(plain(f"  {name}: to be reasoned over again") for name in report.reasoning),
            *(plain(f"  {name}: lost") for name in report.lost),
            *([plain(lost)] if lost else []),
        )
        if report.requeued or report.unnamed:
            output.note("`ume index` with the same folders, then `ume enrich`, completes the collection")
        elif report.reasoning:
            output.note("`ume enrich` completes the collection")


@store_app.command()
@grouped
def snapshot(
    file: Annotated[Path, typer.Argument(help="The archive to write (.tar.gz).")],
    *,
    place: StoreOptions,
    as_json: JsonOption = False,
) -> None:
    """Write a collection on disk to one archive, with checksums."""
    with command(as_json=as_json) as output, place.open() as opened:
        from ume_qdrant import snapshot as write_snapshot

        points = write_snapshot(opened, file)
        output.result({"snapshot": str(file), "points": points}, plain(f"wrote {file}, {points} points"))


@store_app.command()
@grouped
def restore(
    file: Annotated[Path, typer.Argument(help="An archive that `snapshot` wrote.")],
    *,
    place: StoreOptions,
    as_json: JsonOption = False,
) -> None:
    """Create a collection on disk from a snapshot; it must not exist yet."""
    with command(as_json=as_json) as output, place.open() as opened:
        from ume_qdrant import restore as restore_snapshot

        points = restore_snapshot(opened, file)
        output.result({"collection": place.collection, "points": points}, f"[bold]{points}[/bold] points restored")


@store_app.command()
def drop(
    collection: Annotated[str, typer.Argument(help="Name of the collection, not an alias.")],
    *,
    store: StoreOption = DEFAULT_STORE,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Delete a collection, its points and the aliases that point to it."""
    with command(as_json=as_json) as output, open_named_store(store, collection) as opened:
        from ume_qdrant.stores.filters import EVERYTHING

        points = opened.count(EVERYTHING)
        if not yes:
            typer.confirm(f"remove {collection} with {points} points?", abort=True, err=True)
        opened.drop()
        output.result({"collection": collection, "points": points}, plain(f"{collection} removed, {points} points"))


def _copy(to: str, place: StoreOptions, name: str | None, layout: LayoutOptions, *, as_json: bool) -> None:
    with command(as_json=as_json) as output:
        from ume_qdrant import migrate as migrate_points

        target = _target(to, name or place.collection)
        with place.open() as opened, target, Bars(output) as bars:
            report = migrate_points(opened, target, layout=layout.layout(), on_progress=bars.step)
        words = f"[bold]{report.copied}[/bold] copied, {report.unchanged} were there, {report.others} others there, "
        output.result(report.to_dict(), words + f"in {report.seconds:.1f} s")


def _target(location: str, collection: str) -> Store:
    from ume_qdrant import open_store

    key = os.environ.get(TARGET_KEY_VARIABLE) or os.environ.get(API_KEY_VARIABLE)
    return open_store(location, collection, api_key=key if "://" in location else None)
