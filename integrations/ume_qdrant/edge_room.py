"""Room on the disc, looked at before Qdrant Edge writes.

The engine writes through memory maps of files with holes. On a disc that is full, filling a hole kills the whole
process (SIGBUS on Linux), so it must not come to that.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Final

from ume_retrieval.errors import StoreError

ROOM: Final = 64 * 1024**2
"""Free bytes below which nothing is written: two of the engine's 32 MB files."""


def need_room(directory: Path, collection: str) -> None:
    """Refuse to write when the disc is nearly full.

    Raises:
        StoreError: When less than `ROOM` is free.
    """
    there = next((folder for folder in (directory, *directory.absolute().parents) if folder.is_dir()), directory)
    try:
        free = shutil.disk_usage(there).free
    except OSError:  # no answer says nothing about room
        return
    if free < ROOM:
        raise StoreError(
            f"the disc of collection {collection!r} has {free / 1e6:.1f} MB left, and writing needs {ROOM / 1e6:.0f}",
            hint="make room, then give the same command again; what was written stays",
        )
