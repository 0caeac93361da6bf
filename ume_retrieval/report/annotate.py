"""Draw evidence on images: numbered boxes, and frames scaled to a tile."""

from __future__ import annotations

import math
from collections.abc import Iterable

import PIL.Image
import PIL.ImageDraw
import PIL.ImageFont

from ume_retrieval.media import to_rgb
from ume_retrieval.tcot.trace import Box

BOX_COLOURS = ("#d6125a", "#0079a8", "#b35c00", "#6a44e0", "#0a7d4b")
"""Colours of boxes in turn; white numbers are readable on them, and a white halo sets them off from dark images."""

_TINY_UP_TO = 128
_BoxEdges = tuple[float, float, float, float]


def draw_boxes(image: PIL.Image.Image, boxes: Iterable[Box], *, image_index: int = 0) -> PIL.Image.Image:
    """Draw numbered boxes on a copy of an image; lines run around the marked region, where there is room.

    Args:
        image: Any mode and size of at least 1 x 1 pixels.
        boxes: Regions in 0..1000. Boxes of other images are skipped but keep their numbers; values out of range are
            clamped; a box without area is skipped.
        image_index: Which image of the item this is, 0-based.

    Returns:
        A new RGB image of the same size, upright.

    Example:
        >>> marked = draw_boxes(PIL.Image.new("RGB", (200, 100), "white"), [Box(500, 0, 1000, 1000)])
        >>> marked.size, marked.getpixel((50, 50)), marked.getpixel((98, 50))
        ((200, 100), (255, 255, 255), (214, 18, 90))
    """
    marked = to_rgb(image)
    draw = PIL.ImageDraw.Draw(marked)
    stroke = max(2, round(min(marked.size) / 110))
    font = PIL.ImageFont.load_default(max(11, stroke * 5))
    for number, box in enumerate(boxes, start=1):
        edges = box_edges(box, marked.size)
        if box.image != image_index or edges is None:
            continue
        colour = BOX_COLOURS[(number - 1) % len(BOX_COLOURS)]
        draw.rectangle(_grown(edges, stroke + 1, marked.size), outline="white")
        draw.rectangle(_grown(edges, stroke, marked.size), outline=colour, width=stroke)
        _draw_number(draw, str(number), edges, colour=colour, font=font, size=marked.size)
    return marked


def box_edges(box: Box, size: tuple[int, int]) -> _BoxEdges | None:
    """Turn a relative box into pixel edges.

    Args:
        box: Values in 0..1000; others are clamped.
        size: Width and height in pixels.

    Returns:
        (left, top, right, bottom) within the image, or None for a box without area.

    Example:
        >>> box_edges(Box(-5, 250, 500, 1200), (201, 101))
        (0.0, 25.0, 100.0, 100.0)
        >>> box_edges(Box(10, 10, 10, 500), (201, 101)) is None
        True
    """
    x1, y1, x2, y2 = (min(1000, max(0, value)) for value in (box.x1, box.y1, box.x2, box.y2))
    if x1 >= x2 or y1 >= y2:
        return None
    width, height = size[0] - 1, size[1] - 1
    return (x1 * width / 1000, y1 * height / 1000, x2 * width / 1000, y2 * height / 1000)


def fit(image: PIL.Image.Image, width: int, height: int) -> PIL.Image.Image:
    """Scale an image to fit `width` x `height` pixels, keeping its aspect ratio; small images are enlarged.

    Example:
        >>> fit(PIL.Image.new("RGB", (96, 48)), 240, 240).size
        (240, 120)
        >>> fit(PIL.Image.new("L", (3000, 1)), 240, 240).size
        (240, 1)
    """
    rgb = to_rgb(image)
    scale = min(width / rgb.width, height / rgb.height)
    size = (max(1, round(rgb.width * scale)), max(1, round(rgb.height * scale)))
    return enlarge_tiny(rgb, scale).resize(size, PIL.Image.Resampling.LANCZOS)


def enlarge_tiny(image: PIL.Image.Image, scale: float) -> PIL.Image.Image:
    """Enlarge an image of at most 128 pixels a side by a whole factor, without smoothing.

    Args:
        image: Any mode. Larger images are returned unchanged.
        scale: Least factor; rounded up.

    Example:
        >>> [enlarge_tiny(PIL.Image.new("RGB", (width, 96)), 2.3).size for width in (96, 200)]
        [(288, 288), (200, 96)]
    """
    if max(image.size) > _TINY_UP_TO:
        return image
    whole = max(1, math.ceil(scale))
    return image.resize((image.width * whole, image.height * whole), PIL.Image.Resampling.NEAREST)


def _draw_number(
    draw: PIL.ImageDraw.ImageDraw,
    number: str,
    edges: _BoxEdges,
    *,
    colour: str,
    font: PIL.ImageFont.FreeTypeFont | PIL.ImageFont.ImageFont,
    size: tuple[int, int],
) -> None:
    """Write a box's number on a tab above its upper left corner, moved inwards at the edge of the image."""
    _, _, text_width, text_height = draw.textbbox((0, 0), number, font=font, anchor="lt")
    width, height = text_width + 8, text_height + 6
    left = max(0, min(edges[0], size[0] - width))
    top = max(0, edges[1] - height)
    draw.rectangle((left, top, left + width, top + height), fill=colour, outline="white")
    draw.text((left + width / 2, top + height / 2), number, fill="white", font=font, anchor="mm")


def _grown(edges: _BoxEdges, by: int, size: tuple[int, int]) -> _BoxEdges:
    left, top, right, bottom = edges
    return (max(0, left - by), max(0, top - by), min(size[0] - 1, right + by), min(size[1] - 1, bottom + by))
