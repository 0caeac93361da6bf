"""The true T-CoT of everything in the world: what a perfect Reasoner would write."""

from __future__ import annotations

from ume_retrieval.tcot.trace import Box, TCot
from ume_training.shapes.levels import NUMBERS
from ume_training.shapes.world import Clip, Look, Page, Scene, Thing

_EDGES = ((40, 293), (373, 627), (707, 960))
"""Left and right edge of each column's things, relative to 1000; rows are alike. Jitter stays inside."""

FRAMES_PER_SECOND = 2
"""Frame numbers in T-CoTs count frames sampled at this rate, from 1."""


def thing_box(cell: int) -> Box:
    """Return the box of a cell's thing."""
    (x1, x2), (y1, y2) = _EDGES[cell % 3], _EDGES[cell // 3]
    return Box(x1, y1, x2, y2)


def row_box(row: int) -> Box:
    """Return the box of a page's row, with thing and number."""
    top = 250 * (row + 1)
    return Box(40, top + 30, 627, top + 220)


def scene_tcot(scene: Scene) -> TCot:
    """Box every thing, then describe each with its place."""
    return TCot(
        thinking=f"{NUMBERS[len(scene.things)]} shapes",
        boxes=tuple(thing_box(thing.cell) for thing in scene.things),
        rethink=", ".join(thing.look.words for thing in scene.things),
        answer=scene.words,
    )


def scene_question_tcot(scene: Scene, evidence: list[Thing], rethink: str, answer: str) -> TCot:
    """Describe the whole scene, then box the things that decide, then answer.

    The things are named with their places before they are boxed. With a small model this improved grounding, from 21 of
    24 to 32 of 32, but not questions and changes that name a thing by its looks.
    """
    return TCot(
        thinking=f"{scene.words}; see {', '.join(thing.words for thing in evidence)}",
        boxes=tuple(thing_box(thing.cell) for thing in evidence),
        rethink=rethink,
        answer=answer,
    )


def clip_tcot(clip: Clip) -> TCot:
    """Name the action, the frames that show the guest, then the whole clip."""
    return clip_question_tcot(clip, clip.words)


def clip_question_tcot(clip: Clip, answer: str) -> TCot:
    """Name the action, the frames that show the guest, the guest, then the answer."""
    last = clip.second * FRAMES_PER_SECOND
    return TCot(
        thinking=clip.action,
        key_frames=(last - 1, last),
        rethink=f"{clip.guest.words} second {clip.second}",
        answer=answer,
    )


def page_tcot(page: Page) -> TCot:
    """Box every row, then describe each with its number."""
    return TCot(
        thinking=f"page of {NUMBERS[len(page.rows)]} rows",
        boxes=tuple(row_box(index) for index in range(len(page.rows))),
        rethink=", ".join(row.look.words for row in page.rows),
        answer=page.words,
    )


def crop_tcot(look: Look) -> TCot:
    """Describe a picture that one thing fills."""
    return TCot(thinking="one shape", boxes=(Box(0, 0, 1000, 1000),), rethink=look.words, answer=look.words)


def text_tcot(text: str) -> TCot:
    """Take the text's phrases as keywords, and the text as the answer, which a small model can copy."""
    return TCot(thinking="text", keywords=tuple(text.split(", ")), rethink="as said", answer=text)
