"""Context of a stage: its recipe, folders and processes, its progress bar, and the form of its result."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any, Self

from ume_retrieval.errors import MissingExtra
from ume_retrieval.util.progress import OnProgress, Progress
from ume_training.recipes.schema import Recipe

PATIENCE = timedelta(days=30)
"""How long processes wait while the main one makes a stage alone."""


def is_main_process() -> bool:
    """Return whether this is the only process of a launch, or its first."""
    return os.environ.get("RANK", "0") == "0"


class Workers:
    """The processes of a launch.

    Attributes:
        main: Whether this is the first one, which alone writes stamps and runs the stages of a single process.
        count: How many there are.
    """

    def __init__(self, *, main: bool, count: int, waiting: Any) -> None:
        self.main, self.count, self._waiting = main, count, waiting

    @classmethod
    def joined(cls) -> Self:
        """Join the processes that `accelerate launch` or `torchrun` started; alone without them.

        The main process may work alone for hours while the others wait, longer than collectives on GPUs allow, so they
        wait in a group of their own, on the CPU.
        """
        if int(os.environ.get("WORLD_SIZE", "1")) == 1:
            return cls(main=True, count=1, waiting=None)
        try:
            from accelerate import PartialState
        except ImportError as error:
            raise MissingExtra(
                "several processes need accelerate", hint="pip install 'ume-retrieval[train]'"
            ) from error
        import torch.distributed

        state = PartialState()
        waiting = torch.distributed.new_group(backend="gloo", timeout=PATIENCE)
        return cls(main=state.is_main_process, count=state.num_processes, waiting=waiting)

    def broadcast(self, value: Any) -> Any:
        """Return the main process's value in every process; all wait for it.

        Example:
            >>> Workers(main=True, count=1, waiting=None).broadcast("go")
            'go'
        """
        if self.count == 1:
            return value
        import torch.distributed

        box = [value]
        torch.distributed.broadcast_object_list(box, src=0, group=self._waiting)
        return box[0]

    def leave(self) -> None:
        """Part from the other processes, at the end."""
        if self.count > 1:
            import torch.distributed

            torch.distributed.destroy_process_group()

    def barrier(self) -> None:
        """Wait until every process is here."""
        if self.count > 1:
            import torch.distributed

            torch.distributed.barrier(group=self._waiting)


@dataclass(frozen=True, slots=True)
class StageContext:
    """Recipe, folders and processes of a stage.

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
class StageOutput:
    """Result of a stage.

    Attributes:
        outputs: Files and folders by the part that follows the slash of `stage:NAME/part`.
        figures: What it has to tell, for stamps and reports.
    """

    outputs: Mapping[str, Path]
    figures: Mapping[str, Any] = field(default_factory=dict)


@contextmanager
def progress_bar(name: str, context: StageContext) -> Iterator[OnProgress]:
    """Show a progress bar on standard error, on the main process alone; yield the function that moves it."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as Bars

    console = Console(stderr=True)
    columns = (TextColumn(name), BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[note]}"))
    watched = context.workers.main and console.is_terminal
    with Bars(*columns, TimeRemainingColumn(), console=console, disable=not watched) as bars:
        task = bars.add_task(name, total=None, note="")

        def show(step: Progress) -> None:
            note = " ".join(f"{key} {value:.3f}" for key, value in list(step.figures.items())[:4])
            bars.update(task, completed=step.done, total=step.total, note=note)

        yield show
