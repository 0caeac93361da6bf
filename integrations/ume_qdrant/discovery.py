"""Looking through files and folders, without opening those that the collection holds already."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ume_qdrant.points import Cut
from ume_retrieval.errors import Failure, InputError
from ume_retrieval.media import Entry, Limits, discover
from ume_retrieval.media.files import display_name


def roots_of(paths: str | Path | Sequence[str | Path]) -> list[Path]:
    """Paths as absolute ones, without "..", links left as they are.

    Raises:
        InputError: When there is none.
    """
    given = [paths] if isinstance(paths, (str, Path)) else list(paths)
    if not given:
        raise InputError("there is nothing to index", hint="give at least one file or folder")
    # Path.absolute keeps "..", and Path.resolve would name files by where their links lead.
    return [Path(os.path.abspath(path)) for path in given]  # noqa: PTH100
