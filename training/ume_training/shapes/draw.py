"""Scenes, clips and pages as pixels and files: PNG pictures, MP4 clips and PDF pages."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from fractions import Fraction
from functools import lru_cache
from pathlib import Path

import numpy as np
import PIL.Image
import PIL.ImageDraw
import PIL.ImageFont

from ume_training.shapes.levels import COLOURS
from ume_training.shapes.world import CLIP_SECONDS, Clip, Look, Page, Scene

CELL = 64
"""Pixels of a cell's side."""

PAPER = (245, 246, 250)
INK = (45, 52, 54)
FAINT = (200, 204, 212)

THING = 44
JITTER = 2
"""A thing is this many pixels wide and at most JITTER pixels off the middle of its cell."""

CLIP_FPS = 8
DWELL = 0.65
"""The actor rests for this share of each second, then slides to its next cell."""

_SUPERSAMPLE = 4


def draw_scene(scene: Scene, rng: random.Random) -> PIL.Image.Image:
    """Draw a scene with 192 x 192 pixels; `rng` moves each thing by a pixel or two."""
    canvas = PIL.Image.new("RGB", (3 * CELL, 3 * CELL), PAPER)
    for thing in scene.things:
        x, y = _middle(thing.cell)
        _stamp(canvas, thing.look, x + rng.randint(-JITTER, JITTER), y + rng.randint(-JITTER, JITTER))
    return canvas


def draw_clip(clip: Clip, time_s: float) -> PIL.Image.Image:
    """Draw the frame of 192 x 192 pixels that a clip shows at a time, 0 <= time_s < 4."""
    second = min(int(time_s) + 1, CLIP_SECONDS)
    here, there = _middle(clip.cell_at(second)), _middle(clip.cell_at(min(second + 1, CLIP_SECONDS)))
    slide = max(0.0, (time_s % 1.0 - DWELL) / (1.0 - DWELL))
    canvas = PIL.Image.new("RGB", (3 * CELL, 3 * CELL), PAPER)
    if second == clip.second:
        _stamp(canvas, clip.guest.look, *_middle(clip.guest.cell))
    x, y = (round(a + slide * (b - a)) for a, b in zip(here, there, strict=True))
    _stamp(canvas, clip.actor, x, y)
    return canvas


def draw_page(page: Page) -> PIL.Image.Image:
    """Draw a page of 192 x 256 pixels: a heading, then a row for each entry with its thing and its number."""
    canvas = PIL.Image.new("RGB", (3 * CELL, 4 * CELL), "white")
    pen = PIL.ImageDraw.Draw(canvas)
    pen.rectangle((12, 14, 180, 46), fill=FAINT)
    pen.text((96, 30), "STOCK", font=_font(22), fill=INK, anchor="mm")
    for index, row in enumerate(page.rows):
        top = (index + 1) * CELL
        _stamp(canvas, row.look, CELL // 2, top + CELL // 2)
        pen.text((CELL + CELL // 2, top + CELL // 2), str(row.count), font=_font(46), fill=INK, anchor="mm")
        for line in range(3):
            y = top + 18 + line * 14
            pen.line((2 * CELL + 6, y, 2 * CELL + 50 - 8 * line, y), fill=FAINT, width=4)
    return canvas


def write_clip(clips: Sequence[Clip], path: Path) -> None:
    """Write clips one after the other as one MP4 file (H.264, 8 frames a second, 4 seconds a clip)."""
    import av

    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=CLIP_FPS, options={"crf": "18", "preset": "veryfast"})
        stream.width = stream.height = 3 * CELL
        stream.pix_fmt = "yuv420p"
        stream.time_base = Fraction(1, CLIP_FPS)
        for index in range(len(clips) * CLIP_SECONDS * CLIP_FPS):
            clip, time_s = divmod(index / CLIP_FPS, CLIP_SECONDS)
            frame = av.VideoFrame.from_ndarray(np.asarray(draw_clip(clips[int(clip)], time_s)), format="rgb24")
            frame.pts = index
            container.mux(stream.encode(frame))
        container.mux(stream.encode())


def write_pages(pages: Sequence[Page], path: Path) -> None:
    """Write pages as one PDF file, 96 pixels an inch."""
    first, *rest = [draw_page(page) for page in pages]
    first.save(path, "PDF", save_all=True, append_images=rest, resolution=96.0, quality=95)


def _middle(cell: int) -> tuple[int, int]:
    return (cell % 3) * CELL + CELL // 2, (cell // 3) * CELL + CELL // 2


def _stamp(canvas: PIL.Image.Image, look: Look, x: int, y: int) -> None:
    sprite = _sprite(look)
    canvas.paste(sprite, (x - THING // 2, y - THING // 2), sprite)


@lru_cache(maxsize=8)
def _font(size: int) -> PIL.ImageFont.FreeTypeFont | PIL.ImageFont.ImageFont:
    return PIL.ImageFont.load_default(size)


@lru_cache(maxsize=512)
def _sprite(look: Look) -> PIL.Image.Image:
    """Draw a thing on transparent ground, large at first and shrunk for smooth edges."""
    size = THING * _SUPERSAMPLE
    mask = PIL.Image.new("L", (size, size), 0)
    _outline(PIL.ImageDraw.Draw(mask), look.shape, size - 1)
    paint = PIL.Image.new("RGB", (size, size), COLOURS[look.colour])
    pen = PIL.ImageDraw.Draw(paint)
    step = size // 5
    if look.texture == "striped":
        for x in range(-size, size, step):
            pen.line((x, 0, x + size, size), fill="white", width=step // 3)
    elif look.texture == "dotted":
        for x in range(step // 2, size, step):
            for y in range(step // 2, size, step):
                pen.ellipse((x - step // 5, y - step // 5, x + step // 5, y + step // 5), fill="white")
    paint.putalpha(mask)
    return paint.resize((THING, THING), PIL.Image.Resampling.LANCZOS)


def _outline(pen: PIL.ImageDraw.ImageDraw, shape: str, edge: int) -> None:
    middle = edge / 2
    if shape == "circle":
        pen.ellipse((0, 0, edge, edge), fill=255)
    elif shape == "square":
        inset = edge // 14
        pen.rectangle((inset, inset, edge - inset, edge - inset), fill=255)
    elif shape == "triangle":
        pen.polygon([(middle, 0), (0, edge), (edge, edge)], fill=255)
    elif shape == "cross":
        third = edge // 3
        pen.rectangle((third, 0, edge - third, edge), fill=255)
        pen.rectangle((0, third, edge, edge - third), fill=255)
    elif shape == "ring":
        pen.ellipse((0, 0, edge, edge), outline=255, width=edge // 5)
    elif shape == "diamond":
        pen.polygon([(middle, 0), (edge, middle), (middle, edge), (0, middle)], fill=255)
    else:
        points = {"star": 5, "hexagon": 6}[shape]
        pen.polygon(_rays(points, middle, inner=0.45 if shape == "star" else 1.0), fill=255)


def _rays(points: int, middle: float, inner: float) -> list[tuple[float, float]]:
    """Corners of a star, or of a polygon when `inner` is 1."""
    corners = 2 * points if inner < 1.0 else points
    turn = 2 * math.pi / corners
    radii = [middle if inner == 1.0 or corner % 2 == 0 else middle * inner for corner in range(corners)]
    return [(middle + r * math.sin(i * turn), middle - r * math.cos(i * turn)) for i, r in enumerate(radii)]
