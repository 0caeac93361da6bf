"""Decode the frames of films with another library than PyAV: decord or torchcodec.

PyAV opens every film: it checks the limits, finds the first and last frame and the peculiarities that the other
libraries show differently (rotation, pixels that are not square, transparency, AVI without times, a file that is cut
short). Another library only decodes, and only plain films; whatever it cannot do falls back to PyAV with a warning.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final, Protocol, Self

import numpy as np
import numpy.typing as npt
import PIL.Image

from ume_retrieval.errors import MediaTooLarge, MissingExtra
from ume_retrieval.inputs import VideoReader
from ume_retrieval.media.film import Film
from ume_retrieval.media.images import PIXEL_ROOM
from ume_retrieval.media.limits import DecoderName, Limits
from ume_retrieval.util.files import display_name

_EARLY_S = 0.001
"""Tolerance of rounded timestamps, as with PyAV."""


_FFMPEG_HINT = "install the shared libraries of FFmpeg (4 to 9), or use the decoder pyav"

_EXACT = frozenset({"mp4", "matroska"})
"""Formats in which decord 3.4 and torchcodec 0.17 return the frame that they are asked for after a seek."""


class FrameDecoder(Protocol):
    """Decodes frames of one plain film; times are the file's own, in seconds."""

    def frames_at(self, times_s: Sequence[float]) -> npt.NDArray[np.uint8]:
        """Return the frames that are on screen at ascending times, shape (times, height, width, 3), RGB."""
        ...


class DecordDecoder:
    """Decodes with decord (the package `decord2`).

    Attributes:
        starts: The time of each frame.
        end_s: The end of the last one.
    """

    def __init__(self, reader: VideoReader) -> None:
        self._reader = reader
        times = np.asarray(reader.get_frame_timestamp(range(len(reader))), dtype=np.float64)
        self.starts, self.end_s = times[:, 0], float(times[-1, 1])
        if not (np.diff(self.starts) > 0).all():
            raise ValueError("times of frames do not ascend")

    @classmethod
    def of_file(cls, path: Path) -> Self:
        """Open a file."""
        decord = _imported("decord", "decord")
        # It prints its errors besides raising them.
        decord.logging.set_level(decord.logging.QUIET)
        return cls(decord.VideoReader(str(path.absolute()), ctx=decord.cpu(0)))

    def frames_at(self, times_s: Sequence[float]) -> npt.NDArray[np.uint8]:
        """Return the frames at ascending times; see `FrameDecoder`."""
        numbers = np.searchsorted(self.starts, np.asarray(times_s) + _EARLY_S, side="right") - 1
        distinct, places = np.unique(numbers.clip(0), return_inverse=True)
        got = self._reader.get_batch(distinct.tolist())
        # Bridges of decord make tensors of other libraries of what it returns.
        frames = np.asarray(got.asnumpy() if hasattr(got, "asnumpy") else got, dtype=np.uint8)
        return frames[places]


class TorchcodecDecoder:
    """Decodes with torchcodec, which needs the shared libraries of FFmpeg."""

    def __init__(self, path: Path) -> None:
        decoders = _imported("torchcodec.decoders", "torchcodec")
        if _imported("torchcodec", "torchcodec").ffmpeg_major_version is None:
            raise MissingExtra("torchcodec finds no FFmpeg", hint=_FFMPEG_HINT)
        self._decoder = decoders.VideoDecoder(str(path.absolute()), dimension_order="NHWC", num_ffmpeg_threads=0)

    def frames_at(self, times_s: Sequence[float]) -> npt.NDArray[np.uint8]:
        """Return the frames at ascending times; see `FrameDecoder`."""
        facts = self._decoder.metadata
        first, after = facts.begin_stream_seconds, facts.end_stream_seconds
        wanted = np.asarray(times_s) + _EARLY_S
        frames: npt.NDArray[np.uint8] = self._decoder.get_frames_played_at(
            wanted.clip(first, np.nextafter(after, first)).tolist()
        ).data.numpy()
        return frames


DECODERS: Final[dict[DecoderName, Callable[[Path], FrameDecoder]]] = {
    "decord": DecordDecoder.of_file,
    "torchcodec": TorchcodecDecoder,
}


def decode_frames(
    film: Film, path: Path, times_s: Sequence[float], limits: Limits
) -> tuple[tuple[PIL.Image.Image, ...], tuple[str, ...]]:
    """Decode frames with the library that the limits name, or with PyAV where that one cannot.

    Args:
        film: The film, opened.
        path: Its file.
        times_s: Seconds from the first frame, ascending.
        limits: Names the decoder; `max_frames` bounds the frames between the first and the last time.

    Returns:
        One RGB image per time, and a warning if PyAV decoded instead of the chosen library.

    Raises:
        MissingExtra: When the chosen library is not installed.
        MediaError: When PyAV cannot decode the film either.
    """
    if limits.decoder == "pyav":
        return tuple(film.frames_at(times_s)), ()
    reason = film.peculiarity or _inexact(film, limits.decoder)
    if reason is None and (times_s[-1] - times_s[0]) * film.info.fps > limits.max_frames:
        reason = "the stretch is long"
    if reason is None:
        try:
            with PIXEL_ROOM.hold(film.info.width * film.info.height, f"a frame of {path.name}", limits):
                made = DECODERS[limits.decoder](path).frames_at([film.origin_s + time_s for time_s in times_s])
            expected = (len(times_s), film.info.height, film.info.width, 3)
            if made.shape == expected:
                return tuple(map(PIL.Image.fromarray, made)), ()
            reason = f"{limits.decoder} decodes frames of another size"
        except (MissingExtra, MediaTooLarge, MemoryError):
            raise
        except Exception as error:  # noqa: BLE001  # the libraries raise their own types, without a common base
            reason = f"{limits.decoder} failed: {' '.join(str(error).split())[:120] or type(error).__name__}"
    warning = f"{display_name(path)} is decoded with PyAV instead of {limits.decoder}: {reason}"
    return tuple(film.frames_at(times_s)), (warning,)


def _inexact(film: Film, decoder: DecoderName) -> str | None:
    """Return why a library would give other frames than those that it is asked for."""
    if film.info.format not in _EXACT:
        return f"{decoder} seeks inexactly in {film.info.format}"
    # After a seek decord counts frames, and drops those that refer across the keyframe.
    if decoder == "decord" and film.has_open_groups:
        return "decord seeks inexactly in open groups of pictures"
    return None


def _imported(module: str, extra: str) -> Any:
    from importlib import import_module

    try:
        return import_module(module)
    except ImportError as error:
        raise MissingExtra(
            f"the decoder {extra} is not installed", hint=f"pip install 'ume-retrieval[{extra}]'"
        ) from error
    except (RuntimeError, OSError) as error:  # its C libraries lack others
        raise MissingExtra(
            f"the decoder {extra} does not load: {str(error).strip().splitlines()[0][:200]}",
            hint=_FFMPEG_HINT,
        ) from error
