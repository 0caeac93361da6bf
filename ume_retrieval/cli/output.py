"""What commands print: one JSON object or something to read, errors in one line, progress apart from results."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from enum import IntEnum
from typing import Any

import typer
from rich.console import Console, RenderableType
from rich.markup import escape
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TextColumn,
    TimeRemainingColumn,
)
from rich.text import Text

from ume_retrieval.errors import Failure, UmeError


class ExitCode(IntEnum):
    """What the shell is told."""

    DONE = 0
    """Done; single items that failed are named in the output."""
    FAILED = 1
    """The command as a whole failed, or `--strict` and an item did."""
    USAGE = 2
    """The arguments were not understood."""
    INTERRUPTED = 130
    """Stopped by the user; running the same command again goes on."""


@dataclass(frozen=True, slots=True)
class Output:
    """Where a command's result goes.

    Attributes:
        as_json: Print one JSON object on standard output and nothing else there.
        screen: Standard output for people.
        notes: Standard error: progress and errors.
    """

    as_json: bool
    screen: Console
    notes: Console

    def result(self, data: Mapping[str, Any], *views: RenderableType) -> None:
        """Print a result: `data` for programs, or the views for people."""
        if self.as_json:
            sys.stdout.write(json.dumps(data) + "\n")
            return
        for view in views:
            self.screen.print(view)

    def note(self, text: str) -> None:
        """Say what happens now, beside the result."""
        self.notes.print(f"[dim]{escape(text)}[/dim]")

    def failures(self, failures: tuple[Failure, ...], most: int = 20) -> None:
        """Name items that were left out, one line each."""
        if self.as_json or not failures:
            return
        self.notes.print(f"[yellow]{len(failures)} left out:[/yellow]")
        for failure in failures[:most]:
            self.notes.print(f"  {escape(failure.source)}: {escape(failure.message)}", soft_wrap=True)
        if len(failures) > most:
            self.notes.print(f"  … and {len(failures) - most} more (--json names all)")

    @contextmanager
    def progress(self) -> Iterator[Progress]:
        """Bars with rate and time left on standard error; silent where nobody watches."""
        columns = (
            TextColumn("{task.description:<9}"),
            BarColumn(),
            MofNCompleteColumn(),
            _Rate(),
            TimeRemainingColumn(),
        )
        with Progress(*columns, console=self.notes, disable=not self.notes.is_terminal) as progress:
            yield progress


class _Rate(ProgressColumn):
    """Steps a second."""

    def render(self, task: Task) -> Text:
        return Text(f"{task.speed:.1f}/s" if task.speed else "", style="cyan")


@contextmanager
def command(*, as_json: bool) -> Iterator[Output]:
    """Run a command's body; an error becomes one line with a hint and an exit code."""
    output = Output(as_json, Console(), Console(stderr=True))
    try:
        yield output
    except UmeError as error:
        if as_json:
            sys.stdout.write(json.dumps({"error": error.code, "message": error.message, "hint": error.hint}) + "\n")
        else:
            hint = f" [dim]({escape(error.hint)})[/dim]" if error.hint else ""
            output.notes.print(f"[red]error:[/red] {escape(error.message)}{hint}", soft_wrap=True)
        raise typer.Exit(ExitCode.FAILED) from error
    except KeyboardInterrupt:
        output.notes.print("stopped; the same command goes on from here")
        raise typer.Exit(ExitCode.INTERRUPTED) from None
