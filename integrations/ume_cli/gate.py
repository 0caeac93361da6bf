"""`ume gate`: learn from sample queries when reasoning is worth its tokens."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ume_cli.option_groups import FilterOptions, ModelOptions, StoreOptions, grouped
from ume_cli.options import JsonOption
from ume_cli.output import command, plain
from ume_retrieval.errors import InputError
from ume_retrieval.util.json_text import parse_json

if TYPE_CHECKING:
    from ume_qdrant import Filter
    from ume_qdrant.stores.base import Store
    from ume_retrieval import Item


@grouped
def gate(
    queries: Annotated[
        Path,
        typer.Argument(
            help="Sample queries: one per line, or .jsonl with text, images, videos, and answer (a source) if known.",
            show_default=False,
        ),
    ],
    *,
    out: Annotated[Path, typer.Option(help="The gate to write.")] = Path("gate.json"),
    max_loss: Annotated[
        float, typer.Option(min=0, max=1, help="Largest share of queries that may skip reasoning wrongly.")
    ] = 0.005,
    filters: FilterOptions,
    place: StoreOptions,
    models: ModelOptions,
    as_json: JsonOption = False,
) -> None:
    """Search sample queries with and without reasoning; learn when it helps, for `ume search --gate`."""
    with command(as_json=as_json) as output:
        from ume_qdrant import calibrate_gate

        items, answers = read_queries(queries)
        writable(out)
        with place.open() as opened:
            where = filters.filter()
            opened.count(where)
            answers = answers and located(answers, queries.parent, opened, where)
            embedder = models.load()
            with output.progress() as progress:
                bar = progress.add_task("queries", total=len(items))
                made = calibrate_gate(
                    embedder,
                    opened,
                    items,
                    answers=answers,
                    max_loss=max_loss,
                    where=where,
                    on_progress=lambda done, _: progress.update(bar, completed=done),
                )
        made.save(out)
        facts = {"gate": str(out), "saved": made.saved, "loss": made.loss, "queries": made.queries}
        said = f"spares [bold]{made.saved:.0%}[/bold] of {made.queries} queries, {made.loss:.1%} of them all wrongly"
        output.result(facts, f"{plain(str(out))}: {said}")


def read_queries(path: Path) -> tuple[list[Item], list[str] | None]:
    """Read queries from a file, and their answers if every query has one.

    Raises:
        InputError: If the file cannot be read; the message names the line.
    """
    from ume_retrieval import Item

    try:
        lines = path.read_text(encoding="utf-8").split("\n")  # JSON strings may contain other line separators
    except (OSError, UnicodeError) as error:
        raise InputError(f"cannot read {path}: {error}") from error
    items: list[Item] = []
    answers: list[str | None] = []
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        if path.suffix != ".jsonl":
            items.append(Item(text=line.strip()))
            answers.append(None)
            continue
        try:
            row = parse_json(line)
            images, videos = (_files(row.get(name, []), path.parent) for name in ("images", "videos"))
            items.append(Item(text=row.get("text"), images=images, videos=videos))
            answers.append(_answer(row.get("answer")))
        except (ValueError, TypeError, AttributeError, InputError) as error:
            raise InputError(f"{path}, line {number}: no query: {error}") from error
    known = [answer for answer in answers if answer is not None]
    return items, known if len(known) == len(items) else None


def _files(names: object, folder: Path) -> tuple[Path, ...]:
    if not isinstance(names, list):
        raise TypeError("images and videos are lists of files")
    return tuple(folder / name for name in names)


def _answer(source: object) -> str | None:
    if source is not None and not isinstance(source, str):
        raise TypeError("an answer is the name of a source")
    return source


def located(answers: Sequence[str], folder: Path, store: Store, where: Filter | None = None) -> list[str]:
    """Return answers as the collection names its sources: unchanged, or as absolute paths.

    Args:
        answers: Sources, as written in a file.
        folder: Folder of that file.
        store: The collection.
        where: Which points count.
    """
    from ume_qdrant.admin.contents import held_sources
    from ume_retrieval.media import display_name

    held = held_sources(store, answers, where)
    return [one if one in held else display_name(os.path.abspath(folder / one)) for one in answers]  # noqa: PTH100


def writable(path: Path) -> None:
    """Create the folder of a result file before the work begins.

    Raises:
        InputError: If the folder cannot be created, or the file cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path.parent):
            pass
    except OSError as error:
        raise InputError(f"cannot write {path}: {error.strerror}", hint="choose another place with --out") from error
    if path.is_dir():
        raise InputError(f"cannot write {path}: it is a folder", hint="name a file with --out")
