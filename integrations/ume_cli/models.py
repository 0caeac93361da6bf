"""`ume models`."""

from __future__ import annotations

from rich.table import Table

from ume_cli.options import JsonOption
from ume_cli.output import command


def models(*, as_json: JsonOption = False) -> None:
    """List the models that are known by a short name."""
    with command(as_json=as_json) as output:
        from ume_retrieval.engines.registry import presets

        table = Table(box=None, pad_edge=False)
        for column in ("name", "role", "weights", "dimension", "note"):
            table.add_column(column, overflow="fold")
        rows = []
        for preset in presets():
            rows.append(
                {
                    "name": preset.name,
                    "role": preset.role,
                    "model": preset.model,
                    "dimension": preset.dimension,
                    "reasoner": preset.reasoner,
                    "note": preset.note,
                }
            )
            dimension = str(preset.dimension) if preset.dimension else ""
            table.add_row(preset.name, preset.role, preset.model, dimension, preset.note)
        output.result({"models": rows}, table)
