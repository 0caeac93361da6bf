"""Append to the JSONL log of a training run, and rewind it to the step that a run resumes at."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from ume_retrieval.util.files import atomic_write

LOG = "log.jsonl"


def rewind_log(folder: Path, step: int) -> list[dict[str, Any]]:
    """Take back lines after a step, and a torn last one: a run that goes on writes them again. Returns what is left."""
    path, kept = folder / LOG, list[dict[str, Any]]()
    if not path.is_file():
        return kept
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            row = json.loads(line)
        except ValueError:
            break
        if row["step"] <= step:
            kept.append(row)
    # Several processes may do this at the same time, and each reads whole lines.
    atomic_write(path, "".join(json.dumps(row) + "\n" for row in kept), what="the log")
    return kept
