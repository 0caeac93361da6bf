from __future__ import annotations

import io
import struct
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import PIL.Image
import pytest
from media_makers import WIDTH, chunk, number_of, numbered, pdf, png, tiff
from PIL.Image import Transpose

from ume_retrieval import InputError, Limits
from ume_retrieval.errors import BrokenMedia, MediaNotFound, MediaTooLarge, RemoteNotAllowed, UnsupportedMedia
from ume_retrieval.media import check_image, open_image

WHITE, RED = (255, 255, 255), (255, 0, 0)


def saved(image: PIL.Image.Image, form: str, **settings: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, form, **settings)
    return buffer.getvalue()


@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "MPO"])
def test_every_format_opens_from_bytes_and_from_a_file(tmp_path: Path, form: str) -> None:
    data = saved(numbered(77), form)
    path = tmp_path / "picture.bin"
    path.write_bytes(data)
    for source in (data, path, str(path)):
        image = open_image(source)
        assert (image.mode, image.size, number_of(image)) == ("RGB", (160, 96), 77)
    assert check_image(path) == (160, 96)


STORED = {
    1: None,
    2: Transpose.FLIP_LEFT_RIGHT,
    3: Transpose.ROTATE_180,
    4: Transpose.FLIP_TOP_BOTTOM,
    5: Transpose.TRANSPOSE,
    6: Transpose.ROTATE_90,
    7: Transpose.TRANSVERSE,
    8: Transpose.ROTATE_270,
}


@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP", "TIFF"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied_once(form: str, orientation: int) -> None:
    stored = numbered(5) if STORED[orientation] is None else numbered(5).transpose(STORED[orientation])
    exif = PIL.Image.Exif()
    exif[0x0112] = orientation
    data = saved(stored, form, exif=exif)
    for source in (data, PIL.Image.open(io.BytesIO(data))):
        image = open_image(source)
        assert number_of(image) == 5
        assert image.getexif().get(0x0112) is None
        assert number_of(open_image(image)) == 5


def test_damaged_exif_costs_no_picture() -> None:
    data = saved(numbered(9), "JPEG", exif=b"Exif\0\0MM\0*\0\0\0\x08\xff\xff" + b"\xff" * 40)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert number_of(open_image(data)) == 9


@pytest.mark.parametrize("mode", ["RGBA", "LA", "PA", "La", "RGBa"])
def test_transparency_is_laid_on_white(mode: str) -> None:
    black = {"RGBA": b"\0\0\0", "RGBa": b"\0\0\0"}.get(mode, b"\0")
    image = PIL.Image.frombytes(mode, (3, 1), b"".join(black + bytes([alpha]) for alpha in (0, 255, 128)))
    seen = open_image(image)
    assert [seen.getpixel((x, 0)) for x in range(3)] == [WHITE, (0, 0, 0), (127, 127, 127)]


def test_transparent_colours_are_white() -> None:
    palette = PIL.Image.new("P", (2, 1))
    palette.putpalette([0, 0, 0, 255, 0, 0])
    palette.putpixel((1, 0), 1)
    for data in (
        saved(palette, "PNG", transparency=0),
        saved(palette, "PNG", transparency=bytes([0, 255])),
        saved(palette, "GIF", transparency=0),
    ):
        seen = open_image(data)
        assert (seen.getpixel((0, 0)), seen.getpixel((1, 0))) == (WHITE, RED)
    grey = open_image(png(2, 1, 8, 0, b"\0\x10\x20", extra=chunk(b"tRNS", struct.pack(">H", 0x10))))
    assert (grey.getpixel((0, 0)), grey.getpixel((1, 0))) == (WHITE, (32, 32, 32))
    deep = open_image(png(2, 1, 16, 0, b"\0\x10\x10\x20\x20", extra=chunk(b"tRNS", struct.pack(">H", 0x1010))))
    assert (deep.getpixel((0, 0)), deep.getpixel((1, 0))) == (WHITE, (32, 32, 32))


