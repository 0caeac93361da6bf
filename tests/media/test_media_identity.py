from __future__ import annotations

import io
import os
import shutil
from dataclasses import replace
from pathlib import Path

import PIL.Image
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from media_makers import numbered, pdf

from ume_retrieval import Clip, Frames, InputError, Item, Limits, Page, VisualBudget
from ume_retrieval.errors import MediaNotFound, MediaTooLarge, RemoteNotAllowed
from ume_retrieval.media import content_id, load
from ume_retrieval.media.loading import frame_fields

BUDGET = VisualBudget()


def name(item: Item, budget: VisualBudget = BUDGET) -> str:
    return content_id(item, budget)


def unframe(data: bytes) -> list[bytes]:
    stream, fields = io.BytesIO(data), []
    while head := stream.read(8):
        fields.append(stream.read(int.from_bytes(head, "big")))
    return fields


@settings(deadline=None)
@given(st.lists(st.binary(max_size=12), max_size=8))
def test_framed_fields_can_be_told_apart(fields: list[bytes]) -> None:
    assert unframe(frame_fields(fields)) == fields


TEXTS = st.none() | st.text(min_size=1, max_size=4).filter(lambda text: text.strip() != "")


@settings(deadline=None)
@given(TEXTS, TEXTS, TEXTS, TEXTS)
def test_words_never_run_into_each_other(text: str, instruction: str, other: str, other_instruction: str) -> None:
    one = Item(text=text or "x", instruction=instruction)
    two = Item(text=other or "x", instruction=other_instruction)
    assert (name(one) == name(two)) == (one == two)


def test_lone_surrogates_have_an_id() -> None:
    assert name(Item(text="caf\udce9")) != name(Item(text="caf\udcea"))


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    path = tmp_path / "picture.png"
    numbered(1).save(path)
    return path


def test_names_and_places_do_not_count(tmp_path: Path, picture: Path, films: dict[str, Path]) -> None:
    moved = tmp_path / "elsewhere" / "caf\udce9.jpg"
    moved.parent.mkdir()
    shutil.copy(picture, moved)
    assert name(Item(images=(picture,))) == name(Item(images=(str(moved),)))
    assert name(Item(images=(picture,))) == name(Item(images=(picture.read_bytes(),)))
    film = tmp_path / "renamed.bin"
    shutil.copy(films["mp4"], film)
    assert name(Item(videos=(films["mp4"],))) == name(Item(videos=(Clip(film),)))


def test_whatever_the_model_sees_counts(tmp_path: Path, picture: Path, films: dict[str, Path]) -> None:
    paper = tmp_path / "paper.pdf"
    paper.write_bytes(pdf(2))
    one, two = numbered(1), numbered(2)
    film = films["mp4"]
    frames = Frames((one, two), (0.0, 0.5), 1.0)
    items = [
        Item(text="a"),
        Item(text="b"),
        Item(text="a", instruction="b"),
        Item(images=(picture,)),
        Item(images=(picture,), text="a"),
        Item(images=(picture, picture)),
        Item(images=(one,)),
        Item(images=(two,)),
        Item(images=(one, two)),
        Item(images=(two, one)),
        Item(images=(one.resize((96, 160)),)),
        Item(images=(one.convert("L"),)),
        Item(images=(Page(paper, 1),)),
        Item(images=(Page(paper, 2),)),
        Item(videos=(film,)),
        Item(videos=(films["webm"],)),
        Item(videos=(Clip(film, 1.0),)),
        Item(videos=(Clip(film, 1.0, 2.0),)),
        Item(videos=(Clip(film, 0.0, 2.0),)),
        Item(videos=(frames,)),
        Item(videos=(replace(frames, timestamps=(0.0, 0.6)),)),
        Item(videos=(replace(frames, duration_s=2.0),)),
        Item(videos=(replace(frames, images=(two, one)),)),
        Item(images=(one, two), videos=(frames,)),
        Item(images=(one,), videos=(frames,)),
    ]
    assert len({name(item) for item in items}) == len(items)


def test_pixels_count_as_the_model_sees_them() -> None:
    image = numbered(1)
    turned = image.transpose(PIL.Image.Transpose.ROTATE_90)
    turned.getexif()[0x0112] = 6
    assert name(Item(images=(turned,))) == name(Item(images=(image,)))
    assert name(Item(images=(image.convert("RGBA"),))) == name(Item(images=(image,)))


def test_sampling_counts_for_videos_alone(films: dict[str, Path]) -> None:
    clip, text = Item(videos=(films["mp4"],)), Item(text="a")
    sparse, few = VisualBudget(video_fps=1.0), VisualBudget(video_frames=4)
    assert len({name(clip), name(clip, sparse), name(clip, few)}) == 3
    assert name(text) == name(text, sparse) == name(text, few)
    frames = Item(videos=(Frames((numbered(1),), (0.0,), 1.0),))
    assert name(frames) == name(frames, sparse)


def test_a_changed_file_is_seen_even_when_its_size_and_time_stay(tmp_path: Path) -> None:
    path = tmp_path / "picture.bmp"
    names = set()
    for number in range(4):
        numbered(number).save(path)
        os.utime(path, ns=(10**18, 10**18))
        names.add(name(Item(images=(path,))))
    assert len(names) == 4


def test_limits_and_refusals(picture: Path) -> None:
    with pytest.raises(MediaTooLarge):
        content_id(Item(images=(picture,)), BUDGET, Limits(max_bytes=10))
    with pytest.raises(MediaTooLarge):
        content_id(Item(images=(numbered(1),)), BUDGET, Limits(max_pixels=10))
    with pytest.raises(MediaNotFound):
        name(Item(videos=(picture.with_name("gone.mp4"),)))
    with pytest.raises(RemoteNotAllowed):
        name(Item(videos=("https://a.org/x.mp4",)))
    with pytest.raises(InputError):
        name(Item(images=(3,)))  # type: ignore[arg-type]
    with pytest.raises(InputError):
        name(Item(videos=(numbered(1),)))  # type: ignore[arg-type]


def test_load_gives_pixels_and_the_same_id(tmp_path: Path, picture: Path, films: dict[str, Path]) -> None:
    paper = tmp_path / "paper.pdf"
    paper.write_bytes(pdf(2))
    item = Item("words", (picture, Page(paper, 2)), (Clip(films["webm"], 1.0, 3.0),), "find it")
    budget = VisualBudget(video_fps=2, video_frames=3, image_max_pixels=5_000)
    loaded = load(item, budget)
    assert (loaded.text, loaded.instruction, loaded.modality) == ("words", "find it", "video")
    assert loaded.images[0].size == (160, 96)
    assert 15_000 < loaded.images[1].width * loaded.images[1].height <= 20_000
    assert loaded.videos[0].timestamps == (1.0, 2.0, 2.5)
    assert loaded.content_id == content_id(item, budget)
