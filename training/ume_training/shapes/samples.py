"""Both sides of a retrieval pair as frozen values: media, text, and the true T-CoT."""

from __future__ import annotations

import hashlib
import random
from dataclasses import dataclass
from functools import cached_property
from typing import TypeAlias

import PIL.Image

from ume_retrieval.inputs import Frames, LoadedItem, Modality
from ume_retrieval.tcot.trace import TCot
from ume_training.shapes.draw import CELL, draw_clip, draw_page, draw_scene
from ume_training.shapes.truth import FRAMES_PER_SECOND
from ume_training.shapes.world import CLIP_SECONDS, Clip, Look, Page, Scene, Thing


@dataclass(frozen=True, slots=True)
class Crop:
    """A picture of one thing, cut out of a scene."""

    look: Look


Shown: TypeAlias = Scene | Clip | Page | Crop


@dataclass(frozen=True)
class Sample:
    """One side of a pair.

    Attributes:
        text: What is said, or None.
        shown: What is drawn, or None.
        tcot: What a perfect Reasoner writes about it.
        facts: Everything true of it that a query could ask for.
    """

    text: str | None
    shown: Shown | None
    tcot: TCot
    facts: frozenset[str] = frozenset()

    @cached_property
    def modality(self) -> Modality:
        """The modality that decides prompt and cue."""
        if self.shown is None:
            return "text"
        return "video" if isinstance(self.shown, Clip) else "image"

    def item(self, rng: random.Random) -> LoadedItem:
        """Draw it. `rng` moves things by a pixel or two, so that no two drawings need be equal."""
        digest = hashlib.sha256(repr((self.text, self.shown, rng.random())).encode()).hexdigest()
        images: tuple[PIL.Image.Image, ...] = ()
        videos: tuple[Frames, ...] = ()
        if isinstance(self.shown, Clip):
            videos = (clip_frames(self.shown),)
        elif self.shown is not None:
            images = (draw(self.shown, rng),)
        return LoadedItem(self.text, images, videos, None, digest)


@dataclass(frozen=True, slots=True)
class Pair:
    """A query and the item that answers it.

    Attributes:
        task: Name of the task.
        query: The query.
        positive: The item that answers it.
        asks: What an item must have among its facts to answer the query.
    """

    task: str
    query: Sample
    positive: Sample
    asks: frozenset[str]

    def answered_by(self, sample: Sample) -> bool:
        """Return whether an item answers this pair's query."""
        return self.asks <= sample.facts


def draw(shown: Scene | Page | Crop, rng: random.Random) -> PIL.Image.Image:
    """Draw a still picture."""
    if isinstance(shown, Scene):
        return draw_scene(shown, rng)
    if isinstance(shown, Page):
        return draw_page(shown)
    cell = rng.randrange(9)
    x, y = (cell % 3) * CELL, (cell // 3) * CELL
    return draw_scene(Scene((Thing(shown.look, cell),)), rng).crop((x, y, x + CELL, y + CELL))


def clip_frames(clip: Clip) -> Frames:
    """Return a clip as sampled frames, two a second; a thing rests while both frames of a second are taken."""
    stills = [draw_clip(clip, float(second)) for second in range(CLIP_SECONDS)]
    images = tuple(still for still in stills for _ in range(FRAMES_PER_SECOND))
    times = tuple(index / FRAMES_PER_SECOND for index in range(len(images)))
    return Frames(images, times, float(CLIP_SECONDS))
