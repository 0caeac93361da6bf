"""Probe video files and sample frames."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from ume_retrieval.errors import InputError, MediaNotFound, MediaTooLarge
from ume_retrieval.inputs import Clip, Frames, VideoInput, check_frames
from ume_retrieval.media.files import local_path
from ume_retrieval.media.images import open_image
from ume_retrieval.media.limits import DEFAULT_LIMITS, Limits
from ume_retrieval.media.segments import even_times, sample_times
from ume_retrieval.media.video_file import VideoInfo, open_video
from ume_retrieval.util.files import display_name


def probe_video(path: str | Path, limits: Limits = DEFAULT_LIMITS) -> VideoInfo:
    """Read size, duration and frame rate of a video file; decodes the first frame and checks that the file is complete.

    Raises:
        MediaNotFound: When the file cannot be opened.
        UnsupportedMedia: When it is not MP4, MOV, MKV, WebM, AVI or GIF, or its codec is unknown.
        BrokenMedia: When it is truncated, does not decode or is empty.
        MediaTooLarge: When a limit would be exceeded.
        RemoteNotAllowed: When an address is given.
    """
    with open_video(local_path(path), limits) as video:
        return video.info


def sample_video(
    source: VideoInput,
    fps: float,
    max_frames: int,
    limits: Limits = DEFAULT_LIMITS,
    *,
    min_frames: int | None = None,
) -> Frames:
    """Sample the frames that a video shows at the times of `sample_times`, or of `even_times`.

    Frames are chosen by their real timestamps, which supports variable frame rates, and they are upright:
    rotation and mirroring in the file are applied, pixels that are not square are made so, transparency is laid on
    white.

    Args:
        source: A file or a stretch of one. `Frames` are checked and returned as RGB, not sampled again.
        fps: Frames a second, > 0.
        max_frames: Most frames, >= 1; a stretch that holds more is thinned evenly.
        limits: Limits on pixels, bytes, duration and decoded frames.
        min_frames: Least frames of `even_times`; None takes `sample_times`.

    Returns:
        The frames. `timestamps` are the times that were asked for, in seconds from the file's first frame: they are
        evenly spaced and strictly ascending even where one frame stays on screen for long. `duration_s` is the length
        of the stretch.

    Raises:
        MediaNotFound: When the file cannot be opened or ends before the stretch begins.
        InputError: When the time span is empty, or `Frames` fail `check_frames`.
        MediaError: Otherwise as `probe_video`.
    """
    if isinstance(source, Frames):
        return _checked(source, limits)
    clip = source if isinstance(source, Clip) else Clip(local_path(source))
    if clip.start_s < 0 or (clip.end_s is not None and clip.end_s <= clip.start_s):
        raise InputError(f"a clip cannot go from second {clip.start_s} to second {clip.end_s}")
    with open_video(clip.path, limits) as video:
        duration_s = video.info.duration_s
        if clip.start_s >= duration_s:
            raise MediaNotFound(
                f"{display_name(clip.path)} ends before second {clip.start_s}", hint=f"it lasts {duration_s:.2f} s"
            )
        end_s = duration_s if clip.end_s is None else min(clip.end_s, duration_s)
        if min_frames is None:
            times = sample_times(clip.start_s, end_s, fps, max_frames)
        else:
            rate = video.info.fps or fps
            times = even_times(clip.start_s, end_s, fps, max_frames, min_frames=min_frames, rate=rate)
        return Frames(tuple(video.frames_at(times)), times, end_s - clip.start_s, from_file=True)


def _checked(frames: Frames, limits: Limits) -> Frames:
    if len(frames.images) > limits.max_frames:
        raise MediaTooLarge(
            f"the video has {len(frames.images)} frames, more than {limits.max_frames}",
            hint="hand in fewer frames or raise Limits.max_frames",
        )
    # EXIF may rotate some frames, so sizes are compared once all are upright.
    return check_frames(replace(frames, images=tuple(open_image(image, limits) for image in frames.images)))
