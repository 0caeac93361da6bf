"""Read the points of a collection that may be damaged, in a process of its own.

Damaged files can make the engine panic, run out of memory or be killed by the system, which no `except` survives.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Final

from ume_qdrant.stores.base import VECTORS, Point
from ume_qdrant.stores.wire import LENGTH, MOST_BYTES, pack, unpack
from ume_retrieval.errors import StoreError

PATIENCE_S: Final = 3600.0
"""Longest time that one folder's engine may take."""


def salvage(folder: Path) -> Iterator[list[Point]]:
    """Yield all points with their vectors, in pages, as far as they can be read.

    Args:
        folder: A collection's folder that only holds copies: the engine writes to its files.

    Raises:
        StoreError: If the engine fails, after the pages that it could read.
    """
    command = [sys.executable, "-m", __name__, str(folder)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    with subprocess.Popen(  # noqa: S603  # this module, run by this interpreter
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment
    ) as process:
        assert process.stdout is not None  # noqa: S101  # a pipe was asked for
        try:
            while (page := _message(process.stdout)) is not None:
                yield page
            _, said = process.communicate(timeout=PATIENCE_S)
        except BaseException:
            process.kill()
            raise
        if process.returncode:
            lines = said.decode("utf-8", "replace").strip().splitlines()
            raise StoreError(lines[-1] if lines else f"the engine's process ended with {process.returncode}")


def _message(pipe: IO[bytes]) -> list[Point] | None:
    head = pipe.read(LENGTH.size)
    if len(head) < LENGTH.size:
        return None
    (length,) = LENGTH.unpack(head)
    data = pipe.read(length) if length <= MOST_BYTES else b""
    if len(data) < length:
        return None
    points: list[Point] = unpack(data)
    return points


def _main(folder: Path) -> None:
    """Write the pages to standard output."""
    from ume_qdrant.stores.edge_engine import read_pages

    for page in read_pages(folder, VECTORS):
        data = pack(page)
        sys.stdout.buffer.write(LENGTH.pack(len(data)) + data)
        sys.stdout.buffer.flush()


if __name__ == "__main__":
    try:
        _main(Path(sys.argv[1]))
    except StoreError as error:
        sys.exit(error.message)
