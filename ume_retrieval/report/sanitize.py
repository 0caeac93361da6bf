"""Make untrusted text safe to display, mark keywords in it, and format times and scores."""

from __future__ import annotations

import math
import re
import unicodedata
from dataclasses import dataclass

MAX_CHARS = 8_000
"""Longest text that a report shows; further characters are only counted."""

MAX_KEYWORDS = 64
"""Most keywords of one trace that a report marks and lists."""

_HIDDEN_CATEGORIES = frozenset({"Cc", "Cs", "Co"})
_BIDI_CONTROLS = frozenset("\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")
_INVISIBLE = frozenset("\u00ad\u200b\u2028\u2029\u2060\ufeff\ufff9\ufffa\ufffb")


def escape_control(text: str, max_chars: int = MAX_CHARS) -> str:
    r"""Escape control characters, so that any string is safe to display.

    Control characters, lone surrogates (file names that are not UTF-8), direction overrides and characters without
    width are written as `<U+202E>`. Line breaks, tabs and the joiners that scripts and emoji need are kept. Does not
    escape HTML; the template does.

    Example:
        >>> escape_control("photo\u202egpj.exe\x00")
        'photo<U+202E>gpj.exe<U+0000>'
        >>> escape_control("abcdef", max_chars=4)
        'abcd … (2 more characters)'
    """
    rest = len(text) - max_chars
    shown = text[:max_chars].replace("\r\n", "\n").replace("\r", "\n")
    escaped = "".join(map(_escape_character, shown))
    return f"{escaped} … ({rest:,} more characters)" if rest > 0 else escaped


def one_line(text: str, max_chars: int = MAX_CHARS) -> str:
    r"""Escape control characters and collapse white space, so that a string takes one line.

    Example:
        >>> one_line("two\n  lines")
        'two lines'
    """
    return " ".join(escape_control(text, max_chars).split())


@dataclass(frozen=True, slots=True)
class Run:
    """A part of a text, `marked` when it is a keyword."""

    text: str
    marked: bool


def mark_keywords(text: str, keywords: tuple[str, ...]) -> tuple[Run, ...]:
    """Split `text` at keywords, longest keyword first, ignoring case.

    Scripts that put spaces between words match whole words only; a space in a keyword matches any white space.

    Example:
        >>> [run.text for run in mark_keywords("A red circle, a redder square", ("red circle", "red")) if run.marked]
        ['red circle']
        >>> "".join(run.text for run in mark_keywords("anything", ()))
        'anything'
    """
    wanted = sorted({one_line(keyword) for keyword in keywords[:MAX_KEYWORDS]} - {""}, key=len, reverse=True)
    if not wanted:
        return (Run(text, marked=False),) if text else ()
    pattern = "|".join(_whole_word(keyword) for keyword in wanted)
    pieces = re.split(f"({pattern})", text, flags=re.IGNORECASE)
    return tuple(Run(piece, marked=position % 2 == 1) for position, piece in enumerate(pieces) if piece)


def clock(seconds: float) -> str:
    """Format seconds of a video as m:ss.t, with hours from one hour on.

    Example:
        >>> clock(3.25), clock(75), clock(3725.04)
        ('0:03.2', '1:15.0', '1:02:05.0')
    """
    if not math.isfinite(seconds * 10):
        return "?"
    tenths = round(abs(seconds) * 10)
    minutes, tenths = divmod(tenths, 600)
    hours, minutes = divmod(minutes, 60)
    tail = f"{tenths // 10:02d}.{tenths % 10}"
    sign = "-" if seconds < 0 and (hours or minutes or tenths) else ""
    return f"{sign}{hours}:{minutes:02d}:{tail}" if hours else f"{sign}{minutes}:{tail}"


def format_score(score: float) -> str:
    """Format a score with three decimals.

    Example:
        >>> format_score(0.8125), format_score(float("nan"))
        ('0.812', 'unknown')
    """
    return f"{score:.3f}" if math.isfinite(score) else "unknown"


def plural(count: int, noun: str) -> str:
    """Format a count with its noun.

    Example:
        >>> plural(1, "region"), plural(3, "region")
        ('1 region', '3 regions')
    """
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}s"


def _escape_character(character: str) -> str:
    if character in "\n\t":
        return character
    code = ord(character)
    hidden = (
        unicodedata.category(character) in _HIDDEN_CATEGORIES
        or character in _BIDI_CONTROLS
        or character in _INVISIBLE
        or 0xE0000 <= code <= 0xE007F  # tags: invisible letters
        or 0xFDD0 <= code <= 0xFDEF  # noncharacters
        or code & 0xFFFE == 0xFFFE
    )
    return f"<U+{code:04X}>" if hidden else character


def _whole_word(keyword: str) -> str:
    before = r"(?<!\w)" if _has_word_boundaries(keyword[0]) else ""
    after = r"(?!\w)" if _has_word_boundaries(keyword[-1]) else ""
    return before + r"\s+".join(re.escape(word) for word in keyword.split()) + after


def _has_word_boundaries(character: str) -> bool:
    return character.isdecimal() or character.lower() != character.upper()
