"""Decode images to 8-bit RGB, upright, on white."""

from __future__ import annotations

import io
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, Final

import numpy as np
import numpy.typing as npt
import PIL.Image
from PIL.Image import Transpose

from ume_retrieval.errors import BrokenMedia, InputError, MediaError, MediaNotFound, MediaTooLarge, UnsupportedMedia
from ume_retrieval.inputs import ImageInput, Page
from ume_retrieval.media.counting import tiff_pages
from ume_retrieval.media.files import local_path, open_file
from ume_retrieval.media.formats import HEAD_BYTES, IMAGE_FORMATS, sniff
from ume_retrieval.media.limits import DEFAULT_LIMITS, Limits
from ume_retrieval.media.pages import PAGE_PIXELS, count_tiff_pages, render_page
from ume_retrieval.media.plugins import readers_of, without_warnings
from ume_retrieval.util.files import display_name
from ume_retrieval.util.threads import fork_safe_lock

_ORIENTATION = 0x0112
_UPRIGHT = {
    2: Transpose.FLIP_LEFT_RIGHT,
    3: Transpose.ROTATE_180,
    4: Transpose.FLIP_TOP_BOTTOM,
    5: Transpose.TRANSPOSE,
    6: Transpose.ROTATE_270,
    7: Transpose.TRANSVERSE,
    8: Transpose.ROTATE_90,
}
_TIFF_BITS, _TIFF_PHOTOMETRIC, _WHITE_IS_ZERO = 258, 262, 0
_BROKEN_HINT = "copy, download or export the image again"
_IN_USE = tuple(fork_safe_lock() for _ in range(64))
"""Pillow decodes a lazily opened image in place on first access: only one thread at a time may access it."""


class PixelRoom:
    """The pixels that are being decoded in this process, over all threads and calls."""

    def __init__(self) -> None:
        self.renew()
        if hasattr(os, "register_at_fork"):  # a child has none of the threads that hold room
            os.register_at_fork(after_in_child=self.renew)

    def renew(self) -> None:
        """Forget who holds room."""
        self._held = 0
        self._turn = threading.Lock()
        self._freed = threading.Condition()

    @contextmanager
    def hold(self, pixels: int, name: str, limits: Limits) -> Iterator[None]:
        """Wait until there is room within `limits.pixels_at_once`, in the order of asking, and hold it for the block.

        Args:
            pixels: Width x height of what is decoded.
            name: Name of it in the error.
            limits: The limit.

        Raises:
            MediaTooLarge: When it needs more room than there is.
        """
        if pixels > limits.pixels_at_once:
            raise MediaTooLarge(
                f"{name} has {pixels} pixels, more than the {limits.pixels_at_once} that are decoded at once",
                hint="make it smaller or raise Limits.pixels_at_once",
            )
        # Whoever waits keeps the turn, so that small images cannot pass a large one for ever.
        with self._turn, self._freed:
            self._freed.wait_for(lambda: self._held + pixels <= limits.pixels_at_once)
            self._held += pixels
        try:
            yield
        finally:
            with self._freed:
                self._held -= pixels
                self._freed.notify_all()


PIXEL_ROOM: Final = PixelRoom()


