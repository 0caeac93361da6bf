"""Key frames are numbered as the Reasoner saw the video; whoever shows them samples it alike."""

from __future__ import annotations

import io
import re
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest
from small_media import clip
from typer.testing import CliRunner

from ume_cli.app import app
from ume_qdrant import EdgeStore, Hit, HitEvidence, KeyFrame, index, report_query, search
from ume_retrieval import Clip, EmbedderSpec, Item, ReasonerSpec, ReasoningEmbedder, VisualBudget
from ume_retrieval.media import load
from ume_retrieval.testing import PLAIN_PROMPTS, FakeReasoner, HashEmbedder

SEEN, SHOWN = VisualBudget(video_fps=1.0, video_frames=16), VisualBudget(video_fps=2.0, video_frames=3)
REPLY = '<thinking>x {"key_frames": [5]}</thinking><rethink>r</rethink><answer>a</answer>'


def pair(*_: Any, **__: Any) -> ReasoningEmbedder:
    reasoner = FakeReasoner(answer=lambda _: REPLY, spec=ReasonerSpec(prompts=PLAIN_PROMPTS, budget=SEEN))
    return ReasoningEmbedder(HashEmbedder(spec=EmbedderSpec(family="sentence-transformers", budget=SHOWN)), reasoner)


@pytest.fixture
def film(tmp_path: Path) -> Path:
    """Eight seconds that get brighter, indexed with its trace."""
    path = clip(tmp_path / "film.mp4", 8, *((30 * n, 30 * n, 30 * n) for n in range(8)))
    with EdgeStore(tmp_path / "vectors", "films") as store:
        index(pair(), store, path, reasoning="always", strict=True)
    return path


def found(store: EdgeStore) -> Hit:
    return search(pair(), store, "a", limit=1).hits[0]


def test_a_report_shows_the_second_that_was_meant(film: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ume_cli.option_groups.load_embedder", pair)
    with EdgeStore(film.parent / "vectors", "films") as store:
        [frame] = found(store).evidence.key_frames
    out = film.parent / "why.html"
    place = ["--store", str(film.parent / "vectors"), "--collection", "films", "--out", str(out)]
    assert CliRunner().invoke(app, ["report", "a", *place]).exit_code == 0
    assert (frame.frame, frame.time_s) == (5, 4.0)
    assert set(re.findall(r"5 at ([0-9:.]+)", out.read_text(encoding="utf-8"))) == {"0:04.0"}


def test_without_a_reasoner_a_report_marks_the_frame_at_the_second_that_was_meant(
    film: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ume_cli.option_groups.load_embedder", lambda *_, **__: ReasoningEmbedder(pair().embedder))
    out = film.parent / "why.html"
    place = ["--store", str(film.parent / "vectors"), "--collection", "films", "--out", str(out)]
    assert CliRunner().invoke(app, ["report", "a", "--mode", "direct", *place]).exit_code == 0
    marked = re.findall(r"Key frames</dt><dd>([^<]*)<", out.read_text(encoding="utf-8"))
    assert marked == ["2 at 0:04.0"], "the Reasoner's fifth frame is the second of the three that are shown"


def test_frames_that_were_named_but_not_looked_at_are_not_marked_by_number(film: Path) -> None:
    with EdgeStore(film.parent / "vectors", "films") as store:
        hit = found(store)
    assert hit.trace is not None
    unseen = replace(
        hit, evidence=HitEvidence(key_frames=(KeyFrame(2, None),)), trace=replace(hit.trace, key_frames=(2,))
    )
    [card] = report_query(Item(text="a"), (unseen,), None, budget=SHOWN).hits
    assert card.trace is not None
    assert card.trace.key_frames == ()


def test_the_example_service_serves_the_frame_that_was_meant(film: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(Path(__file__).parents[2] / "examples"))
    from rag_service import Service, Settings

    with EdgeStore(film.parent / "vectors", "films") as store:
        service = Service(pair(), store, Settings())  # its store is not asked here
        picture = service._cut_out(found(store), 0)
    sys.modules.pop("rag_service")
    frames = load(Item(videos=(Clip(film),)), SEEN).videos[0].images
    assert picture is not None
    assert np.array_equal(PIL.Image.open(io.BytesIO(picture)), frames[4])
