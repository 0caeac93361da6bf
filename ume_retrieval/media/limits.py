"""Limits on the cost of decoding media, and where and with which library they are decoded."""

from __future__ import annotations

import os
from dataclasses import dataclass, fields
from typing import Literal, TypeAlias, get_args

from ume_retrieval.errors import InputError

DecoderName: TypeAlias = Literal["pyav", "decord", "torchcodec"]
"""Libraries that decode films: the `av` package, `decord2` and `torchcodec`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Isolation:
    """Limits of worker processes for decoding, so that a file that crashes or hangs its decoder loses only its item.

    A worker runs without secrets in its environment, cannot write files and is replaced when it dies. Its answers are
    parsed as JSON and raw pixels. POSIX enforces all limits, macOS all but memory, Windows only time.

    Attributes:
        memory_bytes: Most address space of a worker. An image of `max_pixels` takes up to 16 bytes per pixel.
        seconds: Most seconds to decode an image or a video segment, or to probe a file.
        workers: Most processes.

    Raises:
        InputError: When a limit is not positive, or `memory_bytes` is too small to start a worker.

    Example:
        >>> Limits(isolation=Isolation(seconds=20)).isolation.seconds
        20
    """

    memory_bytes: int = 2 * 1024**3
    seconds: float = 60.0
    workers: int = max(1, min(8, (os.cpu_count() or 2) - 1))

    def __post_init__(self) -> None:
        if self.memory_bytes < _LEAST_MEMORY or not self.seconds > 0 or self.workers < 1:
            raise InputError(
                f"media cannot be isolated with {self}", hint=f"give at least {_LEAST_MEMORY} bytes, > 0 s, 1 worker"
            )


_LEAST_MEMORY = 512 * 1024**2
"""Python with the three decoders takes most of this."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Limits that are checked before the expensive step, so that a hostile file cannot exhaust the machine.

    Media beyond a limit raise `MediaTooLarge`; they are never shrunk or cut silently.

    Attributes:
        max_pixels: Most pixels (width x height) of one image, video frame or rendered page.
        pixels_at_once: Most pixels that all threads of this process decode at the same time; others wait for room. One
            image, frame or page with more is refused.
        max_bytes: Most bytes of a file, of encoded bytes, or of a download.
        max_frames: Most frames that are decoded to sample one video segment.
        max_pages: Most pages of one PDF.
        max_text_chars: Most characters of one text file.
        max_duration_s: Longest video in seconds.
        isolation: Decode in worker processes, for untrusted files; None decodes in this process.
        decoder: Library that decodes the frames of films; see `decoders`. A film that it cannot show as PyAV does is
            decoded with PyAV, and a warning says so.

    Raises:
        InputError: When a limit is not positive, or the decoder is unknown.

    Example:
        >>> Limits(max_pages=50).max_pages
        50
    """

    max_pixels: int = 178_956_970 // 2
    pixels_at_once: int = 178_956_970
    max_bytes: int = 2 * 1024**3
    max_frames: int = 20_000
    max_pages: int = 2_000
    max_text_chars: int = 100_000
    max_duration_s: float = 6 * 3600.0
    isolation: Isolation | None = None
    decoder: DecoderName = "pyav"

    def __post_init__(self) -> None:
        for field in fields(self):
            if field.name not in ("isolation", "decoder") and not getattr(self, field.name) > 0:
                raise InputError(f"{field.name} must be greater than 0")
        if self.decoder not in get_args(DecoderName):
            raise InputError(f"unknown decoder {self.decoder!r}", hint=f"use one of {', '.join(get_args(DecoderName))}")


DEFAULT_LIMITS = Limits()
