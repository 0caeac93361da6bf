"""Cut videos into segments, and choose the times of sampled frames."""

from __future__ import annotations

import math

from ume_retrieval.errors import InputError

SEGMENT_S = 16.0
"""Default length of a segment in seconds: 8 frames see a moment every 2 s, and a scene usually fits."""

OVERLAP_S = 2.0
"""Default overlap of neighbours in seconds, so that an event at a cut is complete in one of them."""

_SLACK_S = 1e-6


def segments(
    duration_s: float, length_s: float = SEGMENT_S, overlap_s: float = OVERLAP_S
) -> tuple[tuple[float, float], ...]:
    """Cut a video into overlapping segments of equal length that cover it.

    A video that is not longer than one segment is one segment. The last segment is moved back to end where the video
    ends, so it is never shorter; it then overlaps its neighbour by more than `overlap_s`.

    Args:
        duration_s: Length of the video in seconds, > 0.
        length_s: Length of a segment in seconds, > 0.
        overlap_s: Least overlap of neighbours in seconds, 0 <= overlap_s < length_s.

    Returns:
        `(start_s, end_s)` of each segment, in order; ends are exclusive.

    Raises:
        InputError: When an argument is out of range.

    Example:
        >>> segments(10.0)
        ((0.0, 10.0),)
        >>> segments(40.0, length_s=16.0, overlap_s=2.0)
        ((0.0, 16.0), (14.0, 30.0), (24.0, 40.0))
    """
    if not 0 < duration_s < math.inf:
        raise InputError(f"a duration must be greater than 0 and finite, not {duration_s}")
    check_segments(length_s, overlap_s)
    if duration_s <= length_s + _SLACK_S:
        return ((0.0, duration_s),)
    stride = length_s - overlap_s
    count = math.ceil((duration_s - length_s - _SLACK_S) / stride)
    whole = tuple((i * stride, i * stride + length_s) for i in range(count))
    return (*whole, (duration_s - length_s, duration_s))


def check_segments(length_s: float, overlap_s: float) -> None:
    """Check that 0 <= overlap_s < length_s, both finite; raises InputError otherwise."""
    if not 0 < length_s < math.inf or not 0 <= overlap_s < length_s:
        raise InputError(
            f"segments of {length_s} s cannot overlap by {overlap_s} s",
            hint="the length must be greater than 0, the overlap at least 0 and less than the length",
        )


def even_times(
    start_s: float, end_s: float, fps: float, max_frames: int, *, min_frames: int, rate: float
) -> tuple[float, ...]:
    """Return times of an even number of frames, spaced evenly from the first to the last frame of a segment.

    As qwen-vl-utils 0.0.14 does it (`smart_nframes`, `_read_video_decord`): one frame every 1 / `fps` seconds gives
    their number, within the bounds, and frame numbers are rounded.

    Args:
        start_s: First second of the stretch, >= 0.
        end_s: First second after the stretch, > start_s.
        fps: Frames a second, > 0.
        max_frames: Most times, >= 1.
        min_frames: Least times, as far as the stretch has so many frames.
        rate: Frames a second that the file has, > 0.

    Returns:
        Seconds, strictly ascending, at least one, the first is `start_s`.

    Raises:
        InputError: When an argument is out of range.

    Example:
        >>> [round(time * 24) for time in even_times(0.0, 2.0, fps=1.0, max_frames=64, min_frames=4, rate=24.0)]
        [0, 16, 31, 47]
    """
    _check_sampling(start_s, end_s, fps, max_frames)
    total = max(1, round((end_s - start_s) * rate))
    count = int(min(max(total / rate * fps, min_frames), max_frames, total)) // 2 * 2
    if count < 2:
        return (start_s,)
    return tuple(start_s + round(i * (total - 1) / (count - 1)) / rate for i in range(count))


def sample_times(start_s: float, end_s: float, fps: float, max_frames: int) -> tuple[float, ...]:
    """Return the times of frames that are sampled from a time span.

    These are `start_s + i / fps` for i = 0, 1, ... before `end_s`; when that gives more than `max_frames`, `max_frames`
    of them that are spread evenly from the first to the last.

    Args:
        start_s: First second of the stretch, >= 0.
        end_s: First second after the stretch, > start_s.
        fps: Frames a second, > 0.
        max_frames: Most times, >= 1.

    Returns:
        Seconds, strictly ascending, at least one, the first is `start_s`.

    Raises:
        InputError: When an argument is out of range.

    Example:
        >>> sample_times(0.0, 2.0, fps=2.0, max_frames=8)
        (0.0, 0.5, 1.0, 1.5)
        >>> sample_times(10.0, 14.5, fps=2.0, max_frames=3)
        (10.0, 12.0, 14.0)
    """
    _check_sampling(start_s, end_s, fps, max_frames)
    count = max(1, math.ceil((end_s - start_s - _SLACK_S) * fps))
    if count <= max_frames:
        return tuple(start_s + i / fps for i in range(count))
    if max_frames == 1:
        return (start_s,)
    return tuple(start_s + round(i * (count - 1) / (max_frames - 1)) / fps for i in range(max_frames))


def _check_sampling(start_s: float, end_s: float, fps: float, max_frames: int) -> None:
    if not 0 <= start_s < end_s < math.inf:
        raise InputError(f"a stretch of video cannot go from second {start_s} to second {end_s}")
    if not 0 < fps < math.inf or max_frames < 1:
        raise InputError(f"cannot sample {max_frames} frames at {fps} frames a second")
