"""UVRB: 16 data sets of one format, each with `queries.jsonl`, `corpus.jsonl` and `instances.jsonl`.

As the release of Embed-RL unpacks them (ZoengHN/Embed-RL 87b52f7, eval/uvrb_eval): `jsonl/`, `videos_frames/`,
`videos/` and `images/`. A query has any of `text`, `image` and `video`; a candidate is a video.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any, Final

from ume_eval.layouts.builder import TaskBuilder, film, inside, picture, without_suffix
from ume_eval.rows import RowsNotFound, read_rows
from ume_eval.samples import Film, Sample
from ume_eval.tasks import Task
from ume_retrieval.errors import MediaNotFound
from ume_retrieval.media import display_name

FRAMES_FPS: Final = 8.0
"""Rate at which the release saves the frames in `videos_frames`."""


def uvrb(builder: TaskBuilder, folder: Path) -> None:
    """Read queries of any modality, ranked against the videos of the data set.

    UVRB ranks a query of MS-TI and MS-TV among 10 clips (arXiv 2510.27571, table 4). Where an instance names wrong
    clips in `neg`, it is ranked among them here; otherwise against all clips, as in Embed-RL's release.
    """
    task = builder.task
    place = find_set(folder, task)
    answers: dict[str, dict[str, float]] = {}
    lists: dict[str, list[str]] = {}
    for row in read_rows([place / "jsonl" / "instances.jsonl"]):
        with builder.guard(row.where):
            query, correct = str(row.columns["qid"]), _names(row.columns["pos"])
            answers.setdefault(query, {}).update(dict.fromkeys(correct, 1.0))
            if task.scope == "own" and (wrong := _names(row.columns.get("neg"))):
                lists.setdefault(query, []).extend((*correct, *wrong))

    def read_row(builder: TaskBuilder, values: dict[str, Any]) -> None:
        key = str(values["id"])
        builder.query(_query(task, place, values), answers.get(key, {}), lists.get(key))

    builder.read_queries(read_rows([place / "jsonl" / "queries.jsonl"]), read_row)
    for row in read_rows([place / "jsonl" / "corpus.jsonl"]):
        with builder.guard(row.where):
            name, video = str(row.columns["id"]), str(row.columns["video"])
            if builder.wants(name):
                builder.candidate(name, partial(_candidate, task, place, video))


def find_set(folder: Path, task: Task) -> Path:
    """Find a data set's folder: `NAME`, `UVRB/NAME`, or `NAME/UVRB/NAME` as the archives unpack.

    Raises:
        RowsNotFound: When it is in none of these places.
    """
    name = task.media
    for place in (folder / name, folder / "UVRB" / name, folder / name / "UVRB" / name):
        if (place / "jsonl" / "queries.jsonl").is_file():
            return place
    raise RowsNotFound(
        f"{name}: no jsonl/queries.jsonl in {display_name(folder / name)}",
        hint=f"hf download {task.rows[0]} --repo-type dataset --local-dir {display_name(folder)}, then unpack it",
    )


def _names(value: Any) -> list[str]:
    return [value] if isinstance(value, str) else list(map(str, value or ()))


def _query(task: Task, place: Path, values: dict[str, Any]) -> Sample:
    images = (picture(place / "images", values["image"]),) if values.get("image") else ()
    # As released: a query with both shows only its picture.
    videos = (_video(place, values["video"]),) if values.get("video") and not images else ()
    return Sample(values.get("text") or None, images, videos, task.instruction("text"))


def _candidate(task: Task, place: Path, name: str) -> Sample:
    return Sample(videos=(_video(place, name),), instruction=task.candidate_instruction)


def _video(place: Path, name: str) -> Film | Path:
    """Return a video's saved frames, or its file."""
    try:
        return film(place / "videos_frames", without_suffix(name), saved_fps=FRAMES_FPS)
    except MediaNotFound:
        if (path := inside(place / "videos", name)).is_file():
            return path
        raise
