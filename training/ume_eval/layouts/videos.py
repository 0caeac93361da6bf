"""MMEB-V2's video classification, video retrieval and moment retrieval; the frames of a video are in a folder."""

from __future__ import annotations

from pathlib import Path, PurePosixPath
from typing import Any

from ume_eval.layouts.builder import VIDEOS, TaskBuilder, film, inside, picture, without_suffix
from ume_eval.rows import find_rows, read_rows
from ume_eval.samples import Sample
from ume_eval.tasks import classes
from ume_retrieval.errors import MediaNotFound
from ume_retrieval.media import display_name


def video_class(builder: TaskBuilder, folder: Path) -> None:
    """Read `video_id` and its class `pos_text`, ranked against every class of the data set."""

    def read_row(builder: TaskBuilder, values: dict[str, Any]) -> None:
        label = str(values["pos_text"])
        builder.texts([label])
        builder.query(_video(builder, str(values["video_id"])), {label: 1.0})

    builder.texts(classes(builder.task))
    builder.read_queries(read_rows(find_rows(folder, builder.task)), read_row)


def video_choice(builder: TaskBuilder, values: dict[str, Any]) -> None:
    """Read `video_id`, its class `pos_text`, and all classes to choose from, that one included, in `neg_text`."""
    choices = [str(choice) for choice in values["neg_text"]]
    builder.texts(choices)
    builder.query(_video(builder, str(values["video_id"])), {str(values["pos_text"]): 1.0}, choices)


def text_to_video(builder: TaskBuilder, values: dict[str, Any]) -> None:
    """Read a caption (the first of several) and its video, ranked against the videos of all rows."""
    video_column, text_column = builder.task.columns
    text = values[text_column]
    caption = text[0] if isinstance(text, list) else text  # pyarrow returns lists, JSON may hold a single caption
    name = without_suffix(PurePosixPath(str(values[video_column])).name)
    builder.films([name])
    builder.query(Sample(str(caption), instruction=builder.task.instruction("text")), {name: 1.0})


def moment(builder: TaskBuilder, values: dict[str, Any]) -> None:
    """Read `query` and `video_path`; the video's folder holds frames of the whole video, `query`, and of each clip.

    The clip whose folder begins with `positive` is correct. The published code takes clips in the order of the file
    system; here they are sorted by name.
    """
    name = without_suffix(PurePosixPath(values["video_path"]).name)
    sample = _video(builder, f"{name}/query", values["query"])
    place = inside(builder.media, name)
    if not place.is_dir():
        raise MediaNotFound(f"{display_name(place)} not found", hint="unpack the benchmark's archives")
    folders = sorted(clip.name for clip in place.iterdir() if clip.is_dir() and clip.name != "query")
    clips = [f"{name}/{folder}" for folder in folders]
    builder.films(clips)
    correct = [f"{name}/{folder}" for folder in folders if folder.startswith("positive")]
    builder.query(sample, dict.fromkeys(correct, 1.0), clips)


def momentseeker(builder: TaskBuilder, values: dict[str, Any]) -> None:
    """Read `query` with a picture, a video or nothing in `input_frames`, and clips that are correct or wrong."""
    correct = [frames_of(one["output_path"]) for one in values["positive_frames"]]
    clips = [*correct, *(frames_of(one["output_path"]) for one in values["negative_frames"])]
    builder.films(clips)
    text, shown = values["query"], str(values["input_frames"] or "")
    if shown.lower().endswith(VIDEOS):
        sample = _video(builder, frames_of(shown), text)
    elif shown.lower().endswith(".jpg"):
        image = picture(builder.media, f"query_{shown}")
        sample = Sample(text, (image,), instruction=builder.task.instruction("image"))
    else:
        sample = Sample(text, instruction=builder.task.instruction("text"))
    builder.query(sample, dict.fromkeys(correct, 1.0), clips)


def frames_of(path: str) -> str:
    """Return the folder of a clip's frames, as MomentSeeker flattens its path.

    Example:
        >>> frames_of("movie/7/clip_1.mp4")
        'video_frames/movie_7_clip_1'
    """
    return "video_frames/" + path.partition(".mp4")[0].replace("/", "_")


def _video(builder: TaskBuilder, name: str, text: str | None = None) -> Sample:
    """Return a query that shows a video."""
    return Sample(text, videos=(film(builder.media, name),), instruction=builder.task.instruction("video"))
