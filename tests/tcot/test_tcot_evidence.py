"""Evidence: crops and key frames out of pixels."""

from __future__ import annotations

import PIL.Image
from hypothesis import given, settings
from hypothesis import strategies as st

from ume_retrieval import Frames, LoadedItem, TCot
from ume_retrieval.profiles import MIN_CROP
from ume_retrieval.tcot import Box, EvidenceRef, extract, parse
from ume_retrieval.tcot.evidence import crop_pixels


def picture(colour: str, size: tuple[int, int] = (200, 100)) -> PIL.Image.Image:
    return PIL.Image.new("RGB", size, colour)


def video(count: int, first_shade: int = 0) -> Frames:
    images = tuple(PIL.Image.new("RGB", (32, 32), (first_shade + index, 0, 0)) for index in range(count))
    return Frames(images, tuple(index * 0.5 for index in range(count)), count * 0.5)


def item(images: tuple[PIL.Image.Image, ...] = (), videos: tuple[Frames, ...] = ()) -> LoadedItem:
    return LoadedItem(None, images, videos, None, "id")


def shade(image: PIL.Image.Image) -> object:
    return image.getpixel((0, 0))


def test_a_crop_shows_the_boxed_pixels() -> None:
    image = picture("white")
    image.paste("red", (100, 50, 200, 100))
    evidence = extract(TCot(boxes=(Box(500, 500, 1000, 1000),)), item((image,)), limit=4)
    assert evidence.images[0].size == (100, 50)
    assert evidence.images[0].getcolors() == [(5000, (255, 0, 0))]
    assert evidence.refs == (EvidenceRef("crop", 0, Box(500, 500, 1000, 1000), None, None),)


def test_released_code_error_only_the_first_image_can_be_cropped() -> None:
    tcot = parse('<thinking>{"bbox_2d": [[[0, 0, 500, 500]], [[0, 0, 1000, 1000]]]}', images=2)
    evidence = extract(tcot, item((picture("red"), picture("blue", (40, 60)))), limit=4)
    assert [shade(image) for image in evidence.images] == [(255, 0, 0), (0, 0, 255)]
    assert [image.size for image in evidence.images] == [(100, 50), (40, 60)]
    assert [ref.media for ref in evidence.refs] == [0, 1]


def test_released_code_error_key_frames_are_taken_zero_based() -> None:
    tcot = parse('<thinking>{"key_frames": [1, 8]}', frames=8)
    evidence = extract(tcot, item(videos=(video(8),)), limit=4)
    assert [shade(image) for image in evidence.images] == [(0, 0, 0), (7, 0, 0)]
    assert evidence.refs == (EvidenceRef("frame", 0, None, 1, 0.0), EvidenceRef("frame", 0, None, 8, 3.5))


def test_frames_of_several_videos_count_through() -> None:
    evidence = extract(TCot(key_frames=(4, 5, 6)), item(videos=(video(4), video(2, 100))), limit=4)
    assert [(ref.media, ref.frame, ref.time_s) for ref in evidence.refs] == [(0, 4, 1.5), (1, 1, 0.0), (1, 2, 0.5)]
    assert [shade(image) for image in evidence.images] == [(3, 0, 0), (100, 0, 0), (101, 0, 0)]


def test_boxes_come_before_frames_and_the_rest_is_counted() -> None:
    tcot = TCot(boxes=(Box(0, 0, 500, 500), Box(500, 0, 1000, 500)), key_frames=(1, 2))
    evidence = extract(tcot, item((picture("red"),), (video(2),)), limit=3)
    assert ([ref.kind for ref in evidence.refs], evidence.dropped) == (["crop", "crop", "frame"], 1)
    assert extract(tcot, item((picture("red"),), (video(2),)), limit=0).dropped == 4


def test_cues_on_media_that_are_not_there_are_counted() -> None:
    tcot = TCot(boxes=(Box(0, 0, 500, 500, image=1),), key_frames=(9,))
    evidence = extract(tcot, item((picture("red"),), (video(2),)), limit=4)
    assert (evidence.images, evidence.refs, evidence.dropped) == ((), (), 2)


def test_a_text_has_no_pictures() -> None:
    assert extract(TCot(keywords=("a",)), LoadedItem("a", (), (), None, "id"), limit=4).images == ()


def test_what_comes_off_a_box_at_the_edge_is_widened_inwards() -> None:
    assert crop_pixels(Box(999, 999, 1000, 1000), 400, 100) == (400 - MIN_CROP, 100 - MIN_CROP, 400, 100)
    assert crop_pixels(Box(499, 0, 500, 1000), 400, 10) == (191, 0, 207, 10)


@given(
    st.tuples(*[st.integers(-50, 1100)] * 4),
    st.integers(1, 5000),
    st.integers(1, 5000),
)
@settings(deadline=None)
def test_every_crop_lies_in_its_image_and_covers_its_box(
    corners: tuple[int, int, int, int], width: int, height: int
) -> None:
    left, top, right, bottom = crop_pixels(Box(*corners), width, height)
    assert 0 <= left < right <= width
    assert 0 <= top < bottom <= height
    assert right - left >= min(MIN_CROP, width)
    assert bottom - top >= min(MIN_CROP, height)
    x1, x2 = sorted(min(max(x, 0), 1000) for x in corners[::2])
    assert left <= x1 * width / 1000
    assert x2 * width / 1000 <= right
