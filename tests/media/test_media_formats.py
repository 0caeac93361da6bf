from __future__ import annotations

import sys
from pathlib import Path

import media_makers
import numpy as np
import PIL.Image
import pytest
from media_makers import number_of, numbered

from ume_retrieval import Limits, Page
from ume_retrieval.errors import BrokenMedia, MediaNotFound, MediaTooLarge, UnsupportedMedia
from ume_retrieval.media import count_pages, discover, open_image, probe_video, sample_video
from ume_retrieval.media.formats import FORMATS, sniff
from ume_retrieval.media.isolation.decoder import decoder
from ume_retrieval.media.limits import Isolation


def write(path: Path, number: int, **options: object) -> Path:
    if path.suffix in (".heic", ".heif"):
        import pillow_heif

        pillow_heif.register_heif_opener()
    if path.suffix == ".jxl":
        pytest.importorskip("pillow_jxl")
    numbered(number).save(path, quality=90, **options)
    return path


@pytest.mark.parametrize("suffix", [".heic", ".heif", ".avif", ".jp2", ".j2k", ".jxl", ".webp", ".tif", ".bmp", ".jpg"])
def test_every_image_format_is_read(tmp_path: Path, suffix: str) -> None:
    path = write(tmp_path / f"picture{suffix}", 77)
    [entry] = discover([path])
    assert entry.kind == "image"
    assert number_of(open_image(path)) == 77
    assert number_of(open_image(path.read_bytes())) == 77


@pytest.mark.parametrize("suffix", [".heic", ".avif", ".jpg", ".webp", ".tif"])
def test_a_picture_that_exif_turns_is_upright_once(tmp_path: Path, suffix: str) -> None:
    write(tmp_path / f"warm{suffix}", 1)  # registers the format
    exif = PIL.Image.Exif()
    exif[0x0112] = 6
    path = tmp_path / f"turned{suffix}"
    numbered(50).transpose(PIL.Image.Transpose.ROTATE_90).save(path, exif=exif, quality=95)
    image = open_image(path)
    assert image.size == (160, 96)
    assert number_of(image) == 50


def test_a_heic_that_is_turned_by_its_own_property_is_upright_once(tmp_path: Path) -> None:
    path = write(tmp_path / "warm.heic", 1)
    exif = PIL.Image.Exif()
    exif[0x0112] = 6
    # The encoder turns EXIF as bytes into the property.
    numbered(50).transpose(PIL.Image.Transpose.ROTATE_90).save(path, exif=exif.tobytes(), quality=95)
    assert b"irot" in path.read_bytes()
    assert number_of(open_image(path)) == 50


def test_workers_read_them_too(tmp_path: Path) -> None:
    limits = Limits(isolation=Isolation(workers=1))
    for suffix in (".heic", ".avif", ".jp2"):
        image = decoder(limits).open_image(write(tmp_path / f"a{suffix}", 9), limits, page_pixels=10_000)
        assert number_of(image) == 9


def test_limits_hold_before_decoding(tmp_path: Path) -> None:
    for suffix in (".heic", ".avif", ".jp2"):
        with pytest.raises(MediaTooLarge, match="160 x 96"):
            open_image(write(tmp_path / f"a{suffix}", 9), Limits(max_pixels=160 * 96 - 1))


@pytest.mark.parametrize("suffix", [".heic", ".avif", ".jp2", ".webp"])
def test_a_cut_image_is_broken_and_silent(tmp_path: Path, capfd: pytest.CaptureFixture[str], suffix: str) -> None:
    path = write(tmp_path / f"a{suffix}", 9)
    path.write_bytes(path.read_bytes()[:-200])
    with pytest.raises(BrokenMedia):
        open_image(path)
    assert capfd.readouterr() == ("", "")


