"""MMEB-V2's visual documents: queries, pages and graded judgements in BEIR format (ViDoRe, VisRAG, ViDoSeek, …).

Three configurations of one repository: `queries` (`query-id`, `query`), `corpus` (`corpus-id`, `image`) and `qrels`
(`query-id`, `corpus-id`, `score`). Pages are read from the published folder of pictures, or from the corpus itself.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any

from ume_eval.layouts.builder import TaskBuilder, inside
from ume_eval.rows import PictureCell, find_rows, picture_cells, read_rows
from ume_eval.samples import Sample
from ume_eval.tasks import Task
from ume_retrieval.errors import InputError

NAME_LETTERS = 50
"""Characters of a page's name that are kept where VisRAG's file names would be too long; a digest is appended."""


def pages(builder: TaskBuilder, folder: Path) -> None:
    """Read questions over pages, some with several relevant pages and with grades."""
    task = builder.task
    gains = _judgements(builder, find_rows(folder, task, "qrels"))

    def read_row(builder: TaskBuilder, values: dict[str, Any]) -> None:
        sample = Sample(values["query"], instruction=task.instruction("text"))
        builder.query(sample, gains.get(str(values["query-id"]), {}))

    builder.read_queries(read_rows(find_rows(folder, task, "queries")), read_row)
    for file in find_rows(folder, task, "corpus"):
        for key, cell in picture_cells(file, "corpus-id"):
            if builder.wants(str(key)):
                builder.candidate(str(key), partial(_page, task, builder.media, str(key), cell))


def _judgements(builder: TaskBuilder, files: Sequence[Path]) -> dict[str, dict[str, float]]:
    """Read gains > 0 by query and page; the highest counts where a pair is judged twice."""
    judged: dict[str, dict[str, float]] = {}
    for row in read_rows(files):
        with builder.guard(row.where):
            query, page = str(row.columns["query-id"]), str(row.columns["corpus-id"])
            gain = float(row.columns["score"])
            if 0 < gain < float("inf"):
                pages_of = judged.setdefault(query, {})
                pages_of[page] = max(gain, pages_of.get(page, 0.0))
    return judged


def _page(task: Task, media: Path, name: str, cell: PictureCell) -> Sample:
    for file in (f"{name}.png", short_name(name)):
        try:
            path = inside(media, file)
            is_there = path.is_file()
        except (InputError, OSError):  # OSError: the name may be too long for the file system
            continue
        if is_there:
            return Sample(images=(path,), instruction=task.candidate_instruction)
    return Sample(images=(cell,), instruction=task.candidate_instruction)


def short_name(name: str) -> str:
    """Return the file name of a VisRAG page, as the published code shortens it.

    Example:
        >>> short_name("a page.png")
        'a page_d233a83b.png'
    """
    path = PurePosixPath(name)
    digest = hashlib.md5(name.encode(), usedforsecurity=False).hexdigest()[:8]
    return f"{name.removesuffix(path.suffix)[:NAME_LETTERS]}_{digest}{path.suffix}"
