"""Log lines, skipped pairs and complete checkpoints of a contrastive run."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ume_retrieval.util.files import atomic_write
from ume_training.contrastive.shards import Broken
from ume_training.run_folder import LOG, append_lines, read_lines, rewind_log

ADAPTER_FILE = "adapter_model.safetensors"
"""Adapters, as peft calls the file."""

ROW_FILE = "emb_row.safetensors"
"""The pooled token's row of the embedding matrix, if it was trained in addition to adapters."""
SKIPPED, CHECKPOINTS, WHOLE = "skipped.jsonl", "checkpoints", "whole.json"


class Log:
    """Means over the steps since the last line; their partial sums travel with the checkpoint.

    Args:
        folder: Of the run.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._sums: dict[str, tuple[float, int]] = {}

    def add(self, figures: Mapping[str, float]) -> None:
        """Count one step's figures; a figure that it lacks is not counted as zero."""
        for name, value in figures.items():
            total, count = self._sums.get(name, (0.0, 0))
            self._sums[name] = (total + value, count + 1)

    def write(self, step: int, more: Mapping[str, float]) -> dict[str, float]:
        """Append a line with the means and begin anew; returns the line."""
        means = {name: round(total / count, 6) for name, (total, count) in self._sums.items()}
        line = {"step": step, **means, **more}
        self._sums.clear()
        append_lines(self._folder / LOG, [line])
        return line

    def lines(self) -> list[dict[str, Any]]:
        """Return all lines that are written."""
        return read_lines(self._folder / LOG)

    def state(self) -> dict[str, Any]:
        """Return the partial sums, for a checkpoint."""
        return {"sums": {name: list(pair) for name, pair in self._sums.items()}}

    def resume(self, step: int, state: Mapping[str, Any]) -> None:
        """Go on from a checkpoint of `step`: later lines, and a line that was cut off, are forgotten."""
        self._sums = {name: (float(total), int(count)) for name, (total, count) in state.get("sums", {}).items()}
        rewind_log(self._folder, step)


class Skipped:
    """Pairs that could not be used, each named once over all passes and all processes of one machine.

    Args:
        folder: Of the run.
    """

    def __init__(self, folder: Path) -> None:
        self._path = folder / SKIPPED
        self._known = {(line["dataset"], line["row"]) for line in read_lines(self._path)}

    def add(self, broken: Iterable[Broken]) -> None:
        """Name pairs that are not named yet."""
        new = {(one.dataset, one.row): one for one in broken if (one.dataset, one.row) not in self._known}
        self._known |= new.keys()
        append_lines(self._path, map(asdict, new.values()))


def skipped_pairs(folder: Path) -> list[dict[str, Any]]:
    """Return pairs that a run has left out, as `skipped.jsonl` names them, each once."""
    return list({(line["dataset"], line["row"]): line for line in read_lines(folder / SKIPPED)}.values())


def newest_checkpoint(folder: Path) -> Path | None:
    """Return the newest checkpoint of a run that was written to its end, or None."""
    marked = [path.parent for path in (folder / CHECKPOINTS).glob(f"checkpoint-*/{WHOLE}")]
    return max(marked, key=lambda path: int(path.name.rpartition("-")[2]), default=None)


def drop_broken_checkpoints(folder: Path) -> None:
    """Remove checkpoints that a kill cut off while they were written."""
    for path in (folder / CHECKPOINTS).glob("checkpoint-*"):
        if not (path / WHOLE).is_file():
            shutil.rmtree(path)


def mark_whole(checkpoint: Path, log: Log) -> None:
    """Say that a checkpoint is complete; the last thing that is written of it."""
    atomic_write(checkpoint / WHOLE, json.dumps(log.state()), what="the checkpoint")
