"""Pixels as part of an HTML page: sized for reading and encoded as data addresses."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass

import PIL.Image

from ume_retrieval.report.annotate import BOX_COLOURS, box_edges, enlarge_tiny, to_rgb
from ume_retrieval.tcot.trace import Box

_LOSSLESS_UP_TO = 256


@dataclass(frozen=True, slots=True)
class Region:
    """A numbered box over a picture.

    Attributes:
        number: What is written on it, 1-based.
        left: Left edge in per cent of the picture's width, as are the others of width and height.
        top: Upper edge.
        width: Width, > 0.
        height: Height, > 0.
        colour: Colour of its line.
    """

    number: int
    left: float
    top: float
    width: float
    height: float
    colour: str


@dataclass(frozen=True, slots=True)
class Picture:
    """An image as the template places it.

    Attributes:
        src: `data:` address of the encoded pixels.
        alt: What it shows, in words.
        width: Width of the encoded image in pixels.
        height: Its height.
        shown_width: Width in CSS pixels at which it fits its place.
        regions: Boxes to draw over it.
    """

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

    Small images become PNG, others JPEG, at most twice as large as the place: sharp on dense screens, and no larger.

    Args:
        image: Any mode.
        alt: What it shows.
        place: Width and height in CSS pixels that it may fill.
        boxes: The trace's boxes, in order; those of other images are left out but keep their numbers.
        image_index: Which image of the item this is, 0-based.

    Returns:
        The picture, or None for an image without pixels.

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
    src = _png_address(rgb) if lossless else _jpeg_address(rgb)
    return Picture(src, alt, rgb.width, rgb.height, shown_width, regions)


def _png_address(rgb: PIL.Image.Image) -> str:
    buffer = io.BytesIO()
    rgb.save(buffer, "PNG", optimize=True)
    return f"data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode('ascii')}"


def _jpeg_address(rgb: PIL.Image.Image) -> str:
    buffer = io.BytesIO()
    rgb.save(buffer, "JPEG", quality=86, optimize=True)
    return f"data:image/jpeg;base64,{base64.b64encode(buffer.getvalue()).decode('ascii')}"


def _region(number: int, box: Box) -> Region:
    left, top, right, bottom = (min(1000, max(0, value)) / 10 for value in (box.x1, box.y1, box.x2, box.y2))
    colour = BOX_COLOURS[(number - 1) % len(BOX_COLOURS)]
    return Region(number, left, top, round(right - left, 1), round(bottom - top, 1), colour)
