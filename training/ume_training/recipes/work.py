"""What a stage is run with, and what it hands back."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias, cast

from ume_training.recipes.schema import Recipe
from ume_training.recipes.workers import Workers

LOG = "log.jsonl"


@dataclass(frozen=True, slots=True)
class Work:
    """What a stage is run with.

    Attributes:
        recipe: Whose seed and data hold.
        run: Folder of the run.
        folder: Folder of the stage.
        workers: The processes of this launch.
    """

    recipe: Recipe
    run: Path
    folder: Path
    workers: Workers


@dataclass(frozen=True, slots=True)
class Made:
    """What a stage made.

    Attributes:
        outputs: Files and folders by the part that follows the slash of `stage:NAME/part`.
        figures: What it has to tell, for stamps and reports.
    """

    outputs: Mapping[str, Path]
    figures: Mapping[str, Any] = field(default_factory=dict)


def last_figures(log: Path) -> dict[str, Any]:
    """The last line of a log of figures; nothing where there is none."""
    lines = log.read_text(encoding="utf-8").splitlines() if log.is_file() else []
    return cast("dict[str, Any]", json.loads(lines[-1])) if lines else {}


Tell: TypeAlias = Callable[[int, int | None, Mapping[str, float]], None]
"""Told what is done, of how much where that is known, and figures."""


@contextmanager
def bar(name: str, work: Work) -> Iterator[Tell]:
    """A bar on standard error, on the main process alone; yields what moves it."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    console = Console(stderr=True)
    columns = (TextColumn(name), BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[note]}"))
    watched = work.workers.main and console.is_terminal
    with Progress(*columns, TimeRemainingColumn(), console=console, disable=not watched) as progress:
        task = progress.add_task(name, total=None, note="")

        def tell(done: int, total: int | None, figures: Mapping[str, float]) -> None:
            note = " ".join(f"{key} {value:.3f}" for key, value in list(figures.items())[:4])
            progress.update(task, completed=done, total=total, note=note)

        yield tell
