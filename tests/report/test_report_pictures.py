"""Boxes on pixels, sizes, and the contact sheet."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import PIL.Image
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ume_retrieval import Frames, InputError, TCot
from ume_retrieval.report import ReportHit, ReportPage, ReportQuery, draw_boxes, draw_contact_sheet, write_contact_sheet
from ume_retrieval.report.annotate import BOX_COLOURS, fit
from ume_retrieval.report.contact_sheet import choose_tiles
from ume_retrieval.report.text_layout import load_font, shorten, wrap
from ume_retrieval.tcot import Box

GOOD = PIL.ImageColor.getrgb("#0a7344")
KEY = PIL.ImageColor.getrgb("#3257d6")


def colours(image: PIL.Image.Image) -> set[tuple[int, int, int]]:
    """Every colour of an RGB image."""
    return {colour for _, colour in image.getcolors(image.width * image.height) or []}


def test_a_box_frames_its_region_and_hides_nothing_of_it() -> None:
    image = PIL.Image.new("RGB", (500, 500), "#123456")
    marked = draw_boxes(image, [Box(200, 200, 600, 600)])
    first = PIL.ImageColor.getrgb(BOX_COLOURS[0])
    assert colours(marked.crop((102, 102, 297, 297))) == {(0x12, 0x34, 0x56)}
    assert first in colours(marked.crop((90, 150, 102, 152)))
    assert first in colours(marked.crop((298, 150, 310, 152)))
    assert colours(image) == {(0x12, 0x34, 0x56)}


def test_a_halo_sets_boxes_off_from_pictures_of_their_own_colour() -> None:
    image = PIL.Image.new("RGB", (500, 500), BOX_COLOURS[0])
    marked = draw_boxes(image, [Box(200, 200, 600, 600)])
    assert colours(marked.crop((80, 200, 100, 202))) == {PIL.ImageColor.getrgb(BOX_COLOURS[0]), (255, 255, 255)}


def test_boxes_of_other_images_keep_their_numbers_and_colours() -> None:
    image = PIL.Image.new("RGB", (300, 300), "white")
    boxes = [Box(100, 100, 400, 400), Box(500, 500, 900, 900, image=1)]
    zeroth, first = (draw_boxes(image, boxes, image_index=index) for index in (0, 1))
    ground = {PIL.ImageColor.getrgb(colour) for colour in BOX_COLOURS[:2]}
    assert colours(zeroth) & ground == {PIL.ImageColor.getrgb(BOX_COLOURS[0])}
    assert colours(first) & ground == {PIL.ImageColor.getrgb(BOX_COLOURS[1])}


@settings(max_examples=80, deadline=None)
@given(st.lists(st.builds(Box, *[st.integers(-100, 1100)] * 4), max_size=4), st.integers(1, 60), st.integers(1, 60))
def test_boxes_of_any_values_fit_images_of_any_size(boxes: list[Box], width: int, height: int) -> None:
    assert draw_boxes(PIL.Image.new("L", (width, height)), boxes).size == (width, height)


def test_tiny_pictures_stay_crisp_when_enlarged() -> None:
    image = PIL.Image.new("RGB", (2, 1), "white")
    image.putpixel((0, 0), (0, 0, 0))
    large = fit(image, 100, 100)
    assert large.size == (100, 50)
    assert colours(large.crop((0, 0, 48, 50))) == {(0, 0, 0)}
    assert colours(large.crop((52, 0, 100, 50))) == {(255, 255, 255)}


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 700), st.integers(1, 700), st.integers(1, 300), st.integers(1, 300))
def test_fitting_never_exceeds_its_area(width: int, height: int, area_width: int, area_height: int) -> None:
    shown = fit(PIL.Image.new("1", (width, height)), area_width, area_height)
    assert shown.width <= area_width
    assert shown.height <= area_height
    assert shown.width == area_width or shown.height == area_height


def test_transparency_lies_on_white() -> None:
    image = PIL.Image.new("RGBA", (10, 10), (0, 0, 255, 0))
    assert colours(draw_boxes(image, ())) == {(255, 255, 255)}


def test_sixteen_bits_a_pixel_become_eight() -> None:
    image = PIL.Image.new("I;16", (4, 4), 32768)
    assert colours(draw_boxes(image, ())) == {(128, 128, 128)}


def test_a_clip_shows_its_key_frames_among_four_in_order_of_time(clip: Frames) -> None:
    tiles = choose_tiles((), (clip,), TCot(key_frames=(5, 2, 99, 0)))
    assert [tile.label for tile in tiles] == ["0:04.0", "0:04.5", "0:05.0", "0:06.0"]
    assert [tile.key for tile in tiles] == [False, True, False, True]
    assert [tile.image for tile in tiles] == [clip.images[index] for index in (0, 1, 2, 4)]
    assert len(choose_tiles((), (clip,), TCot(key_frames=(1, 2, 3, 4, 5, 6)))) == 4
    short = Frames(clip.images[:2], clip.timestamps[:2], 1.0)
    assert len(choose_tiles((), (short,), None)) == 2


def test_the_sheet_has_a_row_for_each_query_and_marks_the_right_hit(page: ReportPage) -> None:
    sheet = draw_contact_sheet(page)
    assert GOOD in colours(sheet)
    assert KEY in colours(sheet)
    assert PIL.ImageColor.getrgb(BOX_COLOURS[0]) in colours(sheet)
    unknown = replace(page.queries[0], hits=tuple(replace(hit, relevant=None) for hit in page.queries[0].hits))
    assert GOOD not in colours(draw_contact_sheet(replace(page, queries=(unknown,))))


def test_the_sheet_grows_with_hits_and_queries_up_to_its_limits(page: ReportPage) -> None:
    query = page.queries[0]
    one = draw_contact_sheet(replace(page, queries=(query,)), max_hits=3)
    assert draw_contact_sheet(replace(page, queries=(query,)), max_hits=4).width > one.width
    two = draw_contact_sheet(replace(page, queries=(query,) * 2), max_hits=3)
    assert two.height > one.height
    assert two.width == one.width
    limited = draw_contact_sheet(replace(page, queries=(query,) * 9), max_queries=2, max_hits=3)
    assert two.height < limited.height < two.height + 60


def test_the_written_sheet_is_the_drawn_one(page: ReportPage, tmp_path: Path) -> None:
    target = write_contact_sheet(page, tmp_path / "new" / "sheet.png")
    with PIL.Image.open(target) as sheet:
        assert sheet.format == "PNG"
        assert sheet.convert("RGB").tobytes() == draw_contact_sheet(page).tobytes()


def test_an_empty_report_is_a_sheet(tmp_path: Path) -> None:
    assert write_contact_sheet(ReportPage(""), tmp_path / "sheet.png").stat().st_size > 0


def test_a_place_that_cannot_be_written_is_a_typed_error(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot write the contact sheet") as caught:
        write_contact_sheet(ReportPage("t"), tmp_path)
    assert caught.value.hint


def test_a_file_that_is_no_font_is_a_typed_error(tmp_path: Path) -> None:
    (tmp_path / "font.ttf").write_bytes(b"no font")
    with pytest.raises(InputError, match="cannot read the font") as caught:
        draw_contact_sheet(ReportPage("t"), font=tmp_path / "font.ttf")
    assert ".ttf" in caught.value.hint


@pytest.mark.parametrize(
    "text",
    [
        "日本語のテキスト",
        "نص عربي",
        "हिन्दी",
        "\U0001f600\U0001f469\u200d\U0001f4bb",
        "caf\udce9",
        "\x00\x1b\u202e",
        "Ω Ж é",
        "x" * 9000,
    ],
)
def test_text_in_any_script_is_drawn(text: str) -> None:
    hit = ReportHit(text, "text", 0.5, text=text, trace=TCot(answer=text))
    page = ReportPage(text, (ReportQuery(text, (hit,), task=text, note=text),), ((text, text),))
    assert len(colours(draw_contact_sheet(page))) > 10


@settings(max_examples=60, deadline=None)
@given(st.text(st.characters(), max_size=120), st.integers(30, 300), st.integers(1, 4))
def test_lines_fit_their_width(text: str, width: int, max_lines: int) -> None:
    font = load_font(14)
    lines = wrap(text, font, width, max_lines)
    assert len(lines) <= max_lines
    assert all(font.getlength(line) <= width for line in lines)
    assert font.getlength(shorten(text, font, width)) <= width + 2


def test_lines_lose_no_words_while_there_is_room() -> None:
    text = "the quick brown fox jumps over extraordinarilylongcompoundwords and rests"
    assert "".join(wrap(text, load_font(14), 110, 20)).replace(" ", "") == text.replace(" ", "")
