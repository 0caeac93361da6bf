"""Readers: a published layout on disk becomes an `EvalTask`, with every broken row and missing file by name."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Final, TypeAlias

from ume_eval.layouts import documents, images, moments, questions, universal, videos
from ume_eval.samples import EvalTask
from ume_eval.tasks import Task
from ume_retrieval.errors import InputError

Reader: TypeAlias = Callable[[Task, Path, int | None], EvalTask]
"""Reads a task from the benchmark's folder, at most so many queries."""

READERS: Final[dict[str, Reader]] = {
    "image_to_text": images.image_to_text,
    "text_to_image": images.text_to_image,
    "image_to_image": images.image_to_image,
    "video_class": videos.video_class,
    "video_choice": videos.video_choice,
    "text_to_video": videos.text_to_video,
    "mvbench": questions.mvbench,
    "video_mme": questions.video_mme,
    "nextqa": questions.nextqa,
    "egoschema": questions.egoschema,
    "activitynet_qa": questions.activitynet_qa,
    "moment": moments.moment,
    "momentseeker": moments.momentseeker,
    "pages": documents.pages,
    "uvrb": universal.uvrb,
}
"""By the name that `data/*.json` gives a layout."""


def read_task(task: Task, folder: str | Path, *, limit: int | None = None) -> EvalTask:
    """Read one task.

    Args:
        task: From `tasks.choose`.
        folder: The benchmark's folder: `image-tasks`, `video-tasks` and `visdoc-tasks` for MMEB-V2, one folder a data
            set for UVRB.
        limit: Most queries, for a smoke run. A common corpus is then cut to the answers and as many others.

    Raises:
        RowsNotFound: When the task is not in the folder.
        InputError: When its files cannot be read, or `limit` is below 1.
    """
    if limit is not None and limit < 1:
        raise InputError(f"the limit is {limit}", hint="use 1 or more")
    return READERS[task.layout](task, Path(folder), limit)
