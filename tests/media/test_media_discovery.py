from __future__ import annotations

import hashlib
import io
import os
import struct
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import media_makers
import numpy as np
import PIL.Image
import pytest
from media_makers import LOCKED, numbered, pdf, png

from ume_retrieval import Clip, Failure, InputError, Item, Limits, MediaError, Page, VisualBudget
from ume_retrieval.errors import BrokenMedia, MediaNotFound
from ume_retrieval.media import Entry, discover, entries, load, segments, walk

BUDGET = VisualBudget(video_fps=2, video_frames=8)


def image_bytes(form: str, **settings: object) -> bytes:
    noise = PIL.Image.fromarray(np.random.default_rng(0).integers(0, 255, (96, 160, 3), np.uint8))
    buffer = io.BytesIO()
    noise.save(buffer, form, **settings)
    return buffer.getvalue()


@pytest.fixture
def good(tmp_path: Path, films: dict[str, Path]) -> Path:
    """A folder with one of each."""
    folder = tmp_path / "good"
    folder.mkdir()
    numbered(7).save(folder / "a.png")
    (folder / "b.mp4").write_bytes(films["mp4"].read_bytes())
    (folder / "c.pdf").write_bytes(pdf(2))
    (folder / "d.txt").write_text("\ufeffa red circle\n", encoding="utf-8")
    return folder


def test_one_of_each_is_found_whole(good: Path) -> None:
    found = list(discover([good], segment_s=2.0, overlap_s=0.5))
    assert all(isinstance(entry, Entry) for entry in found)
    film, paper = good / "b.mp4", good / "c.pdf"
    assert [(entry.path.name, entry.kind, entry.item, entry.start_s, entry.end_s, entry.page) for entry in found] == [
        ("a.png", "image", Item(images=(good / "a.png",)), None, None, None),
        *(("b.mp4", "video", Item(videos=(Clip(film, *cut),)), *cut, None) for cut in segments(4.0, 2.0, 0.5)),
        ("c.pdf", "page", Item(images=(Page(paper, 1),)), None, None, 1),
        ("c.pdf", "page", Item(images=(Page(paper, 2),)), None, None, 2),
        ("d.txt", "text", Item(text="a red circle\n"), None, None, None),
    ]
    for entry in found:
        assert entry.source == str(entry.path)
        assert entry.file_digest == hashlib.sha256(entry.path.read_bytes()).hexdigest()
        assert (entry.size, entry.mtime_ns) == (entry.path.stat().st_size, entry.path.stat().st_mtime_ns)
    assert len({load(entry.item, BUDGET).content_id for entry in found}) == len(found)


def test_a_short_video_is_one_segment(good: Path) -> None:
    (entry,) = discover([good / "b.mp4"])
    assert (entry.start_s, entry.end_s) == (0.0, 4.0)


def test_both_steps_give_what_discover_gives(good: Path) -> None:
    assert [entry for found in walk([good]) for entry in entries(found)] == list(discover([good]))


def test_walking_reads_no_further_than_the_head(tmp_path: Path) -> None:
    path = tmp_path / "sparse.mp4"
    with path.open("wb") as handle:
        handle.write(b"\0\0\0\x18ftypisom" + bytes(12))
        handle.truncate(1 << 40)
    (found,) = walk([path], limits=Limits(max_bytes=1 << 41))
    assert (found.kind, found.size) == ("video", 1 << 40)


@pytest.mark.parametrize(("segment_s", "overlap_s"), [(0.0, 0.0), (2.0, 2.0), (2.0, -1.0)])
def test_impossible_segments_are_refused_at_once(good: Path, segment_s: float, overlap_s: float) -> None:
    with pytest.raises(InputError):
        discover([good], segment_s=segment_s, overlap_s=overlap_s)


@pytest.mark.parametrize(
    ("limits", "refused"),
    [
        (Limits(max_pixels=100), {"a.png", "b.mp4"}),
        (Limits(max_duration_s=1.0), {"b.mp4"}),
        (Limits(max_pages=1), {"c.pdf"}),
        (Limits(max_text_chars=12), {"d.txt"}),
        (Limits(max_bytes=20), {"a.png", "b.mp4", "c.pdf"}),
    ],
)
def test_limits_hold_and_the_rest_goes_on(good: Path, limits: Limits, refused: set[str]) -> None:
    failures = [one for one in discover([good], limits=limits) if isinstance(one, Failure)]
    assert {(Path(one.source).name, one.error) for one in failures} == {(name, "media_too_large") for name in refused}
    assert len({one.source for one in discover([good], limits=limits)}) == 4


