"""Files that rows name: pictures, folders of frames, videos."""

from __future__ import annotations

import re
from pathlib import Path, PurePosixPath
from typing import Final

from ume_eval.samples import Film
from ume_retrieval.errors import InputError, MediaNotFound
from ume_retrieval.media.files import display_name

FRAMES: Final = 8
"""Frames of a video that a model sees, in both benchmarks."""

FRAME_STEP_S: Final = 0.5
"""Time between sampled frames where the published frames carry none: the 2 fps at which the paper samples videos."""

PICTURES: Final = (".jpg", ".jpeg", ".png")
VIDEOS: Final = (".mp4", ".webm", ".mkv", ".avi", ".mov")


def inside(folder: Path, name: str) -> Path:
    """A path below a folder, as a row names it.

    Raises:
        InputError: When the name is empty or leads out of the folder.

    Example:
        >>> inside(Path("data"), "a/b.png").as_posix()
        'data/a/b.png'
    """
    path = PurePosixPath(name)
    if not name.strip() or path.is_absolute() or ".." in path.parts or "\0" in name:
        raise InputError(f"{name!r} is no path inside the data", hint="check the row")
    return folder / path


def picture(folder: Path, name: str) -> Path:
    """A picture file that exists.

    Raises:
        MediaNotFound: When it does not.
        InputError: When the name leads out of the folder.
    """
    path = inside(folder, name)
    if not path.is_file():
        raise MediaNotFound(f"{display_name(path)} is not there", hint="unpack the benchmark's archives")
    return path


def film(folder: Path, name: str, *, saved_fps: float | None = None) -> Film:
    """A video that is published as a folder of frames, thinned evenly to 8.

    Args:
        folder: Where folders of frames are.
        name: The video's folder.
        saved_fps: Rate at which the frames were saved, when it is known; their times follow from it. Otherwise sampled
            frames stand `FRAME_STEP_S` apart.

    Raises:
        MediaNotFound: When there are no frames.
        InputError: When the name leads out of the folder.
    """
    place = inside(folder, name)
    files = place.iterdir() if place.is_dir() else ()
    frames = sorted((file for file in files if file.suffix.lower() in PICTURES), key=_natural)
    if not frames:
        raise MediaNotFound(f"no frames in {display_name(place)}", hint="unpack the benchmark's archives")
    chosen = evenly(len(frames), FRAMES)
    if saved_fps:
        times, length = tuple(index / saved_fps for index in chosen), len(frames) / saved_fps
    else:
        times, length = tuple(n * FRAME_STEP_S for n in range(len(chosen))), len(chosen) * FRAME_STEP_S
    return Film(tuple(frames[index] for index in chosen), times, length)


def evenly(count: int, most: int) -> list[int]:
    """Positions of at most `most` of `count` things, first and last included (as `numpy.linspace` rounded down).

    Example:
        >>> evenly(64, 8), evenly(3, 8)
        ([0, 9, 18, 27, 36, 45, 54, 63], [0, 1, 2])
    """
    if count <= most:
        return list(range(count))
    return [index * (count - 1) // (most - 1) for index in range(most)]


def _natural(file: Path) -> list[tuple[int, str]]:
    """Sort key under which frame 2 comes before frame 10."""
    return [(int(part), "") if part.isdecimal() else (-1, part.lower()) for part in re.split(r"(\d+)", file.name)]
