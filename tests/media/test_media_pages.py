from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from media_makers import LOCKED, pdf

from ume_retrieval import InputError, Limits, Page
from ume_retrieval.errors import BrokenMedia, MediaNotFound, MediaTooLarge, UnsupportedMedia
from ume_retrieval.media import count_pages, open_image, render_page


@pytest.fixture
def paper(tmp_path: Path) -> Path:
    path = tmp_path / "paper.pdf"
    path.write_bytes(pdf(3))
    return path


def bar_points(path: Path, page: int, pixels: int = 200 * 100) -> float:
    """Width of the black bar at the lower left, in points."""
    image = render_page(Page(path, page), pixels)
    row = np.asarray(image)[image.height * 9 // 10, :, 0]
    return float((row < 128).sum() * 200 / image.width)


def test_pages_are_counted_from_one(paper: Path) -> None:
    assert count_pages(paper) == 3
    assert [round(bar_points(paper, page)) for page in (1, 2, 3)] == [10, 20, 30]


def test_pages_are_upright_colour_on_white(paper: Path) -> None:
    image = open_image(Page(paper, 1), page_pixels=20_000)
    assert image.mode == "RGB"
    assert image.getpixel((5, 5)) == (255, 0, 0)
    assert image.getpixel((image.width - 3, 3)) == (255, 255, 255)


@pytest.mark.parametrize("pixels", [1, 50, 999, 20_000, 123_457])
def test_a_page_never_has_more_pixels_than_allowed(paper: Path, pixels: int) -> None:
    image = render_page(Page(paper), pixels)
    assert image.width * image.height <= pixels
    assert image.width * image.height > 0.8 * pixels - 20
    assert render_page(Page(paper), 10**9, Limits(max_pixels=pixels)).size == image.size


def test_a_small_page_is_not_blown_up(paper: Path) -> None:
    assert render_page(Page(paper), 10**9).size == pytest.approx((200 * 300 / 72, 100 * 300 / 72), abs=1)


def test_a_page_as_large_as_a_house_stays_small(tmp_path: Path) -> None:
    path = tmp_path / "house.pdf"
    path.write_bytes(pdf(1, width=14_400, height=14_400))
    image = render_page(Page(path), 10_000)
    assert image.size == (100, 100)


def test_rotation_of_a_page_is_applied(tmp_path: Path) -> None:
    path = tmp_path / "turned.pdf"
    path.write_bytes(pdf(1, page_extra="/Rotate 90"))
    image = render_page(Page(path), 20_000)
    assert image.size == (100, 200)
    assert image.getpixel((95, 5)) == (255, 0, 0)


@pytest.mark.parametrize("page", [0, -1, 4])
def test_pages_that_are_not_there(paper: Path, page: int) -> None:
    with pytest.raises(MediaNotFound, match=rf"page {page} of .* does not exist") as caught:
        render_page(Page(paper, page))
    assert "it has 3" in caught.value.hint


def test_bad_files_are_typed(tmp_path: Path, paper: Path) -> None:
    bad = {
        "locked.pdf": (pdf(1, trailer=LOCKED), UnsupportedMedia),
        "cut.pdf": (pdf(3)[:-40], BrokenMedia),
        "half.pdf": (pdf(3)[:900], BrokenMedia),
        "garbage.pdf": (b"%PDF-1.4\n" + bytes(500) + b"%%EOF", BrokenMedia),
        "pageless.pdf": (pdf(0), BrokenMedia),
        "foreign.pdf": (b"once upon a time", UnsupportedMedia),
        "empty.pdf": (b"", BrokenMedia),
    }
    for name, (data, error) in bad.items():
        path = tmp_path / name
        path.write_bytes(data)
        with pytest.raises(error) as caught:
            count_pages(path)
        assert name in caught.value.message
        assert caught.value.hint
    with pytest.raises(MediaNotFound):
        count_pages(tmp_path / "nowhere.pdf")
    with pytest.raises(MediaTooLarge, match="3 pages"):
        count_pages(paper, Limits(max_pages=2))
    with pytest.raises(MediaTooLarge, match="bytes"):
        count_pages(paper, Limits(max_bytes=10))


@pytest.mark.parametrize("height", [0.0001, 1e9])
def test_pages_of_absurd_shape_stay_small(tmp_path: Path, height: float) -> None:
    path = tmp_path / "absurd.pdf"
    path.write_bytes(pdf(1, height=height))
    image = render_page(Page(path), 1000)
    assert image.width * image.height <= 1000


def test_no_pixels_are_too_few(paper: Path) -> None:
    with pytest.raises(InputError):
        render_page(Page(paper), 0)


def test_threads_take_turns(paper: Path) -> None:
    with ThreadPoolExecutor(4) as pool:
        bars = list(pool.map(lambda page: round(bar_points(paper, page)), [1, 2, 3] * 4))
    assert bars == [10, 20, 30] * 4


def test_names_that_are_not_utf8(tmp_path: Path) -> None:
    path = tmp_path / "r\udce9sum\udce9.pdf"
    path.write_bytes(pdf(2))
    assert count_pages(path) == 2
