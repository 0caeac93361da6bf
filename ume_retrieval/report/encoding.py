"""Encode images for an HTML page: scaled to their place, as data addresses."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import PIL.Image

from ume_retrieval.media import to_rgb
from ume_retrieval.report.annotate import BOX_COLOURS, box_edges, enlarge_tiny
from ume_retrieval.tcot.trace import Box

_LOSSLESS_UP_TO = 256


@dataclass(frozen=True, slots=True)
class Region:
    """A numbered box over a picture; edges and sizes are in per cent of the picture's width or height."""

    number: int
    left: float
    top: float
    width: float
    height: float
    colour: str


@dataclass(frozen=True, slots=True)
class Picture:
    """An image for the template: `src` is a `data:` address, `shown_width` is in CSS pixels."""

    src: str
    alt: str
    width: int
    height: int
    shown_width: int
    regions: tuple[Region, ...] = ()


def picture(
    image: PIL.Image.Image, alt: str, place: tuple[int, int], *, boxes: Sequence[Box] = (), image_index: int = 0
) -> Picture | None:
    """Encode an image for a place on the page.

    Small images become PNG, others JPEG, at most twice as large as the place, for screens of high density.

    Args:
        image: Any mode.
        alt: Alternative text.
        place: Most width and height in CSS pixels.
        boxes: The trace's boxes; those of other images are skipped but keep their numbers.
        image_index: Which image of the item this is, 0-based.

    Returns:
        The picture; None for an image without pixels.

    Example:
        >>> shown = picture(PIL.Image.new("RGB", (96, 48), "red"), "a red field", (300, 300))
        >>> shown.src[:22], (shown.width, shown.height), shown.shown_width
        ('data:image/png;base64,', (384, 192), 300)
    """
    if not image.width or not image.height:
        return None
    rgb = to_rgb(image)
    rgb.thumbnail((place[0] * 2, place[1] * 2), PIL.Image.Resampling.LANCZOS)
    scale = min(place[0] / rgb.width, place[1] / rgb.height)
    shown_width = max(1, round(rgb.width * scale))
    lossless = max(rgb.size) <= _LOSSLESS_UP_TO
    rgb = enlarge_tiny(rgb, scale)
    regions = tuple(
        _region(number, box)
        for number, box in enumerate(boxes, start=1)
        if box.image == image_index and box_edges(box, rgb.size)
    )
    src = _data_address(rgb, "PNG") if lossless else _data_address(rgb, "JPEG", quality=86)
    return Picture(src, alt, rgb.width, rgb.height, shown_width, regions)


def _data_address(rgb: PIL.Image.Image, form: str, **options: Any) -> str:
    buffer = io.BytesIO()
    rgb.save(buffer, form, optimize=True, **options)
    return f"data:image/{form.lower()};base64,{base64.b64encode(buffer.getvalue()).decode('ascii')}"


def _region(number: int, box: Box) -> Region:
    left, top, right, bottom = (min(1000, max(0, value)) / 10 for value in (box.x1, box.y1, box.x2, box.y2))
    colour = BOX_COLOURS[(number - 1) % len(BOX_COLOURS)]
    return Region(number, left, top, round(right - left, 1), round(bottom - top, 1), colour)
