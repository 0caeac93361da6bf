"""Decode a video file with PyAV: its properties, and the frames at given times."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Any, BinaryIO

import av
import av.error
import numpy as np
import PIL.Image
from av.buffer import Buffer
from av.container import InputContainer
from av.packet import Packet
from av.stream import Disposition
from av.video.frame import VideoFrame
from av.video.stream import VideoStream
from PIL.Image import Transpose

from ume_retrieval.errors import BrokenMedia, MediaTooLarge, UnsupportedMedia
from ume_retrieval.media.film import DAMAGED_HINT, VideoInfo, check_duration, check_frame_size, too_many_frames
from ume_retrieval.media.formats import FORMAT_NAMED
from ume_retrieval.media.images import PIXEL_ROOM, to_rgb
from ume_retrieval.media.limits import Limits

_EARLY_S = 0.001
"""Matroska rounds timestamps to milliseconds: a frame counts as shown from one millisecond before its timestamp."""

_LOST_S = 0.25
"""Duration of frames that decoders may drop at the very end."""

_REORDERED_S = 1.0
"""Seconds before the end that are read to find the last frame: where a container has no index, seeking stops at any
packet, and the last frame on screen may come before the last packet."""

_CUT_S, _CUT_SHARE = 0.5, 0.1
"""Most distance of the last packet from the declared duration: the smaller of seconds and share."""

_PACKETS_JUDGED = 1_000

_LEAST_SHARE = 0.5
"""Share of its declared duration that a file of full size must show; less is damage inside, not a cut."""

_AS_STORED = (1, 0, 0, 1)
_BUSY_HINT = "try again under less load; if it fails again, the file is damaged"

# Signs of the display matrix's a, b, c, d (x' = a x + c y, y' = b x + d y, y downwards).
_UPRIGHT = {
    (-1, 0, 0, 1): Transpose.FLIP_LEFT_RIGHT,
    (1, 0, 0, -1): Transpose.FLIP_TOP_BOTTOM,
    (-1, 0, 0, -1): Transpose.ROTATE_180,
    (0, 1, 1, 0): Transpose.TRANSPOSE,
    (0, -1, -1, 0): Transpose.TRANSVERSE,
    (0, 1, -1, 0): Transpose.ROTATE_270,
    (0, -1, 1, 0): Transpose.ROTATE_90,
}


@dataclass(frozen=True, slots=True)
class _Shown:
    """A decoded frame and its time in seconds from the first frame."""

    time_s: float
    frame: VideoFrame


@dataclass(slots=True)
class _Playback:
    """Decoding from one keyframe on: the frame on screen, the next one, and the rest."""

    film: Iterator[_Shown]
    shown: _Shown | None = None
    coming: _Shown | None = None
    is_from_start: bool = False


class PyavFilm:
    """An open video, from `open_film`; times are seconds from its first frame.

    Attributes:
        info: Properties of the file.
        origin_s: The file's own time of its first frame in seconds.
    """

    def __init__(self, container: InputContainer, form: str, name: str, limits: Limits, *, is_cut: bool) -> None:
        self._container = container
        self._name = name
        self._limits = limits
        self._is_cut = is_cut
        self._stream = _video_stream(container, name)
        check_frame_size(self._stream.width, self._stream.height, name, limits)
        self._stream.thread_type = "AUTO"
        self._tick_s = float(self._stream.time_base or Fraction(1, 1000))
        # AVI lacks presentation times and only counts packets: the packet that yields a frame gives its time.
        self._counted = form == "avi"
        self._unindexed = form in ("mpegts", "mpegps")
        self._decoded = 0
        self._last_s = 0.0
        self.origin_s = 0.0
        first = self._first()
        self.origin_s = first.time_s
        self._frame_facts = _display_signs(first.frame) != _AS_STORED, _has_alpha(first.frame)
        width, height = self._picture(first.frame).size
        self._last_s, end_s = self._tail()
        check_duration(end_s, name, limits)
        codec, fps = self._stream.codec_context.name, float(self._rate or 0)
        warnings = (self._cut_warning(end_s),) if self._is_cut else ()
        self.info = VideoInfo(width, height, end_s, fps, form, codec, warnings)

    @property
    def peculiarity(self) -> str | None:
        """What keeps other decoders from showing this film as it is meant; None for a plain film."""
        is_turned, has_alpha = self._frame_facts
        facts = {
            "its frames are turned or mirrored on display": is_turned,
            "its frames are transparent": has_alpha,
            "its pixels are not square": float(self._stream.sample_aspect_ratio or 1) != 1.0,
            "its container has no presentation times": self._counted,
            "it is cut short": self._is_cut,
        }
        return next((fact for fact, holds in facts.items() if holds), None)

    @property
    def has_open_groups(self) -> bool:
        """Whether frames come before the keyframe that they are stored after, judged by the first packets."""
        self._seek(0.0)
        key_ticks: int | None = None
        for _, packet in zip(range(_PACKETS_JUDGED), self._container.demux(self._stream), strict=False):
            if packet.pts is None:
                continue
            if packet.is_keyframe:
                key_ticks = packet.pts
            elif key_ticks is not None and packet.pts < key_ticks:
                return True
        return False

    @property
    def _rate(self) -> Fraction | None:
        return self._stream.average_rate or self._stream.guessed_rate

    def frames_at(self, times_s: Sequence[float]) -> list[PIL.Image.Image]:
        """Return the frame that is on screen at each time, as upright RGB; see `Film.frames_at`.

        Decodes forward and seeks when the next time is far away. After a seek without a later keyframe the distance for
        the next seek grows, so that at most a fraction of the frames is decoded twice. When the frames after a seek do
        not decode, starts from an earlier keyframe, in the end from the first frame: only damage there is an error.
        """
        pictures: list[PIL.Image.Image] = []
        run = _Playback(iter(()))
        drawn: _Shown | None = None
        jump_s = 0.0
        self._decoded = 0
        for time_s in times_s:
            if not pictures or (run.coming and time_s - run.coming.time_s > jump_s):
                reached_s = run.coming.time_s if run.coming else -1.0
                run = self._start_near(time_s)
                jump_s = max(1.0, 2 * (time_s - reached_s) if run.coming and run.coming.time_s <= reached_s else jump_s)
            run = self._advanced(run, time_s)
            showing = run.shown or run.coming
            if showing is None or (run.coming is None and showing.time_s < self._last_s - _LOST_S and not self._is_cut):
                raise BrokenMedia(f"{self._name} stops decoding before its end", hint=DAMAGED_HINT)
            if showing is not drawn and self._is_lost(showing) and pictures:
                self._note(f"the last frames of {self._name} are damaged and not shown")
                showing = drawn or showing
            pictures.append(pictures[-1] if showing is drawn else self._picture(showing.frame))
            drawn = showing
        return pictures

    def _is_lost(self, shown: _Shown) -> bool:
        """Return whether this is a damaged frame at the very end, as a file that was cut within a frame has."""
        return shown.frame.is_corrupt and shown.time_s > self._last_s - _REORDERED_S

    def _note(self, warning: str) -> None:
        if warning not in self.info.warnings:
            self.info = replace(self.info, warnings=(*self.info.warnings, warning))

    def _first(self) -> _Shown:
        """Return the first frame that decodes: a recording may begin between two keyframes."""
        first = next(self._play(tolerant=True), None)
        if first is None:
            raise BrokenMedia(f"no frame of {self._name} decodes", hint=DAMAGED_HINT)
        return first

    def _advanced(self, run: _Playback, time_s: float) -> _Playback:
        """Decode up to a time; when that fails, again from earlier and earlier keyframes."""
        back_s = 0.0
        while True:
            try:
                while run.coming and run.coming.time_s <= time_s + _EARLY_S:
                    run.shown, run.coming = run.coming, next(run.film, None)
            except av.error.InvalidDataError:
                if run.is_from_start:
                    raise
                back_s = max(1.0, 2 * back_s)
                run = self._start_near(time_s, back_s)
            else:
                return run

    def _start_near(self, time_s: float, back_s: float = 0.0) -> _Playback:
        """Start to decode from a keyframe at least `back_s` before `time_s`."""
        while True:
            target_s = max(0.0, time_s - back_s)
            is_from_start = target_s == 0.0
            try:
                self._seek(target_s)
                film = self._play(tolerant=is_from_start)
                first = next(film, None)
            except av.error.FFmpegError:
                if is_from_start:
                    raise
                first = None
            # Containers index keyframes by decoding time, which may be before their presentation time.
            if is_from_start or (first and first.time_s <= time_s + _EARLY_S):
                return _Playback(film, None, first, is_from_start)
            back_s = max(1.0, 2 * back_s)

    def _seek(self, target_s: float) -> None:
        ticks = round((target_s + self.origin_s) / self._tick_s)
        if target_s == 0.0:
            # Packets of the first frames may lie before the time of the first frame that decodes.
            ticks = min(ticks, self._stream.start_time or 0, 0)
        self._container.seek(ticks, stream=self._stream)

    def _play(self, *, tolerant: bool = False) -> Iterator[_Shown]:
        """Decode from the current position; `tolerant` skips what does not decode before the first frame."""
        fed, begun = -1, False
        last: int | None = None
        for packet in self._container.demux(self._stream):
            fed = fed if packet.dts is None else packet.dts
            if packet.is_corrupt and self._is_cut and self._time_s(packet) >= self._last_s:
                continue  # the part of the last packet that is there
            try:
                frames = packet.decode()
            except av.error.InvalidDataError:
                if begun or not tolerant:
                    raise
                continue
            for frame in frames:
                begun = True
                self._decoded += 1
                if self._decoded > self._limits.max_frames:
                    raise too_many_frames(self._name, self._limits)
                ticks = frame.pts
                if self._counted:
                    # At the end of the file, frames come without a packet.
                    fed = ticks = fed + 1 if frame.dts is None else frame.dts
                if ticks is None and last is not None and self._rate:
                    ticks = last + round(1 / (float(self._rate) * self._tick_s))
                if ticks is None and not tolerant:
                    continue  # a program stream gives a time only now and then
                last = ticks = (self._stream.start_time or 0) if ticks is None else ticks
                yield _Shown(ticks * self._tick_s - self.origin_s, frame)

    def _time_s(self, packet: Packet[Any]) -> float:
        ticks = packet.dts if self._counted or packet.pts is None else packet.pts
        return math.inf if ticks is None else ticks * self._tick_s - self.origin_s

    def _tail(self) -> tuple[float, float]:
        """Return start and end of the last frame, from the packets at the end of the file."""
        announced_s = (self._container.duration or 0) / av.time_base
        if self._counted and self._rate:
            announced_s = self._stream.frames / float(self._rate)
        enough_s = announced_s - min(_CUT_S, _CUT_SHARE * announced_s) - max(0.0, self.origin_s)
        self._announced_s = announced_s
        # From the last keyframe; then from the start, for a subtitle that outlasts the pictures.
        begins_s = (self._container.start_time or 0) / av.time_base
        for from_s in (begins_s + announced_s - (_REORDERED_S if self._unindexed else 0.0), 0.0):
            last_s, end_s, reached_s = self._ends_after(from_s)
            if reached_s >= enough_s:
                return last_s, end_s
        if not self._is_cut and end_s < _LEAST_SHARE * announced_s - _CUT_S:
            raise BrokenMedia(
                f"{self._name} is damaged: reading ends at {end_s:.1f} s of {announced_s:.1f} s", hint=DAMAGED_HINT
            )
        self._is_cut = True
        return last_s, end_s

    def _cut_warning(self, end_s: float) -> str:
        declared = f" of {self._announced_s:.1f} s" if self._announced_s > end_s else ""
        return f"{self._name} is cut short: {end_s:.1f} s{declared} can be shown"

    def _ends_after(self, from_s: float) -> tuple[float, float, float]:
        """Return start and end of the last frame, and the last end of all streams, reading packets from `from_s` on."""
        try:
            self._container.seek(round(from_s * av.time_base))
        except av.error.FFmpegError:
            self._container.seek(0)
        last_s = end_s = reached_s = 0.0
        origin_s = 0.0 if self._counted else self.origin_s
        for packet in self._container.demux():
            if packet.is_corrupt and packet.stream == self._stream:
                self._is_cut = True
                continue
            ticks = packet.dts if self._counted else packet.pts
            if ticks is None or packet.time_base is None:
                continue
            start_s = float(ticks * packet.time_base) - origin_s
            length_s = float((packet.duration or 0) * packet.time_base)
            if packet.stream == self._stream and start_s >= last_s:
                length_s = length_s or 1 / float(self._rate or 25)
                last_s, end_s = start_s, start_s + length_s
            reached_s = max(reached_s, start_s + length_s)
        return last_s, end_s, reached_s

    def _picture(self, frame: VideoFrame) -> PIL.Image.Image:
        check_frame_size(frame.width, frame.height, self._name, self._limits)
        if frame.is_corrupt:
            raise BrokenMedia(f"{self._name} has damaged frames", hint=DAMAGED_HINT)
        with PIXEL_ROOM.hold(frame.width * frame.height, f"a frame of {self._name}", self._limits):
            return self._upright(frame)

    def _upright(self, frame: VideoFrame) -> PIL.Image.Image:
        form = "rgba" if _has_alpha(frame) else "rgb24"
        picture = PIL.Image.fromarray(np.asarray(frame.to_ndarray(format=form)))
        aspect = float(self._stream.sample_aspect_ratio or 1)
        if aspect != 1.0 and 0.25 <= aspect <= 4.0:
            picture = picture.resize((max(1, round(picture.width * aspect)), picture.height))
            check_frame_size(*picture.size, self._name, self._limits)
        picture = to_rgb(picture)
        transpose = _UPRIGHT.get(_display_signs(frame))
        return picture if transpose is None else picture.transpose(transpose)


@contextmanager
def open_container(handle: BinaryIO, form: str, name: str, limits: Limits, *, is_cut: bool) -> Iterator[PyavFilm]:
    """Open a video container.

    Args:
        handle: The file.
        form: Its format.
        name: Its name in messages.
        limits: Limits on pixels, duration and decoded frames.
        is_cut: Whether it ends before its declared size.

    Raises:
        MediaError: As `probe_video`.
    """
    [demuxer] = FORMAT_NAMED[form].readers
    with (
        _typed_errors(name, is_cut=is_cut),
        av.open(handle, mode="r", format=demuxer.lower(), metadata_errors="replace", buffer_size=1 << 16) as container,
    ):
        yield PyavFilm(container, form, name, limits, is_cut=is_cut)


@contextmanager
def _typed_errors(name: str, *, is_cut: bool = False) -> Iterator[None]:
    try:
        yield
    except (av.error.BlockingIOError, av.error.MemoryError) as error:
        # Usually a lack of threads or memory, caused by the machine or by a previous file.
        raise BrokenMedia(f"{name} does not decode: {error.strerror}", hint=_BUSY_HINT, retryable=True) from error
    except av.error.FFmpegError as error:
        reason = "is cut short and does not decode" if is_cut else "does not decode"
        raise BrokenMedia(f"{name} {reason}: {error.strerror}", hint=DAMAGED_HINT) from error
    except OSError as error:
        raise BrokenMedia(f"{name} cannot be read: {error.strerror}", hint=DAMAGED_HINT) from error
    except (ArithmeticError, ValueError) as error:  # numbers in the file out of any range
        raise BrokenMedia(f"{name} has invalid numbers: {error}", hint=DAMAGED_HINT) from error
    except MemoryError as error:
        raise MediaTooLarge(f"{name} needs more memory than available", hint="encode the video smaller") from error


def _video_stream(container: InputContainer, name: str) -> VideoStream:
    for stream in container.streams.video:
        if Disposition.attached_pic not in stream.disposition:
            if stream.codec_context is None:
                break
            return stream
    raise UnsupportedMedia(f"no video stream of {name} can be decoded", hint="convert it to MP4 (H.264) or WebM (VP9)")


def _has_alpha(frame: VideoFrame) -> bool:
    return any(component.is_alpha for component in frame.format.components)


def _display_signs(frame: VideoFrame) -> tuple[int, int, int, int]:
    matrix = frame.side_data.get("DISPLAYMATRIX")
    if not isinstance(matrix, Buffer):
        return _AS_STORED
    values = np.frombuffer(bytes(matrix), dtype=np.int32)
    corner = values[[0, 1, 3, 4]].astype(np.int64)
    # An oblique rotation is ignored; rounding of a right angle leaves far less than half.
    a, b, c, d = np.sign(np.where(abs(corner) * 2 > abs(corner).max(), corner, 0)).tolist()
    return a, b, c, d
