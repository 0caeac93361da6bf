"""What a contact sheet shows of one item: up to four pictures, placed in an area."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import PIL.Image
import PIL.ImageDraw

from ume_retrieval.inputs import Frames
from ume_retrieval.report.annotate import draw_boxes, fit
from ume_retrieval.report.lettering import Font
from ume_retrieval.report.wording import clock
from ume_retrieval.tcot.trace import Box, TCot

MAX_TILES = 4
"""Most pictures of one item."""

KEY_COLOUR = "#3257d6"
"""Colour of a key frame's border and time."""

_LABEL_COLOUR = "#596273"
_LABEL_HEIGHT = 18
_GAP = 6


@dataclass(frozen=True, slots=True)
class Tile:
    """One picture of an item.

    Attributes:
        image: Pixels, any mode, at least 1 x 1.
        boxes: The trace's boxes over the item.
        index: Which image of the item this is, 0-based.
        label: What stands under it, such as its second; may be empty.
        key: Whether it is a key frame.
    """

    image: PIL.Image.Image
    boxes: tuple[Box, ...] = ()
    index: int = 0
    label: str = ""
    key: bool = False


def choose_tiles(images: Sequence[PIL.Image.Image], videos: Sequence[Frames], trace: TCot | None) -> list[Tile]:
    """Choose at most four pictures of an item: its images, then frames of its first video, key frames before others.

    Frames come in the order of time; where key frames leave room, frames spread over the whole video fill it.

    Example:
        >>> frames = Frames((PIL.Image.new("RGB", (8, 8)),) * 6, (0.0, 1.0, 2.0, 3.0, 4.0, 5.0), 6.0)
        >>> [(tile.label, tile.key) for tile in choose_tiles((), (frames,), TCot(key_frames=(5,)))]
        [('0:00.0', False), ('0:02.0', False), ('0:03.0', False), ('0:04.0', True)]
    """
    trace = trace or TCot()
    tiles = [Tile(image, trace.boxes, index) for index, image in enumerate(images) if image.width and image.height]
    for video in videos[:1]:
        tiles += [tile for number in _frame_numbers(video, trace) if (tile := _frame_tile(video, number, trace))]
    return tiles[:MAX_TILES]


def place_tiles(
    sheet: PIL.Image.Image, tiles: Sequence[Tile], area: tuple[int, int, int, int], label_font: Font
) -> None:
    """Draw tiles into an area of a sheet, one alone or two a line, each as large as it fits.

    Args:
        sheet: The image that is drawn on.
        tiles: What to place, in reading order.
        area: Left, top, right and bottom in pixels.
        label_font: What labels are written with.
    """
    if not tiles:
        return
    draw = PIL.ImageDraw.Draw(sheet)
    columns = min(2, len(tiles))
    rows = -(-len(tiles) // columns)
    cell_width = (area[2] - area[0] - _GAP * (columns - 1)) // columns
    cell_height = (area[3] - area[1] - _GAP * (rows - 1)) // rows
    for index, tile in enumerate(tiles):
        label_height = _LABEL_HEIGHT if tile.label else 0
        shown = fit(tile.image, cell_width, max(1, cell_height - label_height))
        shown = draw_boxes(shown, tile.boxes, image_index=tile.index)
        left = area[0] + index % columns * (cell_width + _GAP) + (cell_width - shown.width) // 2
        top = area[1] + index // columns * (cell_height + _GAP) + (cell_height - label_height - shown.height) // 2
        sheet.paste(shown, (left, top))
        if tile.key:
            border = (left - 2, top - 2, left + shown.width + 1, top + shown.height + 1)
            draw.rectangle(border, outline=KEY_COLOUR, width=3)
        if tile.label:
            label = f"{tile.label} key" if tile.key else tile.label
            middle = (left + shown.width / 2, top + shown.height + label_height / 2 + 1)
            draw.text(middle, label, font=label_font, fill=KEY_COLOUR if tile.key else _LABEL_COLOUR, anchor="mm")


def _frame_numbers(video: Frames, trace: TCot) -> list[int]:
    """Pick frame numbers (1-based): the key frames, then an even spread, in the order of time."""
    count = len(video.images)
    keys = [number for number in trace.key_frames if 1 <= number <= count]
    spread = [1 + round(step * (count - 1) / (MAX_TILES - 1)) for step in range(MAX_TILES)]
    return sorted(list(dict.fromkeys([*keys, *spread]))[:MAX_TILES])


def _frame_tile(video: Frames, number: int, trace: TCot) -> Tile | None:
    image = video.images[number - 1]
    if not image.width or not image.height:
        return None
    return Tile(image, label=clock(video.timestamps[number - 1]), key=number in trace.key_frames)
