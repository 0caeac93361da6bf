"""Show animated GIF, WebP, PNG and AVIF files as films, with Pillow: FFmpeg does not read all of them."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from itertools import accumulate
from typing import BinaryIO

import PIL.Image

from ume_retrieval.errors import BrokenMedia, MediaTooLarge
from ume_retrieval.media.film import DAMAGED_HINT, VideoInfo, check_duration, too_many_frames
from ume_retrieval.media.images import PIXEL_ROOM, broken_image, image_header, to_rgb
from ume_retrieval.media.limits import Limits
from ume_retrieval.media.plugins import without_warnings

_EARLY_S = 0.0005
_NO_DELAY_MS, _LEAST_DELAY_MS = 100, 10
"""Duration of a frame whose file gives none or at most 10 ms, as browsers show it."""


class AnimationFilm:
    """An animation that Pillow reads; times are seconds from its first frame.

    Attributes:
        info: Properties of the file.
        origin_s: 0.0.
        peculiarity: Other decoders do not read these files.
        has_open_groups: False.
    """

    peculiarity: str | None = "it is an animated image"
    origin_s = 0.0
    has_open_groups = False

    def __init__(self, handle: BinaryIO, form: str, name: str, limits: Limits) -> None:
        self._name = name
        self._limits = limits
        handle.seek(0)
        self._image = image_header(handle, name, limits)
        # A PNG may hold a still for programs that know no animations.
        self._skipped = int(bool(getattr(self._image, "default_image", False)))
        count = int(getattr(self._image, "n_frames", 1)) - self._skipped
        if count > limits.max_frames:
            raise too_many_frames(name, limits)
        # Summed in whole milliseconds, which stay exact.
        *starts, end = accumulate((self._delay_ms(number) for number in range(count)), initial=0)
        self._starts = [start / 1000 for start in starts]
        duration_s = end / 1000
        check_duration(duration_s, name, limits)
        width, height = self._frame(0).size
        self.info = VideoInfo(width, height, duration_s, count / duration_s, form, form)

    def frames_at(self, times_s: Sequence[float]) -> list[PIL.Image.Image]:
        """Return the frame that is on screen at each time, as upright RGB; see `Film.frames_at`."""
        numbers = [bisect_right(self._starts, time_s + _EARLY_S) - 1 for time_s in times_s]
        drawn = {number: self._frame(number) for number in dict.fromkeys(numbers)}
        return [drawn[number] for number in numbers]

    def _delay_ms(self, number: int) -> int:
        """Return the time for which a frame is shown; Pillow knows it once it has decoded the frame."""
        self._decode(number)
        given = self._image.info.get("duration", 0)
        delay = round(given) if isinstance(given, (int, float)) else 0
        return delay if delay > _LEAST_DELAY_MS else _NO_DELAY_MS

    def _frame(self, number: int) -> PIL.Image.Image:
        self._decode(number)
        return to_rgb(self._image.copy())

    def _decode(self, number: int) -> None:
        try:
            with without_warnings():
                self._image.seek(number + self._skipped)
            with PIXEL_ROOM.hold(self._image.width * self._image.height, f"a frame of {self._name}", self._limits):
                self._image.load()
        except MediaTooLarge:
            raise
        except EOFError as error:
            raise BrokenMedia(f"{self._name} ends before its frame {number + 1}", hint=DAMAGED_HINT) from error
        except Exception as error:  # Pillow's decoders raise almost any type on damaged bytes
            raise broken_image(self._name, error) from error
