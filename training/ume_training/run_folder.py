"""Files of a training run: JSONL logs, settings that a resumed run must share, and folders that appear complete."""

from __future__ import annotations

import json
import shutil
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from ume_retrieval.errors import InputError, TrainingError
from ume_retrieval.util.files import atomic_write, display_name

LOG = "log.jsonl"
"""Name of a run's log: one JSON object per line, with its `step`."""


def make_folder(folder: Path) -> None:
    """Create a folder and its parents; an existing folder is kept.

    Raises:
        TrainingError: If a file is in the way.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError) as error:
        raise TrainingError(f"{display_name(folder)} is not a folder", hint="name another place") from error


@contextmanager
def atomic_folder(out: Path, *, replace: bool) -> Iterator[Path]:
    """Yield an empty folder that takes the place of `out` once the block succeeds, and is removed if it fails.

    Raises:
        InputError: If `out` is not empty and `replace` is not set.
    """
    if out.exists() and not replace and (not out.is_dir() or any(out.iterdir())):
        raise InputError(f"{out} is not empty", hint="name another folder, or ask for it to be replaced")
    part, old = out.with_name(out.name + ".part"), out.with_name(out.name + ".old")
    make_folder(out.parent)
    for left_over in (part, old):
        shutil.rmtree(left_over, ignore_errors=True)
    part.mkdir()
    try:
        yield part
    except BaseException:
        shutil.rmtree(part, ignore_errors=True)
        raise
    if out.exists():
        out.rename(old)
    part.rename(out)
    shutil.rmtree(old, ignore_errors=True)


def changed_settings(before: Mapping[str, Any], now: Mapping[str, Any], *, free: Collection[str] = ()) -> list[str]:
    """List the settings whose values differ between an earlier run and this one.

    Args:
        before: Of the earlier run.
        now: Of this run.
        free: Settings that may change.

    Example:
        >>> changed_settings({"seed": 1, "workers": 2}, {"seed": 2, "workers": 4}, free={"workers"})
        ['seed']
    """
    return [name for name in now if name not in free and before.get(name) != now[name]]


def append_lines(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """Append one line per row to a JSONL file."""
    with path.open("a", encoding="utf-8") as file:
        file.write("".join(json.dumps(row) + "\n" for row in rows))


def read_lines(path: Path) -> list[dict[str, Any]]:
    """Read the lines of a JSONL file, without those cut off by a kill; no lines if the file does not exist."""
    rows = []
    for line in path.read_text(encoding="utf-8").splitlines() if path.is_file() else ():
        with suppress(ValueError, RecursionError):
            rows.append(json.loads(line))
    return rows


def rewind_log(folder: Path, step: int) -> list[dict[str, Any]]:
    """Remove log lines after a step, which a resumed run writes again, and return those that are left."""
    path = folder / LOG
    kept = [row for row in read_lines(path) if row["step"] <= step]
    # Several processes may do this at the same time; each reads complete lines.
    if path.is_file():
        atomic_write(path, "".join(json.dumps(row) + "\n" for row in kept), what="the log")
    return kept


def last_line(path: Path) -> dict[str, Any]:
    """Read the last line of a JSONL log, or an empty value if it has none."""
    return (read_lines(path) or [{}])[-1]