def test_a_missing_reader_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from ume_retrieval.media import plugins

    path = tmp_path / "a.jxl"
    path.write_bytes(b"\xff\x0a" + bytes(100))
    monkeypatch.setitem(sys.modules, "pillow_jxl", None)
    plugins._register_jpegxl.cache_clear()
    with pytest.raises(UnsupportedMedia) as caught:
        open_image(path)
    assert "ume-retrieval[jxl]" in caught.value.hint
    plugins._register_jpegxl.cache_clear()


def test_a_pair_of_pictures_is_its_first(tmp_path: Path) -> None:
    path = tmp_path / "pair.mpo"
    numbered(3).save(path, format="MPO", save_all=True, append_images=[numbered(4)])
    [entry] = discover([path])
    assert entry.kind == "image"
    assert number_of(open_image(path)) == 3


@pytest.mark.parametrize("options", [{}, {"big_tiff": True}, {"compression": "tiff_lzw"}])
def test_a_tiff_of_three_pages_is_three_pages(tmp_path: Path, options: dict[str, object]) -> None:
    path = tmp_path / "fax.tif"
    numbered(1).save(path, save_all=True, append_images=[numbered(2), numbered(3)], **options)
    found = list(discover([path]))
    assert [(entry.kind, entry.page) for entry in found] == [("page", 1), ("page", 2), ("page", 3)]
    assert [number_of(open_image(entry.item.images[0])) for entry in found] == [1, 2, 3]
    limits = Limits(isolation=Isolation(workers=1))
    assert number_of(decoder(limits).open_image(Page(path, 2), limits, page_pixels=10_000)) == 2
    assert count_pages(path) == 3
    with pytest.raises(MediaNotFound, match="page 4"):
        open_image(Page(path, 4))
    with pytest.raises(MediaTooLarge, match="3 pages"):
        count_pages(path, Limits(max_pages=2))


def test_thumbnails_in_a_tiff_are_no_pages(tmp_path: Path) -> None:
    path = tmp_path / "camera.tif"
    thumbnail = numbered(9)
    thumbnail.encoderinfo = {"tiffinfo": {254: 1}}
    numbered(1).save(path, save_all=True, append_images=[thumbnail])
    with PIL.Image.open(path) as image:
        image.seek(1)
        assert image.tag_v2.get(254) == 1
    [entry] = discover([path])
    assert entry.kind == "image"


@pytest.mark.parametrize("suffix", ["webp", "png", "avif", "gif"])
def test_an_animation_is_a_video_and_a_still_is_an_image(films: dict[str, Path], tmp_path: Path, suffix: str) -> None:
    [entry] = discover([films[suffix]])
    assert (entry.kind, entry.start_s, entry.end_s) == ("video", 0.0, pytest.approx(4.0))
    still = tmp_path / f"still.{suffix}"
    numbered(5).save(still)
    [entry] = discover([still])
    assert entry.kind == "image"


@pytest.mark.parametrize("suffix", ["webp", "png"])
def test_an_animation_with_uneven_delays_goes_by_them(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"uneven.{suffix}"
    media_makers.write_animation(path, 4, [100, 700, 200, 1000])
    assert probe_video(path).duration_s == pytest.approx(2.0)
    frames = sample_video(path, fps=5, max_frames=100)
    assert list(map(number_of, frames.images)) == [0, 1, 1, 1, 2, 3, 3, 3, 3, 3]


def test_the_table_of_formats_is_consistent() -> None:
    suffixes = [suffix for form in FORMATS for suffix in form.suffixes.split()]
    assert len(suffixes) == len(set(suffixes))
    assert len({form.name for form in FORMATS}) == len(FORMATS)
    rng = np.random.default_rng(0)
    assert not any(sniff(rng.bytes(1024)) for _ in range(200))


def test_typescript_is_no_film(tmp_path: Path) -> None:
    (tmp_path / "code.ts").write_text("G" * 3 + "export const x = 1;\n" * 50, encoding="utf-8")
    assert list(discover([tmp_path])) == []
