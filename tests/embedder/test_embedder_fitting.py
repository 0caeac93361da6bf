from __future__ import annotations

from itertools import pairwise

import PIL.Image
from hypothesis import given
from hypothesis import strategies as st

from ume_retrieval import Frames, VisualBudget
from ume_retrieval.engines.resize import GRID, fit_frames, fit_image, fitted_size
from ume_retrieval.engines.transformers.processor import pack, pack_padded

SIDES = st.integers(1, 20_000)


@given(SIDES, SIDES, st.integers(1, 64), st.integers(64, 2000))
def test_a_fitted_picture_keeps_grid_and_budget(width: int, height: int, least: int, most: int) -> None:
    fit_width, fit_height = fitted_size(width, height, least * GRID**2, most * GRID**2)
    assert fit_width % GRID == fit_height % GRID == 0
    assert min(fit_width, fit_height) >= GRID
    assert fit_width * fit_height <= most * GRID**2
    if max(width, height) <= 10 * min(width, height) and most >= 4 * least:
        # Extreme strips lose length rather than width, and bounds that touch leave no room; all else keeps the least.
        assert fit_width * fit_height >= least * GRID**2


@given(SIDES, SIDES)
def test_fitting_twice_changes_nothing(width: int, height: int) -> None:
    once = fitted_size(width, height, 128 * 1024, 768 * 1024)
    assert fitted_size(*once, 128 * 1024, 768 * 1024) == once


def test_many_frames_share_a_videos_pixels() -> None:
    budget = VisualBudget(frame_max_pixels=768 * 1024, video_max_pixels=10 * 768 * 1024)
    few, many = (Frames((PIL.Image.new("RGB", (1280, 720)),) * n, tuple(range(n)), float(n)) for n in (4, 64))
    assert fit_frames(few, budget).images[0].size == (1152, 640)
    total = sum(image.width * image.height for image in fit_frames(many, budget).images)
    assert 0.5 * 10 * 768 * 1024 < total <= 10 * 768 * 1024


def test_a_fitting_picture_is_not_copied() -> None:
    picture = PIL.Image.new("RGB", (64, 64))
    assert fit_image(picture, 1024, 8192) is picture


@given(st.lists(st.integers(0, 5000), max_size=60), st.integers(1, 10_000))
def test_packing_keeps_every_input_once_and_the_budget(lengths: list[int], budget: int) -> None:
    for batches, padded in ((pack(lengths, budget), False), (pack_padded(lengths, budget), True)):
        assert sorted(position for batch in batches for position in batch) == list(range(len(lengths)))
        for batch in batches:
            tokens = [lengths[position] for position in batch]
            assert len(batch) == 1 or (max(tokens) * len(tokens) if padded else sum(tokens)) <= budget


@given(st.lists(st.integers(1, 500), min_size=1, max_size=60))
def test_packing_pads_no_more_than_one_batch_would(lengths: list[int]) -> None:
    packed = sum(max(lengths[i] for i in batch) * len(batch) for batch in pack_padded(lengths, 1000))
    assert packed <= max(lengths) * len(lengths)


@given(st.lists(st.integers(1, 500), min_size=1, max_size=60))
def test_packed_batches_are_full_and_equal_lengths_are_neighbours(lengths: list[int]) -> None:
    batches = pack(lengths, 500)
    ordered = [lengths[position] for batch in batches for position in batch]
    assert ordered == sorted(lengths, reverse=True)
    for batch, after in pairwise(batches):
        assert sum(lengths[i] for i in batch) + lengths[after[0]] > 500
