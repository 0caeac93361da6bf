"""MMEB-V2's moment retrieval: which clip of a video shows what is described."""

from __future__ import annotations

from functools import partial
from pathlib import Path, PurePosixPath

from ume_eval.layouts.building import Building
from ume_eval.layouts.media import VIDEOS, film, inside, picture
from ume_eval.layouts.videos import without_suffix
from ume_eval.rows import find_rows, read_rows
from ume_eval.samples import EvalTask, Sample
from ume_eval.tasks import Task
from ume_retrieval.errors import MediaNotFound
from ume_retrieval.media.files import display_name


def moment(task: Task, folder: Path, limit: int | None) -> EvalTask:
    """`query` and `video_path`; the video's folder holds the frames of the whole video, `query`, and of each clip.

    The clip whose folder begins with `positive` is right. The published code takes clips in the order in which the
    file system lists them; here they are sorted by name.
    """
    building = Building(task, limit)
    media = folder / task.media
    for row in building.rows(read_rows(find_rows(folder, task))):
        with building.query_row():
            values = row.columns
            name = without_suffix(PurePosixPath(values["video_path"]).name)
            sample = Sample(
                values["query"], videos=(film(media, f"{name}/query"),), instruction=task.instruction("video")
            )
            clips = _clips(inside(media, name), name)
            for clip in clips:
                building.candidate(clip, partial(_clip, task, media, clip))
            right = [clip for clip in clips if clip.rpartition("/")[2].startswith("positive")]
            building.query(sample, dict.fromkeys(right, 1.0), clips)
    return building.done()


def momentseeker(task: Task, folder: Path, limit: int | None) -> EvalTask:
    """`query` with a picture, a video or nothing in `input_frames`; clips that are right and clips that are not."""
    building = Building(task, limit)
    media = folder / task.media
    for row in building.rows(read_rows(find_rows(folder, task))):
        with building.query_row():
            values = row.columns
            right = [frames_of(one["output_path"]) for one in values["positive_frames"]]
            wrong = [frames_of(one["output_path"]) for one in values["negative_frames"]]
            for clip in (*right, *wrong):
                building.candidate(clip, partial(_clip, task, media, clip))
            sample = _seeking(task, media, values["query"], str(values["input_frames"] or ""))
            building.query(sample, dict.fromkeys(right, 1.0), (*right, *wrong))
    return building.done()


def frames_of(path: str) -> str:
    """Folder of a clip's frames, as MomentSeeker flattens its path.

    Example:
        >>> frames_of("movie/7/clip_1.mp4")
        'video_frames/movie_7_clip_1'
    """
    return "video_frames/" + path.partition(".mp4")[0].replace("/", "_")


def _seeking(task: Task, media: Path, text: str, seen: str) -> Sample:
    if seen.lower().endswith(VIDEOS):
        return Sample(text, videos=(film(media, frames_of(seen)),), instruction=task.instruction("video"))
    if seen.lower().endswith(".jpg"):
        return Sample(text, (picture(media, f"query_{seen}"),), instruction=task.instruction("image"))
    return Sample(text, instruction=task.instruction("text"))


def _clip(task: Task, media: Path, name: str) -> Sample:
    return Sample(videos=(film(media, name),), instruction=task.candidate_instruction)


def _clips(place: Path, name: str) -> list[str]:
    if not place.is_dir():
        raise MediaNotFound(f"{display_name(place)} is not there", hint="unpack the benchmark's archives")
    return [f"{name}/{clip.name}" for clip in sorted(place.iterdir()) if clip.is_dir() and clip.name != "query"]
