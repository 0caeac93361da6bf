"""An open video as all decoders present it: its properties, and the frames at given times."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import PIL.Image

from ume_retrieval.errors import MediaTooLarge
from ume_retrieval.media.limits import Limits

DAMAGED_HINT = "copy, download or encode the video again"


@dataclass(frozen=True, slots=True)
class VideoInfo:
    """Properties of a video file.

    Attributes:
        width: Width of an upright frame in pixels.
        height: Height of an upright frame in pixels.
        duration_s: Seconds from the first frame to the end of the last one, > 0.
        fps: Frames a second on average; 0.0 when the file does not say.
        format: Container format, a name of `formats.FORMATS`.
        codec: libav's name of the codec ("h264", "vp9").
        warnings: What the user should know though the video can be used, one line each: a file that is cut short.
    """

    width: int
    height: int
    duration_s: float
    fps: float
    format: str
    codec: str
    warnings: tuple[str, ...] = ()


class Film(Protocol):
    """An open video; times are seconds from its first frame."""

    @property
    def info(self) -> VideoInfo:
        """Properties of the file."""
        ...

    @property
    def peculiarity(self) -> str | None:
        """What keeps other decoders than PyAV from showing this film as it is meant; None for a plain film."""
        ...

    @property
    def has_open_groups(self) -> bool:
        """Whether seeking to a keyframe leaves frames on screen before it that need an earlier one to decode."""
        ...

    @property
    def origin_s(self) -> float:
        """The file's own time of its first frame in seconds."""
        ...

    def frames_at(self, times_s: Sequence[float]) -> list[PIL.Image.Image]:
        """Return the frame that is on screen at each time, as upright RGB.

        Args:
            times_s: Seconds, ascending.

        Raises:
            BrokenMedia: When a frame does not decode.
            MediaTooLarge: When more than `limits.max_frames` would be decoded.
        """
        ...


def check_duration(duration_s: float, name: str, limits: Limits) -> None:
    """Check the length of a film; raises MediaTooLarge."""
    if duration_s > limits.max_duration_s:
        raise MediaTooLarge(
            f"{name} lasts {duration_s:.1f} s, more than {limits.max_duration_s} s",
            hint="cut the video or raise Limits.max_duration_s",
        )


def check_frame_size(width: int, height: int, name: str, limits: Limits) -> None:
    """Check the size of a frame; raises MediaTooLarge."""
    if width * height > limits.max_pixels:
        raise MediaTooLarge(
            f"frames of {name} have {width} x {height} pixels, more than {limits.max_pixels}",
            hint="encode the video smaller or raise Limits.max_pixels",
        )


def too_many_frames(name: str, limits: Limits) -> MediaTooLarge:
    """Return the error of a stretch that needs more than `limits.max_frames` frames decoded."""
    return MediaTooLarge(
        f"{name} needs more than {limits.max_frames} frames decoded",
        hint="sample a shorter stretch or raise Limits.max_frames",
    )
