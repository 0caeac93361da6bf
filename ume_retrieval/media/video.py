"""Probe video files and sample frames."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import PIL.Image

from ume_retrieval.errors import (
    BrokenMedia,
    InputError,
    MediaNotFound,
    MediaTooLarge,
    UmeError,
    UnsupportedMedia,
)
from ume_retrieval.inputs import Clip, Frames, VideoInput, VideoReader, check_frames
from ume_retrieval.media.animation import AnimationFilm
from ume_retrieval.media.containers import is_cut_short
from ume_retrieval.media.counting import gif_frames
from ume_retrieval.media.decoders import DecordDecoder, decode_frames
from ume_retrieval.media.files import local_path, open_file
from ume_retrieval.media.film import DAMAGED_HINT, Film, VideoInfo
from ume_retrieval.media.formats import ANIMATIONS, HEAD_BYTES, VIDEO_FORMATS, sniff
from ume_retrieval.media.images import open_image
from ume_retrieval.media.limits import DEFAULT_LIMITS, Limits
from ume_retrieval.media.pyav_film import open_container
from ume_retrieval.media.segments import even_times, sample_times
from ume_retrieval.util.files import display_name
from ume_retrieval.util.threads import fork_safe_lock


def probe_video(path: str | Path, limits: Limits = DEFAULT_LIMITS) -> VideoInfo:
    """Read size, duration and frame rate of a video file or animation; decodes the first frame.

    A file that is cut short lasts as long as what is there of it, and `warnings` say so.

    Raises:
        MediaNotFound: When the file cannot be opened.
        UnsupportedMedia: When its format is not in `formats.FORMATS`, or its codec is unknown.
        BrokenMedia: When it is empty or does not decode, such as an MP4 that ends before its index.
        MediaTooLarge: When a limit would be exceeded.
        RemoteNotAllowed: When an address is given.
    """
    with open_film(local_path(path), limits) as film:
        return film.info


@contextmanager
def open_film(path: Path, limits: Limits = DEFAULT_LIMITS) -> Iterator[Film]:
    """Open a video file or animation; raises the errors of `probe_video`."""
    name = display_name(path)
    with open_file(path, limits) as handle:
        form = sniff(handle.read(HEAD_BYTES))
        if form is None or form not in ANIMATIONS | VIDEO_FORMATS:
            raise UnsupportedMedia(
                f"{name} is not a supported video" + (f", its bytes are {form}" if form else ""),
                hint="pass it as an image" if form else "convert it to MP4 or WebM",
            )
        if form == "gif" and not gif_frames(handle):
            raise BrokenMedia(f"{name} is cut short", hint=DAMAGED_HINT)
        if form in ANIMATIONS:
            yield AnimationFilm(handle, form, name, limits)
            return
        is_cut = is_cut_short(handle, form, handle.seek(0, 2))
        handle.seek(0)
        with open_container(handle, form, name, limits, is_cut=is_cut) as film:
            yield film


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
        source: A file or a stretch of one, or an open `decord.VideoReader`. `Frames` are checked and returned as RGB,
            not sampled again.
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
    if isinstance(source, VideoReader):
        return _of_reader(source, fps, max_frames, limits, min_frames)
    clip = source if isinstance(source, Clip) else Clip(local_path(source))
    if clip.start_s < 0 or (clip.end_s is not None and clip.end_s <= clip.start_s):
        raise InputError(f"a clip cannot go from second {clip.start_s} to second {clip.end_s}")
    with open_film(clip.path, limits) as film:
        duration_s = film.info.duration_s
        if clip.start_s >= duration_s:
            raise MediaNotFound(
                f"{display_name(clip.path)} ends before second {clip.start_s}", hint=f"it lasts {duration_s:.2f} s"
            )
        end_s = duration_s if clip.end_s is None else min(clip.end_s, duration_s)
        times = _times(clip.start_s, end_s, fps, max_frames, min_frames=min_frames, rate=film.info.fps)
        pictures, warnings = decode_frames(film, clip.path, times, limits)
        return Frames(pictures, times, end_s - clip.start_s, True, (*film.info.warnings, *warnings))


def _times(
    start_s: float, end_s: float, fps: float, max_frames: int, *, min_frames: int | None, rate: float
) -> tuple[float, ...]:
    if min_frames is None:
        return sample_times(start_s, end_s, fps, max_frames)
    return even_times(start_s, end_s, fps, max_frames, min_frames=min_frames, rate=rate or fps)


_READERS = fork_safe_lock()
"""A reader that the caller opened is used by one thread at a time."""


def _of_reader(reader: VideoReader, fps: float, max_frames: int, limits: Limits, min_frames: int | None) -> Frames:
    """Sample an open reader; its frames are taken as they are, without rotation and with pixels as stored."""
    with _READERS:
        try:
            film = DecordDecoder(reader)
            origin_s = float(film.starts[0])
            duration_s = film.end_s - origin_s
            rate = len(reader) / duration_s
            times = _times(0.0, duration_s, fps, max_frames, min_frames=min_frames, rate=rate)
            pictures = film.frames_at([origin_s + time_s for time_s in times])
        except UmeError:
            raise
        except Exception as error:  # decord raises its own types, without a common base
            raise BrokenMedia(f"the video reader does not decode: {error}", hint=DAMAGED_HINT) from error
    return _checked(Frames(tuple(map(PIL.Image.fromarray, pictures)), times, duration_s, from_file=True), limits)


def _checked(frames: Frames, limits: Limits) -> Frames:
    if len(frames.images) > limits.max_frames:
        raise MediaTooLarge(
            f"the video has {len(frames.images)} frames, more than {limits.max_frames}",
            hint="hand in fewer frames or raise Limits.max_frames",
        )
    # EXIF may rotate some frames, so sizes are compared once all are upright.
    return check_frames(replace(frames, images=tuple(open_image(image, limits) for image in frames.images)))
