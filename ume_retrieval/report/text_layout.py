"""Lay out text for drawing: load fonts, substitute missing glyphs, wrap and shorten lines."""

from __future__ import annotations

import bisect
import unicodedata
from functools import lru_cache
from pathlib import Path

import PIL.ImageFont

from ume_retrieval.errors import InputError
from ume_retrieval.report.sanitize import one_line

Font = PIL.ImageFont.FreeTypeFont | PIL.ImageFont.ImageFont
"""A font of Pillow."""

_LOOK_ALIKES = {
    "\u00d7": "x",  # multiplication sign
    "\u2010": "-",  # hyphen
    "\u2011": "-",  # non-breaking hyphen
    "\u2013": "-",  # en dash
    "\u2014": "-",  # em dash
    "\u2018": "'",  # single quotation marks
    "\u2019": "'",
    "\u2192": ">",  # arrow
    "\u2212": "-",  # minus sign
}
_NONCHARACTER = "\uffff"


@lru_cache(maxsize=32)
def load_font(size: int, path: Path | None = None) -> Font:
    """Load a font at a size in pixels: the file at `path`, or Pillow's own (Latin letters without accents).

    Raises:
        InputError: When `path` is not a readable font.

    Example:
        >>> load_font(12).getlength("wide") > load_font(12).getlength("w")
        True
    """
    if path is None:
        return PIL.ImageFont.load_default(size)
    try:
        return PIL.ImageFont.truetype(path, size)
    except OSError as error:
        raise InputError(
            f"cannot read the font {one_line(str(path))}", hint="give a TrueType or OpenType file (.ttf, .otf, .ttc)"
        ) from error


def drawable(text: str, font: Font) -> str:
    r"""Put a string on one line and replace characters that the font lacks by their base letter or a look-alike.

    A character with neither is kept, and drawn as the font's mark for a missing glyph.

    Example:
        >>> drawable("Café \N{EN DASH} 2", load_font(12))
        'Cafe - 2'
    """
    return "".join(_drawable_character(character, font) for character in one_line(text))


def wrap(text: str, font: Font, width: int, max_lines: int) -> list[str]:
    """Break a string into lines of at most `width` pixels; end it with an ellipsis if it does not fit.

    Lines break at spaces, and within a word that is wider than a line.

    Example:
        >>> wrap("one two three four", load_font(12), 60, 2)
        ['one two', 'three four']
        >>> wrap("one two three four", load_font(12), 60, 1)
        ['one two t…']
    """
    words = drawable(text, font).split()
    lines: list[str] = []
    while words and len(lines) < max_lines - 1:
        count = next((n for n in range(len(words)) if not _fits(" ".join(words[: n + 1]), font, width)), len(words))
        if count:
            lines.append(" ".join(words[:count]))
            del words[:count]
            continue
        cut = max(1, _fitting(words[0], font, width))
        lines.append(words[0][:cut])
        words[0] = words[0][cut:]
    rest = " ".join(words)
    if not _fits(rest, font, width):
        rest = rest[: _fitting(rest, font, width - font.getlength("…"))].rstrip() + "…"
    return [*lines, rest] if rest else lines


def shorten(text: str, font: Font, width: int) -> str:
    """Shorten a string to one line of at most `width` pixels, by an ellipsis in its middle.

    Example:
        >>> shorten("holiday/2024/08/beach.jpg", load_font(12), 120)
        'holiday/2…each.jpg'
    """
    line = drawable(text, font)
    if _fits(line, font, width):
        return line
    half = (width - font.getlength("…")) / 2
    return f"{line[: _fitting(line, font, half)]}…{line[len(line) - _fitting(line[::-1], font, half) :]}"


def _fits(text: str, font: Font, width: float) -> bool:
    return font.getlength(text) <= width


def _fitting(text: str, font: Font, width: float) -> int:
    """Count how many of the first characters fit a width."""
    return bisect.bisect_left(range(1, len(text) + 1), True, key=lambda count: not _fits(text[:count], font, width))


@lru_cache(maxsize=4096)
def _drawable_character(character: str, font: Font) -> str:
    if character.isascii() or _has_glyph(character, font):
        return character
    base = unicodedata.normalize("NFKD", character)[0]
    candidates = (_LOOK_ALIKES.get(character, ""), base)
    return next((candidate for candidate in candidates if candidate and _has_glyph(candidate, font)), character)


def _has_glyph(character: str, font: Font) -> bool:
    return bytes(font.getmask(character)) != bytes(font.getmask(_NONCHARACTER))