def test_a_file_that_goes_between_the_steps_is_a_failure(good: Path) -> None:
    found = list(walk([good]))
    for path in good.iterdir():
        path.unlink()
    for one in found:
        with pytest.raises(MediaNotFound):
            entries(one)


def cut(data: bytes, share: float) -> bytes:
    return data[: int(len(data) * share)]


def hole(data: bytes) -> bytes:
    tenth = len(data) // 10
    return data[: 4 * tenth] + bytes(2 * tenth) + data[6 * tenth :]


@dataclass(frozen=True)
class Broken:
    name: str
    make: Callable[[dict[str, Path]], bytes]
    error: str = "broken_media"


def film(container: str, damage: Callable[[bytes], bytes]) -> Callable[[dict[str, Path]], bytes]:
    return lambda films: damage(films[container].read_bytes())


BROKEN = [
    *(
        Broken(f"empty{suffix}", lambda _: b"")
        for suffix in (".jpg", ".png", ".gif", ".mp4", ".webm", ".mkv", ".avi", ".pdf", ".txt", ".md")
    ),
    *(
        Broken(f"cut {form}.bin", lambda _, form=form: cut(image_bytes(form), 0.5))
        for form in ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF")
    ),
    Broken("progressive.jpg", lambda _: cut(image_bytes("JPEG", progressive=True), 0.5)),
    Broken("scrambled.png", lambda _: hole(image_bytes("PNG"))),
    Broken("head only.jpg", lambda _: b"\xff\xd8\xff\xe0"),
    Broken("head only.png", lambda _: b"\x89PNG\r\n\x1a\n"),
    Broken("head only.gif", lambda _: b"GIF89a\1"),
    Broken("head only.tif", lambda _: b"II*\0\xff\xff\xff\xff"),
    Broken("head only.webp", lambda _: b"RIFF\xff\0\0\0WEBPVP8 "),
    Broken("head only.mp4", lambda _: b"\0\0\0\x18ftypisom\0\0\0\0isomiso2"),
    Broken("head only.mkv", lambda _: b"\x1a\x45\xdf\xa3\x8b\x42\x82\x88matroska"),
    Broken("head only.avi", lambda _: b"RIFF\xff\0\0\0AVI LIST"),
    *(
        Broken(f"cut film.{container}", film(container, lambda data: cut(data, 0.7)))
        for container in ("mp4", "mov", "gif")
    ),
    Broken("cut at its second frame.gif", film("gif", lambda data: cut(data, 0.035))),
    Broken("hole.mkv", film("mkv", hole)),
    Broken("hole.mov", film("mov", hole)),
    Broken("no frames.mkv", lambda _: no_frames()),
    Broken("cut.pdf", lambda _: cut(pdf(3), 0.6)),
    Broken("garbage.pdf", lambda _: b"%PDF-1.7\n" + bytes(300) + b"%%EOF\n"),
    Broken("no pages.pdf", lambda _: pdf(0)),
    Broken("latin.txt", lambda _: "caf\xe9".encode("latin-1")),
    Broken("blank.md", lambda _: b" \n\t\n"),
    Broken("locked.pdf", lambda _: pdf(1, trailer=LOCKED), "unsupported_media"),
    Broken("words.jpg", lambda _: b"once upon a time", "unsupported_media"),
    Broken("words.mp4", lambda _: b"once upon a time", "unsupported_media"),
    Broken("words.pdf", lambda _: b"once upon a time", "unsupported_media"),
    Broken("playlist.mp4", lambda _: b"#EXTM3U\nhttp://127.0.0.1/a.ts\n", "unsupported_media"),
    Broken("page.html.png", lambda _: b"<!DOCTYPE html><title>404</title>", "unsupported_media"),
    Broken("sound.webm", lambda _: sound_only(), "unsupported_media"),
    Broken("phone.heic", lambda _: b"\0\0\0\x18ftypheic" + bytes(20)),
    Broken("drawing.svg", lambda _: b"<svg xmlns='http://www.w3.org/2000/svg'/>", "unsupported_media"),
    Broken("bomb.png", lambda _: png(50_000, 50_000, 8, 2, b""), "media_too_large"),
    Broken("bomb.bmp", lambda _: bmp_bomb(), "media_too_large"),
    Broken("long.txt", lambda _: "\xe4".encode() * 100_001, "media_too_large"),
    Broken("caf\udce9 \x1b[31m\n.jpg", lambda _: b"", "broken_media"),
]


