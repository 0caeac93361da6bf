"""The listwise question: which of these T-CoTs belongs to that one?

Training rewards a Reasoner with it (the process reward of arXiv 2602.13823, section 3.3); at search time the same
question reranks candidates.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import PIL.Image

from ume_retrieval.chat import Chat, ImagePart, Message, Part, TextPart
from ume_retrieval.tcot.blocks import neutralise

CHOICE_TOKENS: Final = 16
"""Token limit of a reply: a number and a few words around it."""


@dataclass(frozen=True, slots=True)
class Described:
    """One side of the question.

    Attributes:
        tcot: Its T-CoT.
        pictures: Evidence that is shown with it.
    """

    tcot: str
    pictures: tuple[PIL.Image.Image, ...] = ()


def choice_prompt(tcot: str, candidates: Sequence[str]) -> str:
    """Return the prompt of the question. The part that all questions share comes first, for prefix caching.

    Args:
        tcot: The T-CoT to find a match for.
        candidates: T-CoTs of the other side, shuffled by the caller, since models prefer some positions in a list.

    Example:
        >>> print(choice_prompt("a", ("b", "c")))
        One description is followed by numbered candidates. Some are about the same thing as the description.
        Compare objects, counts, attributes, places, order and answers; ignore style and length.
        Reply with the number of the best candidate and nothing else.
        <BLANKLINE>
        Description: a
        <BLANKLINE>
        1. b
        2. c
    """
    return "".join(_pieces(tcot, candidates))


def choice_chat(wanted: Described, candidates: Sequence[Described]) -> Chat:
    """Return the question as a chat, each T-CoT followed by its pictures; without pictures, `choice_prompt`.

    Example:
        >>> [message] = choice_chat(Described("a"), [Described("b"), Described("c")])
        >>> message.parts == (TextPart(choice_prompt("a", ["b", "c"])),)
        True
    """
    parts: list[Part] = []
    pieces = _pieces(wanted.tcot, [one.tcot for one in candidates])
    for piece, one in zip(pieces, (wanted, *candidates), strict=True):
        if parts and isinstance(parts[-1], TextPart):
            parts[-1] = TextPart(parts[-1].text + piece)
        else:
            parts.append(TextPart(piece))
        parts += map(ImagePart, one.pictures)
    return (Message("user", tuple(parts)),)


def _pieces(tcot: str, candidates: Sequence[str]) -> list[str]:
    """Return the prompt in pieces: up to the description, and one for each candidate."""
    listed = [f"\n{number}. {_one_line(text)}" for number, text in enumerate(candidates, 1)]
    intro = f"""One description is followed by numbered candidates. Some are about the same thing as the description.
Compare objects, counts, attributes, places, order and answers; ignore style and length.
Reply with the number of the best candidate and nothing else.

Description: {_one_line(tcot)}"""
    return [intro, *(f"\n{line}" if number == 0 else line for number, line in enumerate(listed))]


def _one_line(text: str) -> str:
    # A T-CoT is model output: it must not be able to add candidates or turns of its own.
    return " ".join(neutralise(text).split())


def read_choice(reply: str, count: int) -> int | None:
    """Return the 0-based position that a reply names, or None unless it names exactly one.

    Example:
        >>> read_choice("Candidate 2.", 3), read_choice("1 or 2", 3), read_choice("4", 3), read_choice("none", 3)
        (1, None, None, None)
    """
    numbers = {int(number) for number in re.findall(r"\d{1,6}", reply)}
    if len(numbers) != 1:
        return None
    (number,) = numbers
    return number - 1 if 1 <= number <= count else None
