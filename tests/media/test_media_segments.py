from __future__ import annotations

import itertools
import math
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ume_retrieval import Clip, InputError, Limits, Page
from ume_retrieval.media import sample_times, segments

DURATIONS = st.floats(0.01, 3_000, allow_nan=False)
LENGTHS = st.floats(1.0, 120, allow_nan=False)


@settings(deadline=None)
@given(DURATIONS, LENGTHS, st.floats(0, 0.9))
def test_segments_cover_the_video_and_overlap(duration: float, length: float, share: float) -> None:
    overlap = share * length
    cuts = segments(duration, length, overlap)
    assert cuts[0][0] == 0.0
    assert cuts[-1][1] == duration
    for (start, end), (next_start, next_end) in itertools.pairwise(cuts):
        assert end - next_start >= overlap - 1e-6
        assert start < next_start
        assert end < next_end
    if len(cuts) > 1:
        assert all(math.isclose(end - start, length, rel_tol=1e-6) for start, end in cuts)
        stride = length - overlap
        assert len(cuts) == 1 + math.ceil((duration - length - 1e-6) / stride)
    else:
        assert duration <= length + 1e-5


def test_a_video_of_one_length_is_one_segment() -> None:
    assert segments(16.0, 16.0, 2.0) == ((0.0, 16.0),)
    assert segments(16.000000001, 16.0, 2.0) == ((0.0, 16.000000001),)
    assert segments(16.5, 16.0, 2.0) == ((0.0, 16.0), (0.5, 16.5))
    assert segments(30.0, 16.0, 2.0) == ((0.0, 16.0), (14.0, 30.0))


@pytest.mark.parametrize(
    ("duration", "length", "overlap"),
    [(0, 16, 2), (-1, 16, 2), (math.inf, 16, 2), (math.nan, 16, 2), (9, 0, 0), (9, 4, 4), (9, 4, -1), (9, math.nan, 0)],
)
def test_segments_that_cannot_be(duration: float, length: float, overlap: float) -> None:
    with pytest.raises(InputError):
        segments(duration, length, overlap)


@settings(deadline=None)
@given(st.floats(0, 10_000), st.floats(0.01, 600), st.floats(0.05, 60), st.integers(1, 64))
def test_sample_times_lie_on_the_grid_inside_the_stretch(start: float, span: float, fps: float, most: int) -> None:
    end = start + span
    times = sample_times(start, end, fps, most)
    assert 1 <= len(times) <= most
    assert times[0] == start
    assert all(start <= time < end for time in times)
    assert all(one < two for one, two in itertools.pairwise(times))
    steps = [(time - start) * fps for time in times]
    assert all(abs(step - round(step)) < 1e-4 for step in steps)
    on_grid = max(1, math.ceil((end - start - 1e-6) * fps))
    assert len(times) == min(most, on_grid)
    if 1 < most < on_grid:
        gaps = [two - one for one, two in itertools.pairwise(steps)]
        assert round(steps[-1]) == on_grid - 1
        assert max(gaps) - min(gaps) <= 1.001


@pytest.mark.parametrize(
    ("start", "end", "fps", "most"),
    [(0, 0, 2, 8), (2, 1, 2, 8), (-1, 1, 2, 8), (0, 1, 0, 8), (0, 1, math.nan, 8), (0, 1, 2, 0), (0, math.inf, 2, 8)],
)
def test_sampling_that_cannot_be(start: float, end: float, fps: float, most: int) -> None:
    with pytest.raises(InputError):
        sample_times(start, end, fps, most)


@pytest.mark.parametrize("name", [name for name in Limits.__slots__ if name != "isolation"])
def test_limits_are_positive(name: str) -> None:
    with pytest.raises(InputError, match=name):
        Limits(**{name: 0})
    with pytest.raises(InputError, match=name):
        Limits(**{name: math.nan})


def test_a_path_may_be_a_string() -> None:
    assert Clip("film.mp4", 1.0) == Clip(Path("film.mp4"), 1.0)  # type: ignore[arg-type]  # that is the point
    assert Page("report.pdf", 2) == Page(Path("report.pdf"), 2)  # type: ignore[arg-type]  # as above
