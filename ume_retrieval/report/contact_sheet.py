"""Draw a report as one PNG: a row per query, with its best hits and their evidence."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import PIL.Image
import PIL.ImageDraw

from ume_retrieval.inputs import Frames
from ume_retrieval.report.annotate import draw_boxes, fit
from ume_retrieval.report.content import ReportHit, ReportPage, ReportQuery
from ume_retrieval.report.sanitize import clock, format_score
from ume_retrieval.report.text_layout import Font, load_font, shorten, wrap
from ume_retrieval.tcot.trace import Box, TCot
from ume_retrieval.util.files import atomic_write

MAX_TILES = 4
"""Most pictures of one item."""

_GROUND, _CARD, _WELL, _LINE = "#f4f5f8", "#ffffff", "#eceff4", "#dfe3ea"
_INK, _QUIET, _ACCENT, _GOOD, _BAD = "#161a22", "#596273", "#3257d6", "#0a7344", "#a8322a"

_MARGIN, _GAP, _PAD = 36, 18, 12
_ASKED_WIDTH, _CARD_WIDTH = 300, 250
_WELL_HEIGHT, _CAPTION_HEIGHT = 240, 122
_ROW_HEIGHT = _WELL_HEIGHT + _CAPTION_HEIGHT
_LABEL_HEIGHT, _TILE_GAP = 18, 6


def write_contact_sheet(
    page: ReportPage, path: str | Path, *, max_queries: int = 12, max_hits: int = 5, font: Path | None = None
) -> Path:
    """Write a report as one PNG image.

    Args:
        page: Content of the report.
        path: The file to write, replaced if it exists; missing folders are made.
        max_queries: Most rows; the number of further queries is written below them.
        max_hits: Most hits per row.
        font: A TrueType or OpenType file for scripts that Pillow's own font lacks; None for Pillow's own.

    Returns:
        The file's path.

    Raises:
        InputError: When the file cannot be written or the font cannot be read.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     write_contact_sheet(ReportPage("Holiday photos"), Path(folder) / "sheet.png").name
        'sheet.png'
    """
    sheet = draw_contact_sheet(page, max_queries=max_queries, max_hits=max_hits, font=font)
    encoded = io.BytesIO()
    sheet.save(encoded, "PNG", optimize=True)
    return atomic_write(path, encoded.getvalue(), what="the contact sheet")


def draw_contact_sheet(
    page: ReportPage, *, max_queries: int = 12, max_hits: int = 5, font: Path | None = None
) -> PIL.Image.Image:
    """Draw a report as an image; for the arguments see `write_contact_sheet`.

    Returns:
        An RGB image, wide enough for the query with most shown hits.

    Example:
        >>> one = ReportQuery("a beach", (ReportHit("a.jpg", "image", 0.8),))
        >>> low, high = (draw_contact_sheet(ReportPage("Photos", (one,) * rows)).height for rows in (1, 2))
        >>> high > low
        True
    """
    queries = page.queries[:max_queries]
    columns = max([2, *(min(max_hits, len(query.hits)) for query in queries)])
    width = 2 * _MARGIN + _ASKED_WIDTH + columns * (_CARD_WIDTH + _GAP)
    styles = _Styles.load(font)
    headline = styles.headline.wrap(page.title, width - 2 * _MARGIN, 2)
    facts = styles.quiet.wrap(" · ".join(f"{name}: {value}" for name, value in page.facts), width - 2 * _MARGIN, 2)
    more = len(page.queries) - len(queries)
    rows_top = _MARGIN + styles.headline.leading * len(headline) + styles.quiet.leading * len(facts) + 14
    rows_height = len(queries) * (_ROW_HEIGHT + 2 * _GAP)
    sheet = PIL.Image.new("RGB", (width, rows_top + rows_height + (40 if more else 8)), _GROUND)
    draw = PIL.ImageDraw.Draw(sheet)
    after = styles.headline.write(draw, (_MARGIN, _MARGIN), headline)
    styles.quiet.write(draw, (_MARGIN, after), facts)
    for row, query in enumerate(queries):
        top = rows_top + row * (_ROW_HEIGHT + 2 * _GAP)
        draw.line((_MARGIN, top, width - _MARGIN, top), fill=_LINE, width=2)
        _draw_query(sheet, (_MARGIN, top + _GAP), row + 1, query, styles=styles)
        if not query.hits:
            styles.quiet.write(draw, (_MARGIN + _ASKED_WIDTH + _GAP, top + _GAP + 4), ["Nothing was found."])
        for column, hit in enumerate(query.hits[:max_hits]):
            left = _MARGIN + _ASKED_WIDTH + _GAP + column * (_CARD_WIDTH + _GAP)
            _draw_hit(sheet, (left, top + _GAP), column + 1, hit, styles=styles)
    if more:
        styles.quiet.write(draw, (_MARGIN, rows_top + rows_height), [f"and {more:,} more"])
    return sheet


@dataclass(frozen=True, slots=True)
class _Style:
    """Style of text lines: font, line height in pixels, colour."""

    font: Font
    leading: int
    colour: str

    def wrap(self, text: str, width: int, max_lines: int) -> list[str]:
        return wrap(text, self.font, width, max_lines)

    def write(self, draw: PIL.ImageDraw.ImageDraw, corner: tuple[int, int], lines: Sequence[str]) -> int:
        """Write lines below a corner and return the y below the last one."""
        for index, line in enumerate(lines):
            draw.text((corner[0], corner[1] + index * self.leading), line, font=self.font, fill=self.colour)
        return corner[1] + len(lines) * self.leading


@dataclass(frozen=True, slots=True)
class _Styles:
    """All text styles of the sheet."""

    headline: _Style
    asked: _Style
    body: _Style
    quiet: _Style
    small: _Style
    answer: _Style

    @classmethod
    def load(cls, path: Path | None) -> _Styles:
        return cls(
            headline=_Style(load_font(30, path), 42, _INK),
            asked=_Style(load_font(21, path), 28, _INK),
            body=_Style(load_font(16, path), 23, _INK),
            quiet=_Style(load_font(16, path), 24, _QUIET),
            small=_Style(load_font(14, path), 20, _QUIET),
            answer=_Style(load_font(14, path), 19, _ACCENT),
        )


def _draw_query(
    sheet: PIL.Image.Image, corner: tuple[int, int], number: int, query: ReportQuery, *, styles: _Styles
) -> None:
    draw = PIL.ImageDraw.Draw(sheet)
    left, top = corner
    bottom = top + _ROW_HEIGHT - (26 if query.note else 0)
    label = styles.small.wrap(f"Query {number} · {query.task}" if query.task else f"Query {number}", _ASKED_WIDTH, 1)
    below = styles.small.write(draw, (left, top + 4), label) + 6
    tiles = choose_tiles(query.images, query.videos, query.trace)
    below = styles.asked.write(
        draw, (left, below), styles.asked.wrap(query.text or "", _ASKED_WIDTH, 4 if tiles else 10)
    )
    place_tiles(sheet, tiles, (left, below + 8, left + _ASKED_WIDTH - 20, min(below + 208, bottom)), styles.small.font)
    if query.note:
        styles.small.write(draw, (left, bottom + 6), styles.small.wrap(query.note, _ASKED_WIDTH, 1))


def _draw_hit(sheet: PIL.Image.Image, corner: tuple[int, int], rank: int, hit: ReportHit, *, styles: _Styles) -> None:
    draw = PIL.ImageDraw.Draw(sheet)
    left, top = corner
    right, bottom = left + _CARD_WIDTH, top + _ROW_HEIGHT
    outline, weight = (_GOOD, 3) if hit.relevant else (_LINE, 1)
    draw.rounded_rectangle((left, top, right, bottom), 12, fill=_CARD, outline=outline, width=weight)
    well = (left + weight, top + weight, right - weight, top + _WELL_HEIGHT)
    draw.rounded_rectangle(well, 12 - weight, fill=_WELL, corners=(True, True, False, False))
    area = (left + _PAD, top + _PAD, right - _PAD, top + _WELL_HEIGHT - _PAD)
    tiles = choose_tiles(hit.images, hit.videos, hit.trace)
    if tiles:
        place_tiles(sheet, tiles, area, styles.small.font)
    elif hit.text:
        styles.body.write(draw, area[:2], styles.body.wrap(hit.text, _CARD_WIDTH - 2 * _PAD, 9))
    else:
        styles.quiet.write(draw, area[:2], ["No preview"])
    _draw_caption(draw, (left + _PAD, top + _WELL_HEIGHT + 10), rank, hit, styles=styles)


def _draw_caption(
    draw: PIL.ImageDraw.ImageDraw, corner: tuple[int, int], rank: int, hit: ReportHit, *, styles: _Styles
) -> None:
    left, top = corner
    width = _CARD_WIDTH - 2 * _PAD
    title_width = width if hit.relevant is None else width - 24
    below = styles.body.write(draw, corner, [shorten(f"{rank}. {hit.title}", styles.body.font, title_width)])
    if hit.relevant is not None:
        _draw_verdict(draw, (left + width - 14, top + 2), correct=hit.relevant)
    facts = " · ".join(fact for fact in (format_score(hit.score), hit.kind, hit.place) if fact)
    below = styles.small.write(draw, (left, below + 2), styles.small.wrap(facts, width, 1))
    if hit.trace:
        styles.answer.write(draw, (left, below + 4), styles.answer.wrap(hit.trace.answer, width, 3))


def _draw_verdict(draw: PIL.ImageDraw.ImageDraw, corner: tuple[int, int], *, correct: bool) -> None:
    """Draw a tick or a cross of 14 pixels; Pillow's own font has neither."""
    x, y = corner
    if correct:
        draw.line([(x, y + 7), (x + 5, y + 12), (x + 14, y + 1)], fill=_GOOD, width=3, joint="curve")
        return
    draw.line((x + 2, y + 1, x + 12, y + 12), fill=_BAD, width=3)
    draw.line((x + 2, y + 12, x + 12, y + 1), fill=_BAD, width=3)


