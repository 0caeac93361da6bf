"""What `Item`, `Page`, `Clip` and `Frames` take: numbers of any library, and nothing that would fail later."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest

from ume_retrieval import Clip, Frames, InputError, Item, LoadedItem, Page

PICTURE = PIL.Image.new("RGB", (8, 8))
WIDE = PIL.Image.new("RGB", (16, 8))


@pytest.mark.parametrize("field", ["text", "instruction"])
@pytest.mark.parametrize("words", [b"a red circle", 5, math.nan, ["a red circle"]])
def test_words_are_a_string_or_none(field: str, words: Any) -> None:
    with pytest.raises(InputError, match=field) as caught:
        Item(**{"text": "a", "images": (PICTURE,), field: words})
    assert caught.value.hint
    with pytest.raises(InputError, match=field):
        LoadedItem(**{"text": "a", "images": (), "videos": (), "instruction": None, "content_id": "id", field: words})


def test_strings_of_another_library_are_words() -> None:
    assert Item(text=np.str_("a red circle"), instruction=np.str_("find it")) == Item("a red circle", (), (), "find it")


@pytest.mark.parametrize("page", ["1", 1.0, np.float64(1), True, np.True_, None, 10**30, -(10**30)])
def test_a_page_that_is_no_usable_whole_number_is_refused(page: Any) -> None:
    with pytest.raises(InputError) as caught:
        Page(Path("a.pdf"), page)
    assert caught.value.hint


@pytest.mark.parametrize("page", [3, np.int64(3), np.uint8(3)])
def test_a_page_is_kept_as_a_plain_number(page: Any) -> None:
    kept = Page(Path("a.pdf"), page)
    assert (type(kept.page), kept) == (int, Page(Path("a.pdf"), 3))


@pytest.mark.parametrize("field", ["start_s", "end_s"])
@pytest.mark.parametrize("second", ["1", b"1", math.nan, np.float32("nan"), True, 10**400, (1.0,), np.zeros(2)])
def test_a_second_of_a_clip_that_is_no_number_is_refused(field: str, second: Any) -> None:
    with pytest.raises(InputError, match=field) as caught:
        Clip(Path("a.mp4"), **{field: second})
    assert caught.value.hint


def test_a_clip_keeps_plain_numbers_and_may_end_at_infinity() -> None:
    clip = Clip(Path("a.mp4"), np.float32(1.5), np.int64(2))  # type: ignore[arg-type]  # numpy is the point
    assert (type(clip.start_s), type(clip.end_s), clip) == (float, float, Clip(Path("a.mp4"), 1.5, 2.0))
    assert Clip(Path("a.mp4"), 1, math.inf).end_s == math.inf
    assert Clip(Path("a.mp4")).end_s is None


@pytest.mark.parametrize(("time", "duration_s"), [("0", 1.0), (None, 1.0), (True, 1.0), (0.0, "1"), (0.0, None)])
def test_frames_with_a_time_that_is_no_number_are_refused(time: Any, duration_s: Any) -> None:
    with pytest.raises(InputError) as caught:
        Frames((PICTURE,), (time,), duration_s)
    assert caught.value.hint


def test_frames_keep_tuples_of_plain_numbers() -> None:
    given: Any = ([PICTURE, WIDE], np.arange(2, dtype=np.float32), np.int64(2))
    frames = Frames(*given)
    assert frames == Frames((PICTURE, WIDE), (0.0, 1.0), 2.0)
    assert {type(number) for number in (*frames.timestamps, frames.duration_s)} == {float}
    assert hash(frames.timestamps)


@pytest.mark.parametrize(
    "media",
    [
        {"images": ("circle.png",)},
        {"videos": ("circle.mp4",)},
        {"videos": (Frames((PICTURE, WIDE), (0.0, 1.0), 2.0),)},
        {"videos": (Frames((PICTURE,), (math.nan,), 2.0),)},
        {"videos": (Frames((np.zeros((8, 8, 3)),), (0.0,), 2.0),)},  # type: ignore[arg-type]  # that is the point
    ],
)
def test_a_loaded_item_holds_what_a_model_can_take(media: dict[str, Any]) -> None:
    with pytest.raises(InputError) as caught:
        LoadedItem(**{"text": None, "images": (), "videos": (), "instruction": None, "content_id": "id", **media})
    assert caught.value.hint
