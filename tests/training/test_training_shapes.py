from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ume_retrieval import Clip as VideoStretch
from ume_retrieval import Item, VisualBudget
from ume_retrieval import Page as PdfPage
from ume_retrieval.media import load
from ume_retrieval.tcot import parse, render, validate
from ume_training.shapes.benchmark import build_benchmark
from ume_training.shapes.draw import CELL, draw_clip, draw_page, draw_scene, write_clip, write_pages
from ume_training.shapes.levels import LEVELS
from ume_training.shapes.samples import clip_frames
from ume_training.shapes.tasks import TASKS, family
from ume_training.shapes.truth import FRAMES_PER_SECOND, clip_tcot, row_box, thing_box
from ume_training.shapes.world import (
    CLIP_SECONDS,
    near_clip,
    near_page,
    near_scene,
    sample_clip,
    sample_page,
    sample_scene,
)

SEEDS = st.integers(0, 10_000)
LEVEL_NAMES = st.sampled_from(sorted(LEVELS))
SAMPLING = VisualBudget(video_fps=float(FRAMES_PER_SECOND), video_frames=8)


@given(SEEDS, LEVEL_NAMES, st.sampled_from(sorted(TASKS)))
def test_every_true_trace_is_whole_and_reads_back(seed: int, level: str, task: str) -> None:
    pair = TASKS[task].draw(random.Random(seed), LEVELS[level])
    for sample in (pair.query, pair.positive):
        written = render(sample.tcot)
        read = parse(written, frames=CLIP_SECONDS * FRAMES_PER_SECOND)
        assert read.problems == ()
        assert validate(read, sample.modality) == ()
        assert render(read) == written


@given(SEEDS, LEVEL_NAMES, st.sampled_from(sorted(TASKS)))
def test_a_positive_answers_its_query_and_seeds_repeat(seed: int, level: str, task: str) -> None:
    pairs = family(TASKS[task], random.Random(seed), LEVELS[level], 4)
    assert all(pair.answered_by(pair.positive) for pair in pairs)
    assert pairs == family(TASKS[task], random.Random(seed), LEVELS[level], 4)


@given(SEEDS, LEVEL_NAMES)
def test_look_alikes_are_alike_but_not_the_same(seed: int, level: str) -> None:
    rng = random.Random(seed)
    for sample, near in ((sample_scene, near_scene), (sample_clip, near_clip), (sample_page, near_page)):
        spec = sample(rng, LEVELS[level])
        other = near(rng, spec, LEVELS[level])
        assert other != spec
        shared = set(spec.words.replace(",", "").split()) & set(other.words.replace(",", "").split())
        assert len(shared) >= len(set(spec.words.replace(",", "").split())) // 3


@given(SEEDS)
def test_boxes_hold_their_things_and_nothing_else(seed: int) -> None:
    rng = random.Random(seed)
    scene = sample_scene(rng, LEVELS["hard"])
    pixels = np.asarray(draw_scene(scene, rng)).astype(int)
    painted = np.abs(pixels - np.array([245, 246, 250])).sum(axis=2) > 40
    for thing in scene.things:
        box = thing_box(thing.cell)
        x1, y1, x2, y2 = (round(edge * 3 * CELL / 1000) for edge in (box.x1, box.y1, box.x2, box.y2))
        assert painted[y1:y2, x1:x2].any()
        painted[y1:y2, x1:x2] = False
    assert not painted.any()


def test_row_boxes_hold_thing_and_number() -> None:
    page = sample_page(random.Random(3), LEVELS["default"])
    ink = np.asarray(draw_page(page)).astype(int).sum(axis=2) < 700
    for index in range(len(page.rows)):
        box = row_box(index)
        top, bottom = round(box.y1 * 4 * CELL / 1000), round(box.y2 * 4 * CELL / 1000)
        left, right = round(box.x1 * 3 * CELL / 1000), round(box.x2 * 3 * CELL / 1000)
        row = ink[(index + 1) * CELL : (index + 2) * CELL, : 2 * CELL]
        assert ink[top:bottom, left:right].sum() == row.sum()


def test_key_frames_are_those_that_show_the_guest() -> None:
    clip = sample_clip(random.Random(8), LEVELS["default"])
    frames = clip_frames(clip).images
    x, y = (clip.guest.cell % 3) * CELL + CELL // 2, (clip.guest.cell // 3) * CELL + CELL // 2
    shown = [n for n, frame in enumerate(frames, start=1) if frame.getpixel((x, y)) != (245, 246, 250)]
    assert tuple(shown) == clip_tcot(clip).key_frames


def test_written_clips_decode_to_what_training_sees(tmp_path: Path) -> None:
    rng = random.Random(4)
    clips = [sample_clip(rng, LEVELS["default"]) for _ in range(3)]
    write_clip(clips, tmp_path / "three.mp4")
    for index, clip in enumerate(clips):
        stretch = VideoStretch(tmp_path / "three.mp4", float(CLIP_SECONDS * index), float(CLIP_SECONDS * (index + 1)))
        decoded = load(Item(videos=(stretch,)), SAMPLING).videos[0]
        drawn = clip_frames(clip)
        assert len(decoded.images) == len(drawn.images)
        for seen, meant in zip(decoded.images, drawn.images, strict=True):
            difference = np.abs(np.asarray(seen).astype(int) - np.asarray(meant).astype(int))
            assert difference.mean() < 4


def test_written_pages_render_to_what_training_sees(tmp_path: Path) -> None:
    pages = [sample_page(random.Random(seed), LEVELS["default"]) for seed in range(2)]
    write_pages(pages, tmp_path / "stock.pdf")
    for number, page in enumerate(pages, start=1):
        seen = load(Item(images=(PdfPage(tmp_path / "stock.pdf", number),)), SAMPLING).images[0]
        meant = draw_page(page).resize(seen.size)
        assert np.abs(np.asarray(seen).astype(int) - np.asarray(meant).astype(int)).mean() < 6


def test_a_clip_moves_smoothly_between_its_cells() -> None:
    clip = sample_clip(random.Random(1), LEVELS["default"])
    still, moving = draw_clip(clip, 0.0), draw_clip(clip, 0.9)
    assert still.tobytes() == draw_clip(clip, 0.5).tobytes()
    assert still.tobytes() != moving.tobytes()


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory):
    return build_benchmark(tmp_path_factory.mktemp("bench"), seed=9, queries=3, candidates=24)


def test_a_benchmark_has_every_task_with_look_alikes(small) -> None:
    assert [task.name for task in small] == list(TASKS)
    for task in small:
        assert len(task.queries) == 3
        assert len(task.candidates) >= 16
        assert all(query.relevant for query in task.queries)
        assert len({candidate.place for candidate in task.candidates}) == len(task.candidates)
        assert all(candidate.path.is_file() for candidate in task.candidates)


def test_a_benchmark_follows_from_its_seed(small, tmp_path: Path) -> None:
    def texts(tasks):
        return [[candidate.sample for candidate in task.candidates] for task in tasks]

    assert texts(build_benchmark(tmp_path / "a", seed=9, queries=3, candidates=24)) == texts(small)
    assert texts(build_benchmark(tmp_path / "b", seed=10, queries=3, candidates=24)) != texts(small)
