"""`ume models`: the catalogue, one model with its sources, and a check against published vectors."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table

from ume_cli.options import DeviceOption, EngineOption, JsonOption, quiet_libraries
from ume_cli.output import ExitCode, command, plain
from ume_retrieval.errors import ModelError

if TYPE_CHECKING:
    from ume_retrieval.engines.memory import Room
    from ume_retrieval.models.catalog import ModelCard

models_app = typer.Typer(invoke_without_command=True)

NameArgument = Annotated[str, typer.Argument(help="A name of the catalogue or a hub id.", show_default=False)]


@models_app.callback()
def models(context: typer.Context, *, as_json: JsonOption = False) -> None:
    """List the models that are known by a short name, and whether their weights fit this machine."""
    if context.invoked_subcommand:
        return
    with command(as_json=as_json) as output:
        from ume_retrieval.models.catalog import cards

        rooms = rooms_here()
        table = Table(box=None, pad_edge=False)
        for column in ("name", "role", "weights", "memory", "fits", "dim", "licence", "parity", "run by us"):
            table.add_column(column, overflow="fold", justify="right" if column in {"memory", "dim"} else "left")
        for card in cards():
            fits = ", ".join(fitting(card, rooms)) or "no"
            figures = (_memory(card), fits, str(card.dimension or ""), card.license or "unknown")
            table.add_row(card.name, card.role, card.model, *figures, card.parity or "", _yes(card.ran))
        notes = "[dim]memory: of the weights in bfloat16; twice as much in float32, which a processor runs in[/dim]"
        output.result({"models": [described(card, rooms) for card in cards()]}, table, notes)


@models_app.command()
def show(name: NameArgument, *, as_json: JsonOption = False) -> None:
    """Show one model: every figure with its source."""
    with command(as_json=as_json) as output:
        from ume_retrieval.models.catalog import find_cards

        found = find_cards(name)
        if not found:
            raise ModelError(f"{name} is not in the catalogue", hint="`ume models` lists what is")
        rooms = rooms_here()
        facts = {"models": [described(card, rooms) for card in found]}
        output.result(facts, *(sheet(card, fitting(card, rooms)) for card in found))


@models_app.command()
def verify(
    name: Annotated[
        str, typer.Argument(help="A name of the catalogue, a hub id, or a card file (.json).", show_default=False)
    ],
    *,
    weights: Annotated[
        Path | None, typer.Option(help="Folder of the weights; else the hub's cache.", show_default=False)
    ] = None,
    image: Annotated[Path | None, typer.Option(help="The picture of the published inputs.", show_default=False)] = None,
    allow_remote: Annotated[
        bool, typer.Option("--allow-remote", help="Fetch what is lacking: weights from the hub, the picture.")
    ] = False,
    device: DeviceOption = "auto",
    engine: EngineOption = "auto",
    as_json: JsonOption = False,
) -> None:
    """Encode the inputs that a model's authors published figures for, and compare; exits 1 when they differ."""
    with command(as_json=as_json) as output:
        from ume_retrieval.verification import (
            card_to_verify,
            compare,
            image_hosts,
            published_items,
            weights_of,
        )

        card = card_to_verify(name)
        if card.published is None:
            output.result(
                {"model": card.model, "published": None}, f"{plain(card.name)}: no published values are known"
            )
            raise typer.Exit(ExitCode.USAGE)
        resolved = weights_of(card, weights, allow_remote=allow_remote or engine == "server")
        items = published_items(card.published, image, allow_remote=allow_remote)
        from ume_retrieval.engines.load import LoadOptions, choose_engine
        from ume_retrieval.pipeline.embedder import ReasoningEmbedder

        quiet_libraries()
        chosen = choose_engine(engine)
        loaded = chosen.load_embedder(resolved, chosen.place([resolved], LoadOptions(device)))
        hosts = image_hosts(card.published) if allow_remote and image is None else ()
        vectors = ReasoningEmbedder(loaded, allow_remote=hosts).encode_corpus(items, reasoning="never")
        comparisons = compare(card.published, vectors)
        agrees = all(one.agrees for one in comparisons)
        table = Table(box=None, pad_edge=False)
        for column in ("figure", "published", "own", "difference", "tolerance", ""):
            table.add_column(column, justify="left" if column in {"figure", ""} else "right")
        rows: list[dict[str, Any]] = []
        for one in comparisons:
            difference = one.own - one.published
            figures = (f"{one.published:.4f}", f"{one.own:.4f}", f"{difference:+.4f}", f"{one.tolerance:.4f}")
            table.add_row(one.what, *figures, "[green]same[/green]" if one.agrees else "[red]differs[/red]")
            rows.append(
                {
                    "figure": one.what,
                    "published": one.published,
                    "own": one.own,
                    "tolerance": one.tolerance,
                    "agrees": one.agrees,
                }
            )
        told = {"model": loaded.info.name, "revision": loaded.info.revision, "agrees": agrees, "figures": rows}
        sources = [f"[dim]{plain(source)}[/dim]" for source in card.published.sources]
        verdict = "[green]the published vectors[/green]" if agrees else "[red]not the published vectors[/red]"
        output.result(told | {"sources": list(card.published.sources)}, table, *sources, verdict)
        if not agrees:
            raise typer.Exit(ExitCode.FAILED)


