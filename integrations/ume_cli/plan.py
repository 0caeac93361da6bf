"""`ume plan`: what a corpus would cost, on paper."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeAlias

import typer
from rich.table import Table

from ume_cli.options import JsonOption
from ume_cli.output import command
from ume_retrieval.errors import InputError, MissingExtra

if TYPE_CHECKING:
    from ume_ray.capacity import CapacityPlan

CostsName: TypeAlias = Literal["assumed", "measured"]
HardwareName: TypeAlias = Literal["cpu", "gpu", "gpus"]


def plan(
    *,
    items: Annotated[
        list[float] | None,
        typer.Option(help="Points; may come often, a column each. Else 1e6, 1e8 and 1e9.", show_default=False),
    ] = None,
    costs: Annotated[
        CostsName,
        typer.Option(help="assumed: 2-billion-parameter models on a GPU; measured: ume-tiny on one CPU core."),
    ] = "assumed",
    hardware: Annotated[
        HardwareName | None,
        typer.Option(
            help="cpu: 16 cores; gpu: one GPU; gpus: eight; by default what the costs are of.", show_default=False
        ),
    ] = None,
    hours: Annotated[
        float | None, typer.Option(help="Take as many machines as finish within so many hours.", show_default=False)
    ] = None,
    numbers: Annotated[
        list[str] | None,
        typer.Option("--set", help="A number of yours: price_per_hour=1.9; may come often.", show_default=False),
    ] = None,
    file: Annotated[
        Path | None, typer.Option("--numbers", help="A YAML file of such numbers.", show_default=False)
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Say what indexing and keeping a corpus takes: machines, hours, money, RAM, disk, shards. Loads no model."""
    with command(as_json=as_json) as output:
        from ume_ray.capacity import CapacityPlan, with_numbers
        from ume_ray.capacity_numbers import COSTS, HARDWARE

        own = {**(_from_file(file) if file else {}), **dict(_pair(text) for text in numbers or ())}
        unit = COSTS[costs]
        machine = HARDWARE[hardware or ("cpu" if unit.on == "core" else "gpu")]
        if hours is not None and not 0 < hours < math.inf:
            raise InputError(f"{hours:g} hours", hint="use a number above 0")
        try:
            made = [with_numbers(CapacityPlan(count, unit, machine), own) for count in items or [1e6, 1e8, 1e9]]
            if hours is not None:
                made = [with_numbers(one, {"machines": one.machines_within(hours)}) for one in made]
            plans = [one.to_dict() for one in made]
        except OverflowError as error:
            raise InputError("these numbers make a plan beyond all numbers", hint="use smaller ones") from error
        output.result({"plans": plans}, _table(made))
        sources = f"costs {made[0].costs.source}; prices {made[0].hardware.source}"
        output.note(f"{sources}; your own numbers: --set or --numbers")


def _table(plans: list[CapacityPlan]) -> Table:
    from ume_ray.capacity import rows

    table = Table(box=None, pad_edge=False)
    table.add_column("items")
    for one in plans:
        table.add_column(f"{one.items:,.0f}", justify="right")
    for name, *cells in rows(plans):
        table.add_row(name, *cells)
    return table


def _pair(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not equals:
        raise InputError(f"{text!r} sets nothing", hint="write --set name=value")
    return name.strip(), value.strip()


def _from_file(path: Path) -> dict[str, Any]:
    try:
        import yaml
    except ImportError as error:
        raise MissingExtra("pyyaml is not installed", hint="pip install pyyaml, or use --set") from error
    try:
        read = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        said = str(error).splitlines()[0]
        raise InputError(f"{path} cannot be read: {said}", hint="write lines of name: value") from error
    if not isinstance(read, dict):
        raise InputError(f"{path} holds no numbers by name", hint="write lines of name: value")
    return {str(name): value for name, value in read.items()}
