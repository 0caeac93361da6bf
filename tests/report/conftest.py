"""Pictures, clips and traces made of simple shapes, for every test of the report."""

from __future__ import annotations

import PIL.Image
import PIL.ImageDraw
import pytest

from ume_retrieval import Frames, TCot
from ume_retrieval.report import ReportHit, ReportPage, ReportQuery, ReportTable
from ume_retrieval.tcot import Box, Problem


@pytest.fixture
def scene() -> PIL.Image.Image:
    """A red square on white, 96 pixels a side; the square fills the upper left quarter."""
    image = PIL.Image.new("RGB", (96, 96), "white")
    PIL.ImageDraw.Draw(image).rectangle((0, 0, 47, 47), fill="red")
    return image


@pytest.fixture
def clip() -> Frames:
    """Six frames of 64 x 48 pixels, half a second apart from second 4 on, each brighter than the one before."""
    images = tuple(PIL.Image.new("RGB", (64, 48), (40 * number, 0, 0)) for number in range(6))
    return Frames(images, tuple(4 + number / 2 for number in range(6)), 3.0)


@pytest.fixture
def page(scene: PIL.Image.Image, clip: Frames) -> ReportPage:
    """One query of each look: a picture with boxes, a clip with key frames, a page, words, a file that is gone."""
    boxes = (Box(0, 0, 500, 500), Box(500, 500, 1000, 1000))
    hits = (
        ReportHit(
            "scene.png",
            "image",
            0.9,
            images=(scene,),
            trace=TCot("Two.", "Yes.", "a square", boxes=boxes),
            relevant=True,
        ),
        ReportHit(
            "clip.mp4",
            "video",
            0.45,
            videos=(clip,),
            trace=TCot(answer="it brightens", key_frames=(2, 5)),
            start_s=4.0,
            end_s=7.0,
            duration_s=14.0,
            relevant=False,
        ),
        ReportHit("paper.pdf", "page", 0.3, images=(scene.resize((420, 594)),), page=7),
        ReportHit(
            "notes.txt", "text", 0.2, text="A red square, redder than red.", trace=TCot(keywords=("red", "red square"))
        ),
        ReportHit(
            "gone.png", "image", 0.1, trace=TCot(raw="<answer>", problems=(Problem("unclosed_answer", "no end"),))
        ),
    )
    query = ReportQuery(
        "the red square", hits, trace=TCot(keywords=("red square",)), task="text to image", note="direct: fourth"
    )
    table = ReportTable(("task", "hit@1"), (("text to image", "0.92"),), "over 60 queries")
    return ReportPage("Shapes", (query, ReportQuery(None, images=(scene,))), (("indexed", "260"),), table, ("seed 1",))
