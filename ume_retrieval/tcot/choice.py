"""The listwise question: which of these T-CoTs belongs to that one?

Training rewards a Reasoner with it (the process reward of arXiv 2602.13823, section 3.3); at search time the same
question reranks candidates.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final

from ume_retrieval.tcot.blocks import neutralise

CHOICE_TOKENS: Final = 16
"""Token limit of a reply: a number and a few words around it."""


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
    listed = "\n".join(f"{number}. {_one_line(text)}" for number, text in enumerate(candidates, 1))
    return f"""One description is followed by numbered candidates. Some are about the same thing as the description.
Compare objects, counts, attributes, places, order and answers; ignore style and length.
Reply with the number of the best candidate and nothing else.

Description: {_one_line(tcot)}

{listed}"""


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
