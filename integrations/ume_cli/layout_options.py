"""Options that say how a new collection keeps its vectors."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal, TypeAlias

import typer

if TYPE_CHECKING:
    from ume_qdrant import Layout

QuantizationName: TypeAlias = Literal["scalar", "binary", "product"]
PlaceName: TypeAlias = Literal["memory", "disk"]

ShortOption = Annotated[
    int | None, typer.Option("--short", min=1, help="Look through vectors cut to this many values first.")
]
QuantizationOption = Annotated[
    QuantizationName | None, typer.Option("--quantization", help="Look through quantized vectors first.")
]
FullOption = Annotated[PlaceName | None, typer.Option("--full", help="Where full vectors are held.")]


def layout_of(short: int | None, quantization: QuantizationName | None, full: PlaceName | None) -> Layout | None:
    """The layout that was asked for, or None where nothing was said."""
    from ume_qdrant import Layout

    if short is None and quantization is None and full is None:
        return None
    return Layout(short, quantization, on_disk=full == "disk")