def rooms_here() -> list[tuple[Room, int]]:
    """Devices of this machine with the bytes of a number that they run in: the GPU if there is one, the processor."""
    import torch

    from ume_retrieval.engines.memory import room_of
    from ume_retrieval.engines.transformers.loading import choose_device, choose_dtype

    devices = dict.fromkeys([choose_device("auto"), torch.device("cpu")])
    return [(room_of(device), choose_dtype("auto", device).itemsize) for device in devices]


def fitting(card: ModelCard, rooms: list[tuple[Room, int]]) -> list[str]:
    """Devices that hold a model's weights; all of them where its size is unknown."""
    return [room.device for room, itemsize in rooms if room.holds((card.parameters or 0) * itemsize)]


def described(card: ModelCard, rooms: list[tuple[Room, int]]) -> dict[str, Any]:
    """A card for programs, with the memory of its weights and the devices that hold them."""
    from ume_retrieval.engines.memory import gigabytes

    facts = card.model_dump(mode="json")
    size = card.weight_bytes
    return facts | {
        "memory": None if size is None else gigabytes(size),
        "memory_bytes": size,
        "fits": fitting(card, rooms),
    }


def sheet(card: ModelCard, fits: list[str]) -> Table:
    """A card for people: a figure a line, with its source."""
    rows: dict[str, object] = {
        "weights": card.model if card.revision is None else f"{card.model} at {card.revision}",
        "family": card.family or "its folder says",
        "parameters": f"{card.parameters:,}" if card.parameters else "unknown",
        "memory": f"{_memory(card) or 'unknown'} for weights in bfloat16; fits: {', '.join(fits) or 'no device here'}",
        "license": card.license or "unknown",
        "modalities": ", ".join(card.modalities) or "unknown",
        "note": card.note,
        "run by us": _yes(card.ran),
    }
    if card.role == "embedder":
        rows |= {
            "dimension": card.dimension or "unknown",
            "matryoshka_dims": ", ".join(map(str, card.matryoshka_dims)) or "unknown",
            "reasoner": card.reasoner,
            "parity": card.parity,
        }
    table = Table(box=None, pad_edge=False, title=f"{card.name} ({card.role})", title_justify="left")
    for column in ("figure", "value", "source"):
        table.add_column(column, overflow="fold")
    for name, value in rows.items():
        table.add_row(name, plain(str(value)), f"[dim]{plain(card.sources.get(name, ''))}[/dim]")
    if card.published:
        count = f"{len(card.published.similarities)} similarities, {len(card.published.values)} beginnings of vectors"
        table.add_row("published", count, f"[dim]{plain('; '.join(card.published.sources))}[/dim]")
    return table


def _yes(said: bool) -> str:  # noqa: FBT001  # a fact in words
    return "yes" if said else "no"


def _memory(card: ModelCard) -> str:
    from ume_retrieval.engines.memory import gigabytes

    return "" if card.weight_bytes is None else gigabytes(card.weight_bytes)
