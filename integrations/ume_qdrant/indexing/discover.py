"""Looking through files and folders, without reading those that the collection holds already."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from ume_qdrant.indexing.plan import Explored, Holdings
from ume_qdrant.reports import OnProgress, Progress
from ume_qdrant.stores.sources import Naming
from ume_retrieval.errors import Failure, InputError, UmeError
from ume_retrieval.media import FoundFile, Limits, display_name, entries, walk
from ume_retrieval.media.files import is_remote


def roots_of(paths: str | Path | Sequence[str | Path]) -> list[str | Path]:
    """Paths as absolute ones, without "..", links left as they are. Addresses stay, to be refused by name.

    Raises:
        InputError: When there is none.
    """
    given = [paths] if isinstance(paths, (str, Path)) else list(paths)
    if not given:
        raise InputError("there is nothing to index", hint="give at least one file or folder")
    # Path.absolute keeps "..", and Path.resolve would name files by where their links lead.
    return [path if is_remote(path) else Path(os.path.abspath(path)) for path in given]  # noqa: PTH100


def explore(
    roots: Sequence[str | Path],
    holdings: Holdings,
    *,
    limits: Limits,
    follow_symlinks: bool,
    leave_out: Sequence[Path],
    naming: Naming,
    on_progress: OnProgress,
) -> Explored:
    """Find what is there; of files whose size and time are known only the first bytes are looked at.

    Args:
        roots: Files and folders, absolute.
        holdings: What the collection holds of them.
        limits: Ceilings on what a file may cost.
        follow_symlinks: Follow links out of the given folders.
        leave_out: Folders to pass over.
        naming: How files are named.
        on_progress: Told of each file.
    """
    explored = Explored()
    own = tuple(display_name(folder) + os.sep for folder in leave_out)
    done = 0
    for found in walk(roots, limits=limits, follow_symlinks=follow_symlinks):
        if found.source.startswith(own):
            continue
        if isinstance(found, FoundFile):
            named = replace(found, source=naming.of(found.source))
            _look(named, holdings, explored, limits)
        else:
            explored.failures.append(naming.of_failure(found))
        done += 1
        on_progress(Progress("discover", done, None, naming.of(found.source)))
    return explored


def _look(found: FoundFile, holdings: Holdings, explored: Explored, limits: Limits) -> None:
    if holdings.is_current(found.source, found.size, found.mtime_ns):
        explored.current.add(found.source)
        return
    segment_s, overlap_s = holdings.cut
    try:
        explored.entries[found.source] = entries(found, limits=limits, segment_s=segment_s, overlap_s=overlap_s)
    except UmeError as error:
        explored.failures.append(Failure.of(error, index=len(explored.failures), source=found.source))
