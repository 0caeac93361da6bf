"""What the commands on training data share: their options, the Reasoner that they name, and how failures are told."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeAlias

import typer
from rich.table import Table

from ume_retrieval.errors import Failure

if TYPE_CHECKING:
    from ume_retrieval.cache import TraceCache
    from ume_retrieval.reasoner.base import Reasoner

OnError: TypeAlias = Literal["stop", "skip"]

PairsArgument = Annotated[
    Path, typer.Argument(help="A .jsonl or .parquet pair file, or a folder of such shards.", show_default=False)
]
OnErrorOption = Annotated[
    OnError, typer.Option("--on-error", help="At a broken line: stop, or leave it out, name it and go on.")
]
ResumeOption = Annotated[bool, typer.Option("--resume", help="Go on with files that an earlier run has left.")]


def load_reasoner(name: str, device: str) -> Reasoner:
    """The Reasoner that a command names, with progress bars of other libraries switched off."""
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    from transformers import utils

    from ume_retrieval.engines import LoadOptions, choose_engine
    from ume_retrieval.registry import resolve_reasoner

    logging: Any = utils.logging
    logging.disable_progress_bar()
    logging.set_verbosity_error()
    return choose_engine().load_reasoner(resolve_reasoner(name), LoadOptions(device=device))


def open_cache(cache: str) -> TraceCache | None:
    """The trace cache that a command names: "auto" is the user's own, "none" is none, anything else a path."""
    from ume_retrieval.cache import TraceCache, default_cache_path

    if cache == "none":
        return None
    return TraceCache(default_cache_path() if cache == "auto" else Path(cache).expanduser())


def failures_data(failures: Sequence[Failure]) -> list[dict[str, Any]]:
    """Failures for JSON."""
    kept = ("source", "error", "message", "hint")
    return [{name: asdict(failure)[name] for name in kept} for failure in failures]


def counts_table(title: str, counts: Mapping[str, int] | Counter[str]) -> Table:
    """Names and how often each occurs, most frequent first."""
    table = Table(box=None, pad_edge=False)
    table.add_column(title)
    table.add_column("count", justify="right")
    for name, count in sorted(counts.items(), key=lambda entry: -entry[1]):
        table.add_row(name, str(count))
    return table