def open_image(
    source: ImageInput, limits: Limits = DEFAULT_LIMITS, *, page_pixels: int = PAGE_PIXELS
) -> PIL.Image.Image:
    """Decode an image from any supported input.

    Applies the EXIF orientation, lays transparency on white, scales 16-bit and floating-point values to 8 bits, and
    takes the first frame of an animation. Checks the size in the header before it decodes.

    Args:
        source: A file, encoded bytes, decoded pixels, or a page of a PDF or TIFF. The image formats of
            `formats.FORMATS` are recognised by their bytes.
        limits: Limits on pixels and bytes.
        page_pixels: Most pixels of a rendered PDF page.

    Returns:
        A new RGB image without metadata.

    Raises:
        MediaNotFound: When the file cannot be opened.
        UnsupportedMedia: When the bytes are in another format.
        BrokenMedia: When they do not decode.
        MediaTooLarge: When a limit would be exceeded.
        RemoteNotAllowed: For an address; `load` fetches allowed ones.

    Example:
        >>> image = open_image(PIL.Image.new("RGBA", (4, 2), (255, 0, 0, 0)))
        >>> image.mode, image.size, image.getpixel((0, 0))
        ('RGB', (4, 2), (255, 255, 255))
    """
    if isinstance(source, PIL.Image.Image):
        _check_size(source, "the image", limits)
        with _IN_USE[id(source) // 64 % len(_IN_USE)]:
            return _pixels(source, "the image", limits)
    if isinstance(source, Page):
        if (pages := count_tiff_pages(source.path, limits)) is not None:
            return _tiff_page(source, pages, limits)
        most = min(page_pixels, limits.max_pixels, limits.pixels_at_once)
        with PIXEL_ROOM.hold(most, "the page", limits):
            return render_page(source, page_pixels, limits)
    if isinstance(source, bytes):
        return _decode(io.BytesIO(check_bytes(source, limits)), "the image", limits)
    if not isinstance(source, (str, Path)):
        raise InputError(
            f"an image cannot be a {type(source).__name__}", hint="pass a path, bytes, a PIL image or a Page"
        )
    path = local_path(source)
    with open_file(path, limits) as handle:
        return _decode(handle, display_name(path), limits)


def check_image(path: Path, limits: Limits = DEFAULT_LIMITS) -> tuple[int, int]:
    """Read the header of an image file, without decoding.

    Returns:
        Width and height as stored, in pixels.

    Raises:
        MediaError: As `open_image`; damage after the header shows only when the image is opened.
    """
    with open_file(path, limits) as handle:
        return image_header(handle, display_name(path), limits).size


def check_bytes(data: bytes, limits: Limits) -> bytes:
    """Return encoded bytes unchanged after checking that there are 1 to `limits.max_bytes`."""
    if not data:
        raise BrokenMedia("the image is empty")
    if len(data) > limits.max_bytes:
        raise MediaTooLarge(
            f"the image has {len(data)} bytes, more than {limits.max_bytes}", hint="raise Limits.max_bytes"
        )
    return data


def to_rgb(image: PIL.Image.Image) -> PIL.Image.Image:
    """Convert decoded pixels to the form that models see: 8-bit RGB, upright, on white, without metadata.

    Integer images of more than 8 bits are scaled from their full range (65535, or 4095 for 12-bit TIFF). 32-bit
    integers beyond 16 bits, and floats outside of 0..1 and 0..255, are scaled from their minimum and maximum.

    Raises:
        ValueError: When Pillow cannot convert the image's mode.
    """
    orientation = _orientation(image)
    if image.mode.startswith(("I", "F")):
        image = PIL.Image.fromarray(_eight_bit(image))
    elif image.has_transparency_data:
        # Pillow converts premultiplied grey to RGBA only by way of LA.
        transparent = (image.convert("LA") if image.mode == "La" else image).convert("RGBA")
        image = PIL.Image.alpha_composite(PIL.Image.new("RGBA", image.size, "white"), transparent)
    image = image.convert("RGB")
    if orientation in _UPRIGHT:
        image = image.transpose(_UPRIGHT[orientation])
    # A caller that applies EXIF again would rotate it twice.
    image.info = {}
    return image


def _tiff_page(source: Page, pages: int, limits: Limits) -> PIL.Image.Image:
    """Decode a page of a TIFF, in full size as other images."""
    name = display_name(source.path)
    if not 1 <= source.page <= pages:
        raise MediaNotFound(f"page {source.page} of {name} does not exist", hint=f"it has {pages}, counted from 1")
    with open_file(source.path, limits) as handle:
        directories = tiff_pages(handle, source.page)
        handle.seek(0)
        image = image_header(handle, name, limits)
        try:
            with without_warnings():
                image.seek(directories[-1] if directories else 0)
        except Exception as error:  # as above: parsers raise almost any type
            raise broken_image(name, error) from error
        name = f"page {source.page} of {name}"
        _check_size(image, name, limits)
        return _pixels(image, name, limits)


def _decode(handle: BinaryIO, name: str, limits: Limits) -> PIL.Image.Image:
    return _pixels(image_header(handle, name, limits), name, limits)


def image_header(handle: BinaryIO, name: str, limits: Limits) -> PIL.Image.Image:
    """Open an image with the reader of its format, without decoding, and check its size; raises as `open_image`."""
    form = sniff(handle.read(HEAD_BYTES))
    if form is None or form not in IMAGE_FORMATS:
        raise UnsupportedMedia(
            f"{name} is not a supported image" + (f", its bytes are {form}" if form else ""),
            hint={"pdf": "pass a page of it: Page(path, 1)", None: "convert it to JPEG or PNG"}.get(
                form, "pass it as a video"
            ),
        )
    readers = readers_of(form, name)
    handle.seek(0)
    try:
        with without_warnings():
            image = PIL.Image.open(handle, formats=readers)
            _settle_orientation(image, handle, form)
    except PIL.UnidentifiedImageError as error:
        raise BrokenMedia(f"{name} has a damaged {form} header", hint=_BROKEN_HINT) from error
    except PIL.Image.DecompressionBombError as error:
        raise MediaTooLarge(
            f"{name} has more pixels than Pillow opens", hint="raise PIL.Image.MAX_IMAGE_PIXELS and Limits.max_pixels"
        ) from error
    except Exception as error:  # Pillow's parsers raise almost any type on damaged bytes
        raise broken_image(name, error) from error
    _check_size(image, name, limits)
    return image


_TRANSFORMS = (b"irot", b"imir")
_PROPERTIES_BYTES = 1 << 20


def _settle_orientation(image: PIL.Image.Image, handle: BinaryIO, form: str) -> None:
    """Leave the EXIF orientation only where the reader has not turned the pixels by properties of the format itself.

    Readers of HEIF remove it, even from files that say it in EXIF alone, as some phones write them. JPEG XL turns
    pixels by its own header, and its EXIF is a comment (ISO/IEC 18181-2).
    """
    if form == "jpegxl":
        image.getexif().pop(_ORIENTATION, None)
    elif form == "heif" and (given := image.info.get("original_orientation")):
        position = handle.tell()
        handle.seek(0)
        properties = handle.read(_PROPERTIES_BYTES).partition(b"mdat")[0]
        handle.seek(position)
        if not any(name in properties for name in _TRANSFORMS):
            image.getexif()[_ORIENTATION] = given


def _check_size(image: PIL.Image.Image, name: str, limits: Limits) -> None:
    width, height = image.size
    if width < 1 or height < 1:
        raise BrokenMedia(f"{name} is 0 pixels wide or high")
    if width * height > limits.max_pixels:
        raise MediaTooLarge(
            f"{name} has {width} x {height} pixels, more than {limits.max_pixels}",
            hint="make the image smaller or raise Limits.max_pixels",
        )


def _pixels(image: PIL.Image.Image, name: str, limits: Limits) -> PIL.Image.Image:
    try:
        with PIXEL_ROOM.hold(image.width * image.height, name, limits):
            image.load()
            return to_rgb(image)
    except MediaTooLarge:
        raise
    except Exception as error:  # as above: decoders raise almost any type
        raise broken_image(name, error) from error


def broken_image(name: str, error: Exception) -> MediaError:
    """Return the error for an image whose reader raised."""
    if isinstance(error, MemoryError):
        return MediaTooLarge(f"{name} needs more memory than available", hint="make the image smaller")
    reason = " ".join(str(error).split())[:200] or type(error).__name__
    return BrokenMedia(f"{name} does not decode: {reason}", hint=_BROKEN_HINT)


def _orientation(image: PIL.Image.Image) -> object:
    try:
        with without_warnings():
            return image.getexif().get(_ORIENTATION)
    except Exception:  # noqa: BLE001  # damaged EXIF data must not lose the image
        return None


def _eight_bit(image: PIL.Image.Image) -> npt.NDArray[np.uint8]:
    tags = getattr(image, "tag_v2", {})
    values = np.asarray(image).astype(np.float32)
    low, high = _value_range(image.mode, values, tags.get(_TIFF_BITS))
    scaled = (values - low) * (255.0 / (high - low))
    grey: npt.NDArray[np.uint8] = np.nan_to_num(scaled, nan=0.0).clip(0, 255).round().astype(np.uint8)
    if tags.get(_TIFF_PHOTOMETRIC) == _WHITE_IS_ZERO:
        grey = 255 - grey
    if isinstance(key := image.info.get("transparency"), int):
        grey[values == key] = 255
    return grey


def _value_range(mode: str, values: npt.NDArray[np.float32], tiff_bits: object) -> tuple[float, float]:
    """Return the values of black and white."""
    if mode.startswith("I;16"):
        return 0.0, 2.0 ** tiff_bits[0] - 1 if isinstance(tiff_bits, tuple) else 65535.0
    finite = values[np.isfinite(values)]
    least, most = (float(finite.min()), float(finite.max())) if finite.size else (0.0, 0.0)
    full = 65535.0 if mode == "I" else 1.0 if most <= 1.0 else 255.0
    if least >= 0 and most <= full:
        return 0.0, full
    return least, most if most > least else least + 1.0
