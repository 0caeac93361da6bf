"""Output of commands: one JSON object or readable text, one-line errors, progress on standard error."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from enum import IntEnum
from typing import Any, Final

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

from ume_retrieval.errors import Failure, ItemWarning, UmeError

MOST_LISTED: Final = 20
"""Failures or warnings that are listed; the others are counted."""


class ExitCode(IntEnum):
    """Exit code of the process."""

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
    """Output channels of a command.

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
        """Print a status line on standard error."""
        self.notes.print(f"[dim]{plain(text)}[/dim]", soft_wrap=True)

    def failures(self, failures: tuple[Failure, ...]) -> None:
        """List items that were left out, one per line."""
        self._list("left out", [(one, _hint(one.hint)) for one in failures])

    def warnings(self, warnings: tuple[ItemWarning, ...]) -> None:
        """List what is not as it should be about items that were used, one per line."""
        self._list("with a warning", [(one, "") for one in warnings])

    def _list(self, title: str, noted: Sequence[tuple[Failure | ItemWarning, str]]) -> None:
        if self.as_json or not noted:
            return
        self.notes.print(f"[yellow]{len(noted)} {title}:[/yellow]")
        for one, hint in noted[:MOST_LISTED]:
            # A message mostly names its file itself.
            name = "" if one.source in one.message else f"{one.source}: "
            self.notes.print(f"  {plain(name + one.message)}{hint}", soft_wrap=True)
        if len(noted) > MOST_LISTED:
            self.notes.print(f"  … and {len(noted) - MOST_LISTED} more (--json names all)")

    @contextmanager
    def progress(self) -> Iterator[Progress]:
        """Bars with rate and time left on standard error; silent without a terminal."""
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


def plain(text: str) -> str:
    r"""Words of files, models and servers for a terminal: on one line, without markup, and nothing in them acts.

    Example:
        >>> print(plain("red\x1b[2J\n[bold]circle"))
        red<U+001B>[2J \[bold]circle
    """
    from ume_retrieval.report.sanitize import escape_control  # costs what `ume --help` does not need

    return escape(" ".join(escape_control(text).splitlines()))


def _hint(hint: str) -> str:
    return f" [dim]({plain(hint)})[/dim]" if hint else ""


def _of_the_system(error: OSError) -> UmeError:
    """A full disk, a folder in place of a file: what no part of the library foresaw is one line too."""
    reason = error.strerror or str(error) or type(error).__name__
    return UmeError(reason if error.filename is None else f"{error.filename}: {reason}")


@contextmanager
def command(*, as_json: bool) -> Iterator[Output]:
    """Run a command's body; an error becomes one line with a hint and an exit code."""
    output = Output(as_json, Console(), Console(stderr=True))
    try:
        yield output
    except BrokenPipeError:
        raise  # the reader closed the pipe: exit silently
    except (UmeError, OSError) as error:
        told = error if isinstance(error, UmeError) else _of_the_system(error)
        if as_json:
            sys.stdout.write(json.dumps({"error": told.code, "message": told.message, "hint": told.hint}) + "\n")
        else:
            output.notes.print(f"[red]error:[/red] {plain(told.message)}{_hint(told.hint)}", soft_wrap=True)
        raise typer.Exit(ExitCode.FAILED) from error
    except KeyboardInterrupt:
        output.notes.print("stopped; the same command goes on from here")
        raise typer.Exit(ExitCode.INTERRUPTED) from None
