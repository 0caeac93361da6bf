"""MMEB-V2's video classification and retrieval: rows that name a video, whose frames lie in a folder of its own."""

from __future__ import annotations

from functools import partial
from pathlib import Path, PurePosixPath

from ume_eval.layouts.building import Building
from ume_eval.layouts.media import VIDEOS, film
from ume_eval.rows import find_rows, read_rows
from ume_eval.samples import EvalTask, Sample
from ume_eval.tasks import Task, classes


def video_class(task: Task, folder: Path, limit: int | None) -> EvalTask:
    """`video_id` and its class `pos_text`, against every class of the data set."""
    building = Building(task, limit)
    for label in classes(task):
        building.candidate(label, partial(Sample, label))
    for row in building.rows(read_rows(find_rows(folder, task))):
        with building.query_row():
            values = row.columns
            label = str(values["pos_text"])
            building.candidate(label, partial(Sample, label))
            building.query(_watched(task, folder, str(values["video_id"])), {label: 1.0})
    return building.done()


def video_choice(task: Task, folder: Path, limit: int | None) -> EvalTask:
    """`video_id`, its class `pos_text`, and the classes to choose from in `neg_text`, the right one among them."""
    building = Building(task, limit)
    for row in building.rows(read_rows(find_rows(folder, task))):
        with building.query_row():
            values = row.columns
            choices = [str(choice) for choice in values["neg_text"]]
            for choice in choices:
                building.candidate(choice, partial(Sample, choice))
            building.query(_watched(task, folder, str(values["video_id"])), {str(values["pos_text"]): 1.0}, choices)
    return building.done()


def text_to_video(task: Task, folder: Path, limit: int | None) -> EvalTask:
    """A caption (the first of several) and its video, against the videos of all rows."""
    building = Building(task, limit)
    video_column, text_column = task.columns
    for row in building.rows(read_rows(find_rows(folder, task))):
        with building.query_row():
            values = row.columns
            text = values[text_column]
            # pyarrow hands out lists, JSON may hold a single caption.
            caption = text[0] if isinstance(text, list) else text
            name = without_suffix(PurePosixPath(str(values[video_column])).name)
            building.candidate(name, partial(_found, task, folder, name))
            building.query(Sample(str(caption), instruction=task.instruction("text")), {name: 1.0})
    return building.done()


def without_suffix(name: str) -> str:
    """A video's name without the suffix of its file, which other dots in it are not.

    Example:
        >>> without_suffix("a.b.mp4"), without_suffix("v_1.5")
        ('a.b', 'v_1.5')
    """
    stem, dot, suffix = name.rpartition(".")
    return stem if dot and f".{suffix.lower()}" in VIDEOS else name


def _watched(task: Task, folder: Path, name: str) -> Sample:
    return Sample(videos=(film(folder / task.media, name),), instruction=task.instruction("video"))


def _found(task: Task, folder: Path, name: str) -> Sample:
    return Sample(videos=(film(folder / task.media, name),), instruction=task.candidate_instruction)
