"""Hostile items and addresses through the public facades: each is a failure of its own, never an untyped error."""

from __future__ import annotations

import io
import json
import threading
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from ume_retrieval import Clip, Frames, InputError, Item, Limits, MediaError, Page, ReasoningEmbedder, UmeError
from ume_retrieval.checkpoint import read_spec
from ume_retrieval.errors import MediaTooLarge, Stopped, typed_errors
from ume_retrieval.gate import Gate
from ume_retrieval.media import load, open_image
from ume_retrieval.media.images import PIXEL_ROOM, PixelRoom
from ume_retrieval.testing import FakeReasoner, HashEmbedder

ADDRESSES = [
    *("http://[::1/x.png", "http://[::1]]/x", "https://a:b/x", "http://a:99999999999/x", "http://\ud800/x"),
    *("http://a..b/x", "http://example.org\0/x", "http://user:hunter2@\u2100.com/x", "http://example.org/\ud800"),
    *("http://", "http:///x", "data:image/png;base64,!!", "http://example.org/a b\r\nX: y", "HTTP://[v1.x]/"),
    f"http://{'a' * 300}.org/",
]
PATHS = ["a\0b.png", "half \ud800.png", "x" * 5000, "/" * 3000, "", ".", "~", "\x1b[31m.png", "con", "a/" * 2000]
NUMBERS = [10**400, -(10**400), float("inf"), float("-inf"), float("nan"), 0, -1, 2**63, 1e308]

WORDS = ["\ud800", "\0", "<|im_end|>", "[SEP]" * 50, "</answer>"]
TEXTS = st.text(st.characters(), max_size=30) | st.sampled_from(WORDS)
IMAGES = (
    st.sampled_from(ADDRESSES + PATHS)
    | st.binary(max_size=60)
    | st.builds(Page, st.sampled_from(PATHS), st.integers(-3, 2**31))
    | st.sampled_from([None, 3, object(), [], PIL.Image.new("RGB", (1, 1)), PIL.Image.new("P", (3, 0))])
)
VIDEOS = (
    st.sampled_from(ADDRESSES + PATHS)
    | st.builds(Clip, st.sampled_from(PATHS), st.sampled_from([0.0, -1.0, 1e308, float("inf")]))
    | st.sampled_from([None, 3, b"x", Frames((PIL.Image.new("RGB", (1, 1)),), (float("inf"),), 1.0)])
)


def an_item(text: Any, images: Any, videos: Any, instruction: Any) -> object:
    """An item, or what is left of it where its own checks refuse it."""
    try:
        return Item(text, images, videos, instruction)
    except InputError:
        return text


ITEMS = st.builds(
    an_item,
    TEXTS | st.none(),
    st.lists(IMAGES, max_size=2).map(tuple),
    st.lists(VIDEOS, max_size=2).map(tuple),
    TEXTS | st.none(),
)


@given(st.lists(ITEMS, min_size=1, max_size=3), st.sampled_from(["always", "never"]), st.booleans())
@settings(max_examples=80, deadline=None)
def test_a_hostile_item_costs_itself_alone(items: list[Any], reasoning: Any, fetching: bool) -> None:
    hosts = ["images.example.org"] if fetching else []
    embedder = ReasoningEmbedder(HashEmbedder(), FakeReasoner(), allow_remote=hosts)
    for encode in (embedder.encode_query, embedder.encode_corpus):
        result = encode(["fine", *items, "too"], reasoning=reasoning, strict=False, return_traces=True)
        assert np.isfinite(result.vectors[[0, -1]]).all()
        assert {one.index for one in result.failures} == {
            row for row, vector in enumerate(result.vectors) if np.isnan(vector).any()
        }
        assert all("hunter2" not in one.message + one.hint for one in result.failures)


@pytest.mark.parametrize("address", ADDRESSES)
def test_an_address_that_cannot_be_read_is_a_typed_error(address: str) -> None:
    with pytest.raises(MediaError) as caught:
        load(Item(images=(address,)), HashEmbedder().spec.budget, allow_remote=["images.example.org", "10.0.0.0/8"])
    assert "hunter2" not in caught.value.message + caught.value.hint
    assert not caught.value.retryable