@dataclass(frozen=True, slots=True)
class Tile:
    """One picture of an item; `index` is its 0-based number among the item's images, `key` marks a key frame."""

    image: PIL.Image.Image
    boxes: tuple[Box, ...] = ()
    index: int = 0
    label: str = ""
    key: bool = False


def choose_tiles(images: Sequence[PIL.Image.Image], videos: Sequence[Frames], trace: TCot | None) -> list[Tile]:
    """Choose at most four pictures of an item: its images, then frames of its first video, key frames first.

    Frames are in order of time; frames spread over the whole video fill the places that key frames leave.

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
    """Draw tiles into an area (left, top, right, bottom) of a sheet: one alone or two per row, as large as they fit."""
    if not tiles:
        return
    draw = PIL.ImageDraw.Draw(sheet)
    columns = min(2, len(tiles))
    rows = -(-len(tiles) // columns)
    cell_width = (area[2] - area[0] - _TILE_GAP * (columns - 1)) // columns
    cell_height = (area[3] - area[1] - _TILE_GAP * (rows - 1)) // rows
    for index, tile in enumerate(tiles):
        label_height = _LABEL_HEIGHT if tile.label else 0
        shown = fit(tile.image, cell_width, max(1, cell_height - label_height))
        shown = draw_boxes(shown, tile.boxes, image_index=tile.index)
        left = area[0] + index % columns * (cell_width + _TILE_GAP) + (cell_width - shown.width) // 2
        top = area[1] + index // columns * (cell_height + _TILE_GAP) + (cell_height - label_height - shown.height) // 2
        sheet.paste(shown, (left, top))
        if tile.key:
            border = (left - 2, top - 2, left + shown.width + 1, top + shown.height + 1)
            draw.rectangle(border, outline=_ACCENT, width=3)
        if tile.label:
            label = f"{tile.label} key" if tile.key else tile.label
            middle = (left + shown.width / 2, top + shown.height + label_height / 2 + 1)
            draw.text(middle, label, font=label_font, fill=_ACCENT if tile.key else _QUIET, anchor="mm")


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