def no_frames() -> bytes:
    whole = io.BytesIO()
    media_makers.write_video(whole, [numbered(1)], codec="mpeg4", form="matroska")
    data = whole.getvalue()
    # The one cluster becomes a void element: the header still promises a video.
    return data.replace(b"\x1f\x43\xb6\x75", b"\xec\x43\xb6\x75")


def sound_only() -> bytes:
    import av

    buffer = io.BytesIO()
    with av.open(buffer, "w", format="matroska") as container:
        stream = container.add_stream("pcm_s16le", rate=8000, layout="mono")
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 8000), np.int16), "s16", "mono")
        frame.sample_rate = 8000
        container.mux(stream.encode(frame))
    return buffer.getvalue()


def bmp_bomb() -> bytes:
    return (
        b"BM" + struct.pack("<IHHI", 54, 0, 0, 54) + struct.pack("<IiiHHIIiiII", 40, 60_000, 60_000, 1, 24, *(0,) * 6)
    )


def fate(path: Path) -> str:
    """The code of the error that a file meets on its way to pixels."""
    for one in discover([path]):
        if isinstance(one, Failure):
            assert one.hint
            assert one.message.isprintable()
            return one.error
        with pytest.raises(MediaError) as caught:
            load(one.item, BUDGET)
        assert caught.value.message.isprintable()
        return caught.value.code
    return "nothing was found"


@pytest.mark.parametrize("broken", BROKEN, ids=lambda broken: repr(broken.name))
def test_every_kind_of_broken_file_has_its_error(
    tmp_path: Path, films: dict[str, Path], capfd: pytest.CaptureFixture[str], broken: Broken
) -> None:
    path = tmp_path / broken.name
    path.write_bytes(broken.make(films))
    assert fate(path) == broken.error
    assert capfd.readouterr() == ("", "")


def test_broken_files_never_cost_the_good_ones(good: Path, films: dict[str, Path]) -> None:
    assert len(BROKEN) >= 30
    for broken in BROKEN:
        (good / broken.name).write_bytes(broken.make(films))
    (good / "loop").symlink_to(".")
    (good / "dead.jpg").symlink_to("nowhere")
    os.mkfifo(good / "pipe.png")
    loaded, failed = set(), []
    for one in discover([good]):
        if isinstance(one, Failure):
            failed.append(one.source)
            continue
        try:
            load(one.item, BUDGET)
        except MediaError:
            failed.append(one.source)
        else:
            loaded.add(one.path.name)
    assert loaded == {"a.png", "b.mp4", "c.pdf", "d.txt"}
    assert len(failed) == len(set(failed)) == len(BROKEN) + 3


def test_text_that_ends_inside_a_character_at_the_limit_is_too_long(tmp_path: Path) -> None:
    path = tmp_path / "long.txt"
    path.write_bytes("a\u20ac".encode() * 50)
    (failure,) = discover([path], limits=Limits(max_text_chars=20))
    assert isinstance(failure, Failure)
    assert failure.error == "media_too_large"


@pytest.mark.parametrize("characters", [10, 40, 5000], ids=["short", "at the limit", "far beyond it"])
def test_text_in_another_encoding_is_broken_whatever_its_length(tmp_path: Path, characters: int) -> None:
    path = tmp_path / "russian.txt"
    path.write_bytes(("Дождь идёт, весь день. " * 300)[:characters].encode("cp1251"))
    (failure,) = discover([path], limits=Limits(max_text_chars=20))
    assert isinstance(failure, Failure)
    assert (failure.error, failure.hint) == ("broken_media", "save it as UTF-8")


@pytest.mark.parametrize("letter", ["a", "ä", "€", "😀"])
@pytest.mark.parametrize("mark", ["", "\ufeff"])
def test_text_of_just_so_many_characters_is_taken(tmp_path: Path, letter: str, mark: str) -> None:
    path = tmp_path / "just.txt"
    for count, fits in ((20, True), (21, False), (22, False), (500, False)):
        path.write_text(mark + letter * count, encoding="utf-8")
        (one,) = discover([path], limits=Limits(max_text_chars=20))
        assert isinstance(one, Entry) == fits
        assert isinstance(one, Entry) or one.error == "media_too_large"


def test_a_broken_kind_is_raised_by_entries(tmp_path: Path) -> None:
    path = tmp_path / "blank.txt"
    path.write_text("\n", encoding="utf-8")
    (found,) = walk([path])
    with pytest.raises(BrokenMedia, match="is blank"):
        entries(found)