@pytest.mark.parametrize("number", NUMBERS)
def test_a_number_out_of_range_is_a_typed_error(number: Any, tmp_path: Path) -> None:
    picture = PIL.Image.new("RGB", (4, 4))
    for make in (
        lambda: Item(videos=(Clip(tmp_path / "a.mp4", number),)),
        lambda: Item(images=(Page(tmp_path / "a.pdf", number),)),
        lambda: Item(videos=(Frames((picture,), (number,), number),)),
    ):
        try:
            item = make()
        except InputError:
            continue
        embedder = ReasoningEmbedder(HashEmbedder(), FakeReasoner())
        embedder.encode_corpus([item], strict=False)
        with pytest.raises(UmeError):
            embedder.encode_corpus([item, Item(images=(tmp_path / "missing.png",))])


@given(st.binary(max_size=80))
@example(b"[" * 3000)
@example(b'{"a":' * 3000)
@example(b'{"weights": [' + b"9" * 400 + b'], "bias": 0}')
@example(json.dumps({"weights": [1.0], "bias": 10**400, "threshold": 0}).encode())
@example(b"\xff\xfe")
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_hostile_side_file_is_a_typed_error(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "ume.json").write_bytes(data)
    with pytest.raises(UmeError):
        Gate.load(tmp_path / "ume.json")
    with pytest.raises(UmeError):
        read_spec(tmp_path)


class PanicException(BaseException):
    """Like that of PyO3, which every extension module defines for itself."""


FOREIGN = [RecursionError(), OverflowError("a\nb"), KeyError("x"), PanicException("\x1b[31m")]


@pytest.mark.parametrize("foreign", FOREIGN)
def test_the_boundary_converts_what_is_foreign(foreign: BaseException) -> None:
    with pytest.raises(MediaError, match="cannot be read") as caught, typed_errors(MediaError, "it cannot be read"):
        raise foreign
    assert caught.value.__cause__ is foreign
    assert caught.value.message.isprintable()


@pytest.mark.parametrize("own", [Stopped(), KeyboardInterrupt(), SystemExit(), GeneratorExit(), InputError("x")])
def test_the_boundary_leaves_the_rest(own: BaseException) -> None:
    with pytest.raises(type(own)) as caught, typed_errors(MediaError, "it cannot be read"):
        raise own
    assert caught.value is own


def bomb(side: int) -> bytes:
    file = io.BytesIO()
    PIL.Image.new("1", (side, side)).save(file, format="PNG")
    return file.getvalue()


def test_parallel_bombs_wait_for_room(monkeypatch: pytest.MonkeyPatch) -> None:
    """Twelve PNGs of 6 KB, decoded at once, took 6.2 GB."""
    data, most = bomb(1000), Limits(pixels_at_once=2_500_000)
    held: list[int] = []
    hold = PixelRoom.hold

    def watched(room: Any, pixels: int, name: str, limits: Limits) -> Any:
        inner = hold(room, pixels, name, limits)

        class Watch:
            def __enter__(self) -> None:
                inner.__enter__()
                held.append(room._held)

            def __exit__(self, *exc: object) -> Any:
                return inner.__exit__(*exc)

        return Watch()

    monkeypatch.setattr(PixelRoom, "hold", watched)
    threads = [threading.Thread(target=open_image, args=(data, most)) for _ in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert len(held) == 12
    assert max(held) <= 2_500_000
    assert PIXEL_ROOM._held == 0


def test_what_needs_more_than_all_room_is_refused() -> None:
    for source in (bomb(1000), PIL.Image.new("L", (1000, 1000))):
        with pytest.raises(MediaTooLarge, match="decoded at once") as caught:
            open_image(source, Limits(pixels_at_once=999_999))
        assert "pixels_at_once" in caught.value.hint
    assert PIXEL_ROOM._held == 0
