"""The report as one PNG: a row for each query, with its best hits and the evidence drawn on them."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import PIL.Image
import PIL.ImageDraw

from ume_retrieval.report.content import ReportHit, ReportPage, ReportQuery
from ume_retrieval.report.lettering import Font, load_font, shorten, wrap
from ume_retrieval.report.tiles import choose_tiles, place_tiles
from ume_retrieval.report.wording import score_in_words
from ume_retrieval.util.files import atomic_write

_GROUND, _CARD, _WELL, _LINE = "#f4f5f8", "#ffffff", "#eceff4", "#dfe3ea"
_INK, _QUIET, _ACCENT, _GOOD, _BAD = "#161a22", "#596273", "#3257d6", "#0a7344", "#a8322a"

_MARGIN, _GAP, _PAD = 36, 18, 12
_ASKED_WIDTH, _CARD_WIDTH = 300, 250
_WELL_HEIGHT, _CAPTION_HEIGHT = 240, 122
_ROW_HEIGHT = _WELL_HEIGHT + _CAPTION_HEIGHT


def write_contact_sheet(
    page: ReportPage, path: str | Path, *, max_queries: int = 12, max_hits: int = 5, font: Path | None = None
) -> Path:
    """Write a report as one PNG image.

    Args:
        page: What to show.
        path: The file to write, replaced if it exists; missing folders are made.
        max_queries: Rows at most; how many more there are is written below them.
        max_hits: Hits a row at most.
        font: A TrueType or OpenType file for scripts that Pillow's own font lacks; None takes Pillow's own.

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
    """Draw a report as an image; arguments as for `write_contact_sheet`.

    Returns:
        An RGB image, as wide as the query with most shown hits needs.

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
    """How lines of text are written: font, distance from line to line in pixels, colour."""

    font: Font
    leading: int
    colour: str

    def wrap(self, text: str, width: int, max_lines: int) -> list[str]:
        return wrap(text, self.font, width, max_lines)

    def write(self, draw: PIL.ImageDraw.ImageDraw, corner: tuple[int, int], lines: Sequence[str]) -> int:
        """Write lines from a corner down; returns the y below the last one."""
        for index, line in enumerate(lines):
            draw.text((corner[0], corner[1] + index * self.leading), line, font=self.font, fill=self.colour)
        return corner[1] + len(lines) * self.leading


@dataclass(frozen=True, slots=True)
class _Styles:
    """The sheet's styles."""

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
    facts = " · ".join(fact for fact in (score_in_words(hit.score), hit.kind, hit.place) if fact)
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
