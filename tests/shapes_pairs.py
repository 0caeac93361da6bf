"""Pairs of the Shapes world as real files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ume_training.data.files import write_records
from ume_training.shapes.pairs import shapes_records


def write_shapes_pairs(folder: Path, **options: Any) -> Path:
    """Write `folder`/pairs.jsonl, with its media next to it; options are those of `shapes_records`."""
    path = folder / "pairs.jsonl"
    write_records(shapes_records(folder, **options), path)
    return path
