"""Progress as one value for the whole project."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TypeAlias


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a run has come.

    Attributes:
        stage: What is counted. The pipeline's "load", "reason" and "embed" count inputs; a run adds its own, such as
            "discover" or "migrate".
        done: Finished so far, failures included.
        total: How many there are, or None while that is unknown.
        source: The file at hand, or "".
        rates: Inputs per second of work in each stage of the pipeline; the slowest sets the pace.
        figures: What a run of training measured last, by name, such as "loss".
    """

    stage: str
    done: int
    total: int | None
    source: str = ""
    rates: Mapping[str, float] = field(default_factory=dict)
    figures: Mapping[str, float] = field(default_factory=dict)


OnProgress: TypeAlias = Callable[[Progress], None]
"""Receives each step of a run, one call at a time."""
