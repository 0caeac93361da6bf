"""A mixed corpus from a seed: short and long texts, pictures of many sizes, with and without words, and clips."""

from __future__ import annotations

import random

import numpy as np
import PIL.Image

from ume_retrieval.checkpoint import VisualBudget
from ume_retrieval.engines.resize import fit_frames, fit_image
from ume_retrieval.inputs import Frames, Item

SAID = """
red green blue yellow circle square triangle cross star top left right middle bottom scene find image the a of and in
over under where is what shows page stock list price count small large row column clip moves from to
"""
WORDS = SAID.split()

SHARES = {"short text": 0.35, "long text": 0.15, "picture": 0.2, "picture and words": 0.15, "clip": 0.15}


def mixed_corpus(count: int, budget: VisualBudget, seed: int = 0) -> list[tuple[str, Item]]:
    """Kinds and items; pictures are fitted to the budget already."""
    rng = random.Random(seed)
    kinds = rng.choices(list(SHARES), weights=list(SHARES.values()), k=count)
    return [(kind, _item(kind, rng, budget)) for kind in kinds]


INSTRUCTION = "find the page that answers the question about the list of shapes"


def instructed_corpus(count: int, seed: int = 0) -> list[tuple[str, Item]]:
    """Short texts of one task, each with the same instruction, as retrieval benchmarks ask their queries."""
    rng = random.Random(seed)
    return [("short text", Item(text=_words(rng, rng.randint(3, 16)), instruction=INSTRUCTION)) for _ in range(count)]


def _item(kind: str, rng: random.Random, budget: VisualBudget) -> Item:
    if kind == "short text":
        return Item(text=_words(rng, rng.randint(3, 16)))
    if kind == "long text":
        return Item(text=_words(rng, rng.randint(80, 400)))
    if kind == "clip":
        count, size = rng.randint(2, 8), (rng.randint(64, 320), rng.randint(64, 320))
        pictures = tuple(_picture(rng, size) for _ in range(count))
        frames = Frames(pictures, tuple(n / 2 for n in range(count)), count / 2)
        return Item(videos=(fit_frames(frames, budget),))
    picture = _picture(rng, (rng.randint(48, 640), rng.randint(48, 640)))
    fitted = fit_image(picture, budget.image_min_pixels, budget.image_max_pixels)
    return Item(text=_words(rng, rng.randint(3, 12)) if kind == "picture and words" else None, images=(fitted,))


def _words(rng: random.Random, count: int) -> str:
    return " ".join(rng.choice(WORDS) for _ in range(count))


def _picture(rng: random.Random, size: tuple[int, int]) -> PIL.Image.Image:
    """Rectangles of random colours."""
    width, height = size
    pixels = np.full((height, width, 3), [rng.randrange(256) for _ in range(3)], np.uint8)
    for _ in range(6):
        left, top = rng.randrange(width), rng.randrange(height)
        pixels[top : top + height // 3, left : left + width // 3] = [rng.randrange(256) for _ in range(3)]
    return PIL.Image.fromarray(pixels)
