"""`ume gate`: learn from sample queries when reasoning pays."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ume_cli.options import (
    DEFAULT_COLLECTION,
    DEFAULT_MODEL,
    DEFAULT_STORE,
    CollectionOption,
    DeviceOption,
    EngineOption,
    JsonOption,
    ModelOption,
    PromptsOption,
    ReasonerOption,
    StoreOption,
    load_embedder,
    open_named_store,
)
from ume_cli.output import command, plain
from ume_retrieval.errors import InputError
from ume_retrieval.inputs import Item

if TYPE_CHECKING:
    from ume_qdrant.stores.base import Store


def gate(
    queries: Annotated[
        Path,
        typer.Argument(
            help="Sample queries: one a line, or .jsonl with text, images, videos, and answer (a source) if known.",
            show_default=False,
        ),
    ],
    *,
    out: Annotated[Path, typer.Option(help="The gate to write.")] = Path("gate.json"),
    max_loss: Annotated[
        float, typer.Option(min=0, max=1, help="Most queries that may be spared though reasoning serves them better.")
    ] = 0.005,
    store: StoreOption = DEFAULT_STORE,
    collection: CollectionOption = DEFAULT_COLLECTION,
    model: ModelOption = DEFAULT_MODEL,
    reasoner: ReasonerOption = "auto",
    prompts: PromptsOption = None,
    device: DeviceOption = "auto",
    engine: EngineOption = "auto",
    as_json: JsonOption = False,
) -> None:
    """Search sample queries with and without reasoning, and learn when it pays; `ume search --gate` uses the result."""
    with command(as_json=as_json) as output:
        from ume_qdrant import calibrate_gate

        items, answers = read_queries(queries)
        writable(out)
        with open_named_store(store, collection) as opened:
            opened.count()
            answers = answers and located(answers, queries.parent, opened)
            embedder = load_embedder(model, reasoner, device, engine, prompts)
            with output.progress() as progress:
                bar = progress.add_task("queries", total=len(items))
                made = calibrate_gate(
                    embedder,
                    opened,
                    items,
                    answers=answers,
                    max_loss=max_loss,
                    on_progress=lambda done, _: progress.update(bar, completed=done),
                )
        made.save(out)
        facts = {"gate": str(out), "saved": made.saved, "loss": made.loss, "queries": made.queries}
        said = f"spares [bold]{made.saved:.0%}[/bold] of {made.queries} queries, {made.loss:.1%} of them all wrongly"
        output.result(facts, f"{plain(str(out))}: {said}")


def read_queries(path: Path) -> tuple[list[Item], list[str] | None]:
    """Queries of a file, and the answers when every one has one.

    Raises:
        InputError: When the file cannot be read; the line is named.
    """
    try:
        lines = path.read_text(encoding="utf-8").split("\n")  # JSON may hold what else ends a line
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
            row = json.loads(line)
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


def located(answers: Sequence[str], folder: Path, store: Store) -> list[str]:
    """Answers as the collection names its sources: as they are written, or else as files from a folder on.

    Args:
        answers: Sources.
        folder: Of the file that they stand in.
        store: The collection.
    """
    from ume_qdrant.admin.contents import held_sources
    from ume_retrieval.media import display_name

    held = held_sources(store, answers)
    return [one if one in held else display_name(os.path.abspath(folder / one)) for one in answers]  # noqa: PTH100


def writable(path: Path) -> None:
    """Make the folder of a file that is written when the work is done.

    Raises:
        InputError: When it cannot be made, or the file cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path.parent):
            pass
    except OSError as error:
        raise InputError(f"cannot write {path}: {error.strerror}", hint="choose another place with --out") from error
    if path.is_dir():
        raise InputError(f"cannot write {path}: it is a folder", hint="name a file with --out")