def test_palette_and_one_bit() -> None:
    assert number_of(open_image(saved(numbered(200).quantize(16), "PNG"))) == 200
    assert open_image(saved(PIL.Image.new("1", (3, 3), 1), "PNG")).getpixel((1, 1)) == WHITE


LEVELS = [0, 257, 32768, 65535]
LEVELS_8 = [0, 1, 128, 255]


@pytest.mark.parametrize("name", ["png", "tiff", "tiff inverted", "big-endian array"])
def test_sixteen_bit_grey_is_scaled(name: str) -> None:
    if name == "png":
        image = open_image(png(4, 1, 16, 0, b"\0" + struct.pack(">4H", *LEVELS)))
    elif name == "tiff":
        image = open_image(tiff(4, 1, (16,), photometric=1, data=struct.pack("<4H", *LEVELS)))
    elif name == "tiff inverted":
        image = open_image(
            tiff(4, 1, (16,), photometric=0, data=struct.pack("<4H", *(65535 - level for level in LEVELS)))
        )
    else:
        image = open_image(PIL.Image.frombytes("I;16B", (4, 1), struct.pack(">4H", *LEVELS)))
    assert [image.getpixel((x, 0)) for x in range(4)] == [(v, v, v) for v in LEVELS_8]


@pytest.mark.parametrize("name", ["png", "tiff"])
def test_sixteen_bit_colour_is_scaled(name: str) -> None:
    values = [0, 65535, 32896, 65535, 0, 12850]
    image = open_image(
        png(2, 1, 16, 2, b"\0" + struct.pack(">6H", *values))
        if name == "png"
        else tiff(2, 1, (16, 16, 16), photometric=2, data=struct.pack("<6H", *values))
    )
    assert [image.getpixel((x, 0)) for x in range(2)] == [(0, 255, 128), (255, 0, 50)]


def test_twelve_bit_tiff_is_scaled_from_its_own_range() -> None:
    image = open_image(tiff(2, 1, (12,), photometric=1, data=bytes([0xFF, 0xF8, 0x08])))
    assert [image.getpixel((x, 0))[0] for x in range(2)] == [255, 128]


@pytest.mark.parametrize(
    ("mode", "values", "expected"),
    [
        ("I", [0, 65535], [0, 255]),
        ("I", [-100, 100], [0, 255]),
        ("I", [0, 1_000_000], [0, 255]),
        ("F", [0.0, 0.5], [0, 128]),
        ("F", [0.0, 200.0], [0, 200]),
        ("F", [-1.0, 1.0], [0, 255]),
        ("F", [1000.0, 1000.0], [0, 0]),
        ("F", [float("nan"), 1.0], [0, 255]),
        ("F", [float("nan"), float("nan")], [0, 0]),
    ],
)
def test_wide_values_find_a_range(mode: str, values: list[float], expected: list[int]) -> None:
    image = PIL.Image.fromarray(np.array([values], np.int32 if mode == "I" else np.float32))
    assert image.mode == mode
    assert [open_image(image).getpixel((x, 0))[0] for x in range(2)] == expected


@pytest.mark.parametrize("form", ["JPEG", "TIFF"])
def test_cmyk(form: str) -> None:
    seen = open_image(saved(PIL.Image.new("RGB", (8, 8), RED).convert("CMYK"), form))
    assert np.allclose(seen.getpixel((4, 4)), RED, atol=3)


@pytest.mark.parametrize("form", ["GIF", "WEBP", "PNG", "TIFF"])
def test_of_an_animation_the_first_frame_is_taken(form: str) -> None:
    assert number_of(open_image(saved(numbered(1), form, save_all=True, append_images=[numbered(2), numbered(3)]))) == 1


def test_the_result_is_new() -> None:
    source = numbered(3)
    image = open_image(source)
    image.paste(RED, (0, 0, WIDTH, 96))
    assert number_of(source) == 3


HUGE = png(50_000, 50_000, 8, 2, b"")
LARGE = png(10_000, 10_000, 8, 2, b"")
GIF_BOMB = (
    b"GIF89a" + struct.pack("<HHBBB", 65535, 65535, 0, 0, 0) + b"," + struct.pack("<4HBB", 0, 0, 9, 9, 0, 8) + b"\0;"
)


