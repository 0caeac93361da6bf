"""Load Pillow's readers of image formats, and keep Pillow and the C libraries beneath it quiet."""

from __future__ import annotations

import ctypes
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache

import PIL.Image

from ume_retrieval.errors import UnsupportedMedia
from ume_retrieval.media.formats import FORMAT_NAMED
from ume_retrieval.util.threads import fork_safe_lock

_WARNINGS = fork_safe_lock()


def readers_of(form: str, name: str) -> tuple[str, ...]:
    """Return Pillow's names of the readers of a format, loaded and quiet.

    Args:
        form: Name of an image format.
        name: Name of the file, for the error.

    Raises:
        UnsupportedMedia: When the package that reads this format is not installed.
    """
    _quiet()
    readers = FORMAT_NAMED[form].readers
    if form == "heif":
        _register_heif()
    elif form == "jpegxl" and not _register_jpegxl():
        raise UnsupportedMedia(
            f"{name} is a JPEG XL image, whose reader is not installed", hint="pip install 'ume-retrieval[jxl]'"
        )
    return readers


@contextmanager
def without_warnings() -> Iterator[None]:
    """Suppress warnings on odd metadata and on sizes above Pillow's soft limit; our own limits apply."""
    with _WARNINGS, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


@cache
def _register_heif() -> None:
    import pillow_heif

    # Thumbnails and depth images would only cost time.
    pillow_heif.register_heif_opener(thumbnails=False, depth_images=False, aux_images=False)


@cache
def _register_jpegxl() -> bool:
    try:
        import pillow_jxl  # noqa: F401  # registers itself
    except ImportError:
        return False
    return True


@cache
def _quiet() -> None:
    """Silence the C libraries and loggers that would write to standard error; errors still reach the caller."""
    # Without a handler of its own, a logger's warnings go to standard error. Those of an application stay in use.
    logging.getLogger("PIL").addHandler(logging.NullHandler())
    # Pillow reads some tags only while it decodes, which threads do at the same time: no block can cover that.
    warnings.filterwarnings("ignore", module=r"PIL\.")
    # libtiff prints by default. Where it is linked statically, its functions are not found, and it prints.
    with suppress(OSError, AttributeError):
        libtiff = ctypes.CDLL(PIL.Image.core.__file__)  # type: ignore[attr-defined]  # Pillow's C part
        libtiff.TIFFSetWarningHandler(None)
        libtiff.TIFFSetErrorHandler(None)
