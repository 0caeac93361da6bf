"""The Traceability chain of thought as a value (arXiv 2602.13823, section 3)."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Box:
    """A region of one image, relative to its size.

    Attributes:
        x1: Left edge, 0..1000.
        y1: Top edge, 0..1000.
        x2: Right edge, 0..1000, > x1.
        y2: Bottom edge, 0..1000, > y1.
        image: Which image of the item, 0-based.
    """

    x1: int
    y1: int
    x2: int
    y2: int
    image: int = 0


@dataclass(frozen=True, slots=True)
class Problem:
    """Something that is wrong with a T-CoT, by name.

    Attributes:
        name: One of `grammar.PROBLEMS`, for counting.
        detail: What was seen, short, for reading.
    """

    name: str
    detail: str = ""


@dataclass(frozen=True, slots=True)
class TCot:
    """A parsed T-CoT: thinking with its evidence cue, a second thought, and the answer.

    Attributes:
        thinking: Text of the `<thinking>` block without its JSON cues, stripped.
        rethink: Text of the `<rethink>` block, stripped.
        answer: Text of the `<answer>` block, stripped.
        keywords: The `text_keywords` cue.
        boxes: The `bbox_2d` cue.
        key_frames: The `key_frames` cue, frame numbers 1-based.
        problems: What is wrong with the text that it was parsed from; empty when nothing is.
        raw: The text that it was parsed from; empty when built by hand.
    """

    thinking: str = ""
    rethink: str = ""
    answer: str = ""
    keywords: tuple[str, ...] = ()
    boxes: tuple[Box, ...] = ()
    key_frames: tuple[int, ...] = ()
    problems: tuple[Problem, ...] = ()
    raw: str = ""
