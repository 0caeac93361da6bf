"""Levels of difficulty: which attributes occur, and how similar the look-alikes are."""

from __future__ import annotations

from dataclasses import dataclass

RGB = tuple[int, int, int]

COLOURS: dict[str, RGB] = {
    "red": (214, 48, 49),
    "green": (39, 174, 96),
    "blue": (52, 98, 219),
    "yellow": (241, 196, 15),
    "purple": (142, 68, 173),
    "orange": (230, 126, 34),
    "brown": (121, 85, 61),
    "black": (45, 52, 54),
}

SHAPES = ("circle", "square", "triangle", "cross", "ring", "star", "diamond", "hexagon")

TEXTURES = ("plain", "striped", "dotted")

MOTIONS = ("right", "left", "down", "up")

QUESTIONS = ("what", "where", "how many")

ROWS = ("top", "middle", "bottom")
COLUMNS = ("left", "center", "right")

NUMBERS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")


@dataclass(frozen=True, slots=True)
class Level:
    """One difficulty.

    Attributes:
        name: What recipes and reports call it.
        colours: Names from `COLOURS` that occur.
        shapes: Names from `SHAPES` that occur.
        textures: Names from `TEXTURES` that occur; "plain" alone means that texture is never said.
        most_things: Most things in a scene, 2..9.
        questions: What is asked of images: "what" is at a place, "where" a thing is, "how many" have a colour.
        page_rows: Most rows of a page, 2..3.
    """

    name: str
    colours: tuple[str, ...]
    shapes: tuple[str, ...]
    textures: tuple[str, ...] = ("plain",)
    most_things: int = 4
    questions: tuple[str, ...] = QUESTIONS
    page_rows: int = 3


LEVELS = {
    level.name: level
    for level in (
        # To find a thing by its looks among several is more than the bundled pair learns; to look at a place is not.
        Level("default", tuple(COLOURS)[:4], SHAPES[:4], questions=QUESTIONS[:1]),
        Level("questions", tuple(COLOURS)[:4], SHAPES[:4]),
        Level("rich", tuple(COLOURS)[:6], SHAPES[:6], most_things=5),
        Level("hard", tuple(COLOURS), SHAPES, TEXTURES, most_things=7),
    )
}
"""`default` is what the bundled pair answers; the others leave room for stronger models and for training."""
