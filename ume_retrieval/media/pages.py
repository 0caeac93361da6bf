"""Render PDF pages with PDFium, and count the pages of PDFs and TIFFs."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import PIL.Image
import pypdfium2
import pypdfium2.raw

from ume_retrieval.errors import BrokenMedia, InputError, MediaNotFound, MediaTooLarge, UnsupportedMedia
from ume_retrieval.inputs import Page
from ume_retrieval.media.counting import tiff_pages
from ume_retrieval.media.files import open_file
from ume_retrieval.media.formats import HEAD_BYTES, sniff
from ume_retrieval.media.limits import DEFAULT_LIMITS, Limits
from ume_retrieval.util.files import display_name
from ume_retrieval.util.threads import fork_safe_lock

PAGE_PIXELS = 4 * 768 * 32 * 32
"""Default size of a rendered page: four times what the model sees (about 190 dpi on A4), to keep crops readable."""

MAX_DPI = 300.0
"""Highest resolution, which limits the size of small pages."""

_TAIL_BYTES = 2048
_PDFIUM = fork_safe_lock()
"""PDFium is not thread-safe."""


def count_pages(path: Path, limits: Limits = DEFAULT_LIMITS) -> int:
    """Count the pages of a PDF or TIFF; thumbnails and masks in a TIFF do not count.

    Raises:
        MediaNotFound: When the file cannot be opened.
        UnsupportedMedia: When it is neither, or a PDF that needs a password.
        BrokenMedia: When it is truncated, damaged or empty.
        MediaTooLarge: When it has more than `limits.max_pages`.
    """
    if (pages := count_tiff_pages(path, limits)) is not None:
        return pages
    with _document(path, limits) as document:
        return len(document)


def count_tiff_pages(path: Path, limits: Limits = DEFAULT_LIMITS) -> int | None:
    """Count the pages of a TIFF, at least 1; None for a file of another format.

    Raises:
        MediaNotFound: When the file cannot be opened.
        MediaTooLarge: When it has more than `limits.max_pages`.
    """
    with open_file(path, limits) as handle:
        if sniff(handle.read(HEAD_BYTES)) != "tiff":
            return None
        pages = len(tiff_pages(handle))
    _check_count(pages, display_name(path), limits)
    return max(1, pages)


def _check_count(pages: int, name: str, limits: Limits) -> None:
    if pages > limits.max_pages:
        raise MediaTooLarge(
            f"{name} has {pages} pages, more than {limits.max_pages}", hint="split the file or raise Limits.max_pages"
        )


def render_page(page: Page, max_pixels: int = PAGE_PIXELS, limits: Limits = DEFAULT_LIMITS) -> PIL.Image.Image:
    """Render one page on white, as large as `max_pixels` and 300 dpi allow.

    Args:
        page: The PDF and the number of the page, 1-based.
        max_pixels: Most pixels of the image; `limits.max_pixels` applies too.
        limits: Limits on bytes, pages and pixels.

    Returns:
        An RGB image in the page's shape.

    Raises:
        MediaNotFound: When the file cannot be opened or the page does not exist.
        MediaError: Otherwise as `count_pages`.
        InputError: When `max_pixels` is less than 1.
    """
    if max_pixels < 1:
        raise InputError(f"a page cannot be rendered into {max_pixels} pixels")
    name = display_name(page.path)
    with _document(page.path, limits) as document:
        if not 1 <= page.page <= len(document):
            raise MediaNotFound(
                f"page {page.page} of {name} does not exist", hint=f"it has {len(document)}, counted from 1"
            )
        try:
            sheet = document[page.page - 1]
            width_pt, height_pt = sheet.get_size()
            scale = _scale(width_pt, height_pt, min(max_pixels, limits.max_pixels))
            picture: PIL.Image.Image = sheet.render(scale=scale, rev_byteorder=True).to_pil()
        except (pypdfium2.PdfiumError, ValueError, ArithmeticError, MemoryError) as error:
            raise BrokenMedia(
                f"page {page.page} of {name} does not render: {error}", hint="export the PDF again"
            ) from error
        return picture.convert("RGB")


def _scale(width_pt: float, height_pt: float, max_pixels: int) -> float:
    scale = min(MAX_DPI / 72, math.sqrt(max_pixels / (width_pt * height_pt)))
    # PDFium rounds both sides up.
    while math.ceil(width_pt * scale) * math.ceil(height_pt * scale) > max_pixels:
        scale *= 0.99
    return scale


@contextmanager
def _document(path: Path, limits: Limits) -> Iterator[pypdfium2.PdfDocument]:
    name = display_name(path)
    with _PDFIUM, open_file(path, limits) as handle:
        if sniff(handle.read(HEAD_BYTES)) != "pdf":
            raise UnsupportedMedia(f"{name} is not a PDF", hint="pass images as images and videos as videos")
        size = handle.seek(0, 2)
        handle.seek(max(0, size - _TAIL_BYTES))
        if b"%%EOF" not in handle.read():
            # PDFium would repair it and show fewer or emptier pages.
            raise BrokenMedia(f"{name} is cut short: the end mark is missing", hint="copy or download the file again")
        handle.seek(0)
        try:
            document = pypdfium2.PdfDocument(handle)
        except pypdfium2.PdfiumError as error:
            if error.err_code in (pypdfium2.raw.FPDF_ERR_PASSWORD, pypdfium2.raw.FPDF_ERR_SECURITY):
                raise UnsupportedMedia(
                    f"{name} needs a password", hint="save a copy without a password and use that"
                ) from error
            raise BrokenMedia(f"{name} does not open as a PDF", hint="copy, download or export it again") from error
        with document:
            if document.get_formtype() == pypdfium2.raw.FORMTYPE_ACRO_FORM:
                document.init_forms()
            if len(document) == 0:
                raise BrokenMedia(f"{name} is empty", hint="export the PDF again")
            _check_count(len(document), name, limits)
            yield document
