"""Read published layouts from disk into `EvalTask`s, naming every broken row and missing file."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Final, TypeAlias

from ume_eval.layouts import documents, images, questions, uvrb, videos
from ume_eval.layouts.builder import RowReader, TaskBuilder
from ume_eval.rows import find_rows, read_rows
from ume_eval.samples import EvalTask
from ume_eval.tasks import Task
from ume_retrieval.errors import InputError

Reader: TypeAlias = Callable[[TaskBuilder, Path], None]
"""Fills a builder from the benchmark's folder."""


def _by_row(read_row: RowReader) -> Reader:
    """Make a reader of a layout whose rows are queries that name their candidates."""
    return lambda builder, folder: builder.read_queries(read_rows(find_rows(folder, builder.task)), read_row)


READERS: Final[dict[str, Reader]] = {
    "image_to_text": _by_row(images.image_to_text),
    "text_to_image": _by_row(images.to_images),
    "image_to_image": _by_row(images.to_images),
    "video_class": videos.video_class,
    "video_choice": _by_row(videos.video_choice),
    "text_to_video": _by_row(videos.text_to_video),
    "moment": _by_row(videos.moment),
    "momentseeker": _by_row(videos.momentseeker),
    "mvbench": questions.mvbench,
    "video_mme": _by_row(questions.video_mme),
    "nextqa": _by_row(questions.nextqa),
    "egoschema": _by_row(questions.egoschema),
    "activitynet_qa": _by_row(questions.activitynet_qa),
    "pages": documents.pages,
    "uvrb": uvrb.uvrb,
}
"""Readers by the layout names in `data/*.json`."""


def read_task(task: Task, folder: str | Path, *, limit: int | None = None) -> EvalTask:
    """Read one task.

    Args:
        task: From `tasks.choose`.
        folder: The benchmark's folder, with `image-tasks`, `video-tasks` and `visdoc-tasks` for MMEB-V2, and one folder
            per data set for UVRB.
        limit: Most queries, for a smoke run; a common corpus is then cut to the answers and as many distractors.

    Raises:
        RowsNotFound: When the task is not in the folder.
        InputError: When its files cannot be read, or `limit` is below 1.
    """
    if limit is not None and limit < 1:
        raise InputError(f"the limit is {limit}", hint="use 1 or more")
    builder = TaskBuilder(task, Path(folder), limit)
    READERS[task.layout](builder, Path(folder))
    return builder.done()
