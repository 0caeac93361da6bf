"""How much media may cost before it is refused."""

from __future__ import annotations

from dataclasses import dataclass, fields

from ume_retrieval.errors import InputError


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Ceilings that are checked before the expensive step, so that one hostile file cannot take the machine down.

    What exceeds a limit raises `MediaTooLarge` and is never shrunk or cut silently.

    Attributes:
        max_pixels: Most pixels (width x height) of one image, video frame or rendered page.
        max_bytes: Most bytes of one file, of encoded bytes handed in, or of one download.
        max_frames: Most frames that are decoded to sample one stretch of video.
        max_pages: Most pages of one PDF.
        max_text_chars: Most characters of one text file.
        max_duration_s: Longest video in seconds.

    Raises:
        InputError: When a limit is not positive.

    Example:
        >>> Limits(max_pages=50).max_pages
        50
    """

    max_pixels: int = 178_956_970 // 2
    max_bytes: int = 2 * 1024**3
    max_frames: int = 20_000
    max_pages: int = 2_000
    max_text_chars: int = 100_000
    max_duration_s: float = 6 * 3600.0

    def __post_init__(self) -> None:
        for field in fields(self):
            if not getattr(self, field.name) > 0:
                raise InputError(f"{field.name} must be greater than 0")


DEFAULT_LIMITS = Limits()
