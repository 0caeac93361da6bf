"""A training loop that can be killed: batch n depends on the seed and n alone, and state is saved as it goes."""

from __future__ import annotations

import math
import random
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from ume_retrieval.util.files import atomic_path
from ume_training.run_folder import LOG, append_lines, rewind_log

STATE = "state.pt"


@dataclass(frozen=True, slots=True)
class Schedule:
    """How long and how fast to learn.

    Attributes:
        steps: Optimizer steps, > 0.
        learning_rate: Peak of the cosine, reached after warm-up.
        warmup: Steps of linear warm-up.
        floor: Last learning rate as a share of the peak, 0..1.
        weight_decay: Of AdamW.
        save_every: Steps between saved states.
        log_every: Steps between log lines.
    """

    steps: int
    learning_rate: float
    warmup: int = 50
    floor: float = 0.05
    weight_decay: float = 0.01
    save_every: int = 100
    log_every: int = 25

    def rate(self, step: int) -> float:
        """Learning rate of a step, counted from 0.

        Example:
            >>> schedule = Schedule(steps=100, learning_rate=1.0, warmup=10)
            >>> schedule.rate(0), round(schedule.rate(10), 2), round(schedule.rate(100), 2)
            (0.1, 0.98, 0.05)
        """
        cosine = 0.5 * (1 + math.cos(math.pi * min(1.0, step / self.steps)))
        return self.learning_rate * min(1.0, (step + 1) / self.warmup) * (self.floor + (1 - self.floor) * cosine)


Step = Callable[[random.Random], tuple[Any, Mapping[str, float]]]
"""Draws a batch with the generator given and returns the loss and figures to log."""


def fit(model: Any, step: Step, schedule: Schedule, *, folder: Path, name: str, seed: int) -> None:
    """Train until the schedule ends, going on from the saved state in `folder` when there is one.

    Args:
        model: A torch module; all of its parameters that require a gradient are trained.
        step: Computes the loss of a batch.
        schedule: Steps and learning rates.
        folder: Where state and log are kept.
        name: Label of the progress bar.
        seed: Together with the step's number it fixes each batch.
    """
    import torch

    folder.mkdir(parents=True, exist_ok=True)
    weights = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(
        weights, lr=schedule.learning_rate, weight_decay=schedule.weight_decay, betas=(0.9, 0.98)
    )
    done = _restore(model, optimizer, folder)
    rewind_log(folder, done)
    recent: list[dict[str, float]] = []
    started, first = time.monotonic(), done
    columns = (
        TextColumn(name),
        BarColumn(),
        TextColumn("{task.completed}/{task.total}  {task.fields[note]}"),
    )
    # Standard output is for results.
    screen = Console(stderr=True)
    with Progress(*columns, TimeElapsedColumn(), TimeRemainingColumn(), console=screen) as progress:
        bar = progress.add_task(name, total=schedule.steps, completed=done, note="")
        while done < schedule.steps:
            for group in optimizer.param_groups:
                group["lr"] = schedule.rate(done)
            loss, figures = step(random.Random(f"{seed}/{name}/{done}"))
            loss.backward()
            torch.nn.utils.clip_grad_norm_(weights, 1.0)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            done += 1
            recent.append({"loss": loss.item(), **figures})
            if done % schedule.log_every == 0 or done == schedule.steps:
                means = _means(recent)
                recent.clear()
                rate = (done - first) / (time.monotonic() - started)
                append_lines(folder / LOG, [{"step": done, **means, "steps_per_s": round(rate, 3)}])
                progress.update(bar, note=" ".join(f"{k} {v:.3f}" for k, v in list(means.items())[:4]))
            progress.update(bar, completed=done)
            if done % schedule.save_every == 0 or done == schedule.steps:
                _save(model, optimizer, folder, done)


def _means(rows: list[dict[str, float]]) -> dict[str, float]:
    names = dict.fromkeys(name for row in rows for name in row)
    values = {name: [row[name] for row in rows if name in row] for name in names}
    return {name: round(sum(column) / len(column), 4) for name, column in values.items()}


def _save(model: Any, optimizer: Any, folder: Path, done: int) -> None:
    import torch

    with atomic_path(folder / STATE, what="the training state") as part:
        torch.save({"model": model.state_dict(), "optimizer": optimizer.state_dict(), "step": done}, part)


def _restore(model: Any, optimizer: Any, folder: Path) -> int:
    import torch

    if not (folder / STATE).is_file():
        return 0
    state = torch.load(folder / STATE, weights_only=True)
    model.load_state_dict(state["model"])
    optimizer.load_state_dict(state["optimizer"])
    return int(state["step"])
