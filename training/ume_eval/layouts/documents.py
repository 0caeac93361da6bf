"""MMEB-V2's visual documents: queries, pages and graded judgements in the BEIR form (ViDoRe, VisRAG, ViDoSeek, …).

Three configurations of one repository: `queries` (`query-id`, `query`), `corpus` (`corpus-id`, `image`) and `qrels`
(`query-id`, `corpus-id`, `score`). Pages are read from the published folder of pictures, or from the corpus itself.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from functools import partial
from pathlib import Path, PurePosixPath

from ume_eval.layouts.building import Building
from ume_eval.layouts.media import inside
from ume_eval.rows import PictureCell, find_rows, picture_cells, read_rows
from ume_eval.samples import EvalTask, Sample
from ume_eval.tasks import Task
from ume_retrieval.errors import InputError

NAME_LETTERS = 50
"""So much of a page's name stays in its file's name where VisRAG's names are too long; a digest tells them apart."""


def pages(task: Task, folder: Path, limit: int | None) -> EvalTask:
    """Questions over pages, some with several right pages and with grades."""
    building = Building(task, limit)
    judged = _judgements(building, find_rows(folder, task, "qrels"))
    for row in building.rows(read_rows(find_rows(folder, task, "queries"))):
        with building.query_row():
            values = row.columns
            sample = Sample(values["query"], instruction=task.instruction("text"))
            building.query(sample, judged.get(str(values["query-id"]), {}))
    media = folder / task.media
    for file in find_rows(folder, task, "corpus"):
        for key, cell in picture_cells(file, "corpus-id"):
            name = str(key)
            if building.wants(name):
                building.candidate(name, partial(_page, task, media, name, cell))
    return building.done()


def _judgements(building: Building, files: Sequence[Path]) -> dict[str, dict[str, float]]:
    """Gains > 0 by query and page; the highest counts where a pair is judged twice."""
    judged: dict[str, dict[str, float]] = {}
    for row in read_rows(files):
        with building.other_row(row.where):
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
        except (InputError, OSError):  # OSError: the whole name may be longer than a file system takes
            continue
        if is_there:
            return Sample(images=(path,), instruction=task.candidate_instruction)
    return Sample(images=(cell,), instruction=task.candidate_instruction)


def short_name(name: str) -> str:
    """File name of a VisRAG page, as the published code shortens it.

    Example:
        >>> short_name("a page.png")
        'a page_d233a83b.png'
    """
    path = PurePosixPath(name)
    digest = hashlib.md5(name.encode(), usedforsecurity=False).hexdigest()[:8]
    return f"{name.removesuffix(path.suffix)[:NAME_LETTERS]}_{digest}{path.suffix}"