@pytest.mark.parametrize("data", [HUGE, LARGE, GIF_BOMB])
def test_bombs_are_refused_by_their_header(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "bomb"
    path.write_bytes(data)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(MediaTooLarge, match="pixels"):
            open_image(path)
        with pytest.raises(MediaTooLarge, match="pixels"):
            check_image(path)


def test_the_pixel_limit_can_be_raised_without_a_warning(tmp_path: Path) -> None:
    path = tmp_path / "large.png"
    path.write_bytes(LARGE)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert check_image(path, Limits(max_pixels=100_000_000)) == (10_000, 10_000)


def test_limits_hold_for_pixels_in_memory_and_bytes() -> None:
    with pytest.raises(MediaTooLarge, match="160 x 96"):
        open_image(numbered(0), Limits(max_pixels=160 * 96 - 1))
    with pytest.raises(MediaTooLarge, match="bytes"):
        open_image(saved(numbered(0), "PNG"), Limits(max_bytes=10))


@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF"])
@pytest.mark.parametrize("share", [0.2, 0.6, 0.9])
def test_cut_images_are_broken_and_silent(form: str, share: float, capfd: pytest.CaptureFixture[str]) -> None:
    noise = PIL.Image.fromarray(np.random.default_rng(0).integers(0, 255, (96, 160, 3), np.uint8))
    settings = {"compression": "tiff_lzw"} if form == "TIFF" else {}
    data = saved(noise, form, **settings)
    with pytest.raises(BrokenMedia):
        open_image(data[: int(len(data) * share)])
    assert capfd.readouterr() == ("", "")


def test_what_is_no_image_says_what_it_is(films: dict[str, Path]) -> None:
    with pytest.raises(UnsupportedMedia, match="pdf") as of_pdf:
        open_image(pdf(1))
    assert "Page(path, 1)" in of_pdf.value.hint
    with pytest.raises(UnsupportedMedia, match="mp4") as of_video:
        open_image(films["mp4"])
    assert of_video.value.hint == "pass it as a video"
    with pytest.raises(UnsupportedMedia):
        open_image(b"%!PS-Adobe-3.0 EPSF-3.0 would start another program in Pillow")


def test_what_cannot_be_opened_is_typed(tmp_path: Path) -> None:
    with pytest.raises(MediaNotFound):
        open_image(tmp_path / "nowhere.png")
    with pytest.raises(MediaNotFound, match="not a regular file"):
        open_image(tmp_path)
    with pytest.raises(MediaNotFound):
        open_image("nul\0byte.png")
    with pytest.raises(BrokenMedia, match="empty"):
        open_image(b"")
    with pytest.raises(InputError, match="int"):
        open_image(7)  # type: ignore[arg-type]
    with pytest.raises(BrokenMedia, match="0 pixels"):
        open_image(PIL.Image.new("RGB", (0, 5)))


@pytest.mark.parametrize(
    "address",
    [
        "http://a.org/x.png",
        "HTTPS://a.org/x",
        "ftp://a.org/x",
        "s3://bucket/x",
        "data:image/png;base64,AA",
        "file:///x",
    ],
)
def test_addresses_are_refused(address: str) -> None:
    with pytest.raises(RemoteNotAllowed):
        open_image(address)


@pytest.mark.parametrize("form", ["png", "jpeg", "webp"])
def test_threads_may_share_a_picture_that_is_not_decoded_yet(tmp_path: Path, form: str) -> None:
    file = tmp_path / f"picture.{form}"
    noise = np.random.default_rng(0).integers(0, 256, (300, 300, 3), dtype=np.uint8)
    PIL.Image.fromarray(noise).save(file)
    expected = open_image(file).tobytes()
    with ThreadPoolExecutor(8) as threads:
        for _ in range(10):
            with PIL.Image.open(file) as lazy:
                seen = list(threads.map(lambda _, shared=lazy: open_image(shared).tobytes(), range(8)))  # type: ignore[misc]
            assert set(seen) == {expected}
