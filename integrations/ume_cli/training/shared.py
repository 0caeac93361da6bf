"""Options, settings and tables that several training commands share."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeAlias, TypeVar

import typer
from rich.table import Table

from ume_retrieval.errors import Failure

if TYPE_CHECKING:
    from pydantic import BaseModel

    from ume_cli.output import Output
    from ume_retrieval.pipeline.trace_cache import TraceCache

OnError: TypeAlias = Literal["stop", "skip"]

PairsArgument = Annotated[
    Path, typer.Argument(help="A .jsonl or .parquet pair file, or a folder of such shards.", show_default=False)
]
OnErrorOption = Annotated[
    OnError, typer.Option("--on-error", help="At a broken line: stop, or leave it out, name it and go on.")
]
ResumeOption = Annotated[bool, typer.Option("--resume", help="Go on with files that an earlier run has left.")]


Settings = TypeVar("Settings", bound="BaseModel")


def read_settings(kind: type[Settings], file: Path | None, changes: Mapping[str, Any]) -> Settings:
    """Read settings from a YAML file; flags that are not None change single ones.

    Raises:
        InputError: When the file cannot be read, or a setting is wrong; file, setting and reason are named.
    """
    from pydantic import ValidationError

    from ume_retrieval.errors import InputError
    from ume_training.recipes.yaml_lines import read_yaml

    base: Any = {}
    if file is not None:
        try:
            text = file.read_text(encoding="utf-8")
        except (OSError, UnicodeError) as error:
            raise InputError(f"cannot read {file}: {error}", hint="name a YAML file of settings") from error
        base = read_yaml(text, str(file)).data
        if not isinstance(base, dict):
            raise InputError(f"{file} holds no settings", hint="write one `name: value` a line")
    try:
        return kind.model_validate(base | {name: value for name, value in changes.items() if value is not None})
    except ValidationError as error:
        first = error.errors()[0]
        name = ".".join(map(str, first["loc"])) or "settings"
        missing = first["type"] == "missing"
        hint = f"give --{name.replace('_', '-')} or a file of settings" if missing else "docs/training.md has them all"
        raise InputError(f"{file or 'settings'}: {name}: {first['msg']}", hint=hint) from error


@contextmanager
def progress_bar(output: Output, name: str, total: int | None) -> Iterator[Callable[..., None]]:
    """Show a progress bar; yield a function that receives how many are done, and optionally a new label."""
    with output.progress() as progress:
        bar = progress.add_task(name, total=total)
        yield lambda done, label=None: progress.update(bar, completed=done, description=label)


def facts_table(facts: Mapping[str, Any]) -> Table:
    """Build a table of names and values."""
    table = Table(box=None, pad_edge=False, show_header=False)
    for name, value in facts.items():
        table.add_row(name.replace("_", " "), str(value))
    return table


def open_cache(cache: str) -> TraceCache | None:
    """Open a trace cache: "auto" is the user's own, "none" disables it, anything else is a path."""
    from ume_retrieval.pipeline.trace_cache import TraceCache, default_cache_path

    if cache == "none":
        return None
    return TraceCache(default_cache_path() if cache == "auto" else Path(cache).expanduser())


def failures_data(failures: Sequence[Failure]) -> list[dict[str, Any]]:
    """Return failures for JSON."""
    kept = ("source", "error", "message", "hint")
    return [{name: asdict(failure)[name] for name in kept} for failure in failures]


def counts_table(title: str, counts: Mapping[str, int] | Counter[str]) -> Table:
    """Build a table of counts, most frequent first."""
    table = Table(box=None, pad_edge=False)
    table.add_column(title)
    table.add_column("count", justify="right")
    for name, count in sorted(counts.items(), key=lambda entry: -entry[1]):
        table.add_row(name, str(count))
    return table
