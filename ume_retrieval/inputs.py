"""Input types: an `Item` combines text, images and videos."""

from __future__ import annotations

import math
import operator
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol, TypeAlias, runtime_checkable

import PIL.Image

from ume_retrieval.errors import InputError

Side: TypeAlias = Literal["query", "corpus"]
"""Whether an item is a query or part of the corpus; prompts differ by side (arXiv 2602.13823, supplement)."""

Modality: TypeAlias = Literal["text", "image", "video"]
"""The modality that selects prompt and evidence cue: video takes precedence over image, image over text."""

_MOST_PAGES = 2**63 - 1
"""The content id keeps a page number in eight bytes."""

_MOST_SECONDS = 1e300
"""Times are subtracted and counted in ticks; below this, that never overflows."""


@dataclass(frozen=True, slots=True)
class Page:
    """One page of a PDF, used as an image.

    Attributes:
        path: The PDF file; a string is converted.
        page: Page number, 1-based.

    Raises:
        InputError: If the page is not an integer.
    """

    path: Path
    page: int = 1

    def __post_init__(self) -> None:
        object.__setattr__(self, "path", Path(self.path))
        object.__setattr__(self, "page", _page_number(self.page))


@dataclass(frozen=True, slots=True)
class Frames:
    """Decoded video: sampled frames with their times.

    Attributes:
        images: RGB frames in time order, at least one, all of one size.
        timestamps: Seconds from the start of the file, one per frame, ascending.
        duration_s: Length of the sampled segment in seconds, > 0.
        from_file: Whether the library sampled them from a file; some profiles resize given frames differently.
        warnings: What the user should know about them, one line each: a file that is cut short, or another decoder
            than the one that was asked for.

    Raises:
        InputError: If `images` is empty, or the timestamps are not one number per frame. `check_frames` runs when the
            frames are loaded.
    """

    images: tuple[PIL.Image.Image, ...]
    timestamps: tuple[float, ...]
    duration_s: float
    from_file: bool = False
    warnings: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "images", tuple(self.images))
        object.__setattr__(self, "timestamps", tuple(_seconds(time, "a timestamp") for time in self.timestamps))
        object.__setattr__(self, "duration_s", _seconds(self.duration_s, "duration_s"))
        if not self.images or len(self.images) != len(self.timestamps):
            raise InputError("a video needs at least one frame and one timestamp a frame")


@dataclass(frozen=True, slots=True)
class Clip:
    """A segment of a video file.

    Attributes:
        path: The video file; a string is converted.
        start_s: Start in seconds, inclusive; 0.0 is the start of the file.
        end_s: End in seconds, exclusive; None is the end of the file.

    Raises:
        InputError: If `start_s` or `end_s` is not a number.
    """

    path: Path
    start_s: float = 0.0
    end_s: float | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "path", Path(self.path))
        object.__setattr__(self, "start_s", _second_of_clip(self.start_s, "start_s"))
        if self.end_s is not None:
            object.__setattr__(self, "end_s", _second_of_clip(self.end_s, "end_s"))


ImageInput: TypeAlias = "str | Path | bytes | PIL.Image.Image | Page"
"""A file, encoded bytes, decoded pixels or a PDF page. A `str` is a path (or a URL, refused by default)."""


@runtime_checkable
class VideoReader(Protocol):
    """An open film of decord: `decord.VideoReader`."""

    def __len__(self) -> int:
        """Number of frames."""
        ...

    def get_frame_timestamp(self, idx: Any) -> Any:
        """Start and end of frames in seconds, shape (frames, 2)."""
        ...

    def get_batch(self, indices: Any) -> Any:
        """Frames by number, an array of shape (frames, height, width, 3)."""
        ...


VideoInput: TypeAlias = "str | Path | Clip | Frames | VideoReader"
"""A file, a segment of a file, frames that you decoded, or an open `decord.VideoReader`."""


@dataclass(frozen=True, slots=True)
class Item:
    """A query or a corpus entry: text, images, videos and an instruction, in any combination.

    Attributes:
        text: The text, or None.
        images: Images in the order in which the model sees them.
        videos: Videos in the order in which the model sees them.
        instruction: The retrieval task ("Find a page that answers the question"), or None.

    Raises:
        InputError: If text and media are both missing, or text or instruction is not a `str`.

    Example:
        >>> Item(text="a red circle").modality
        'text'
        >>> Item(text="now in green", images=("circle.png",)).modality
        'image'
    """

    text: str | None = None
    images: tuple[ImageInput, ...] = ()
    videos: tuple[VideoInput, ...] = ()
    instruction: str | None = None

    def __post_init__(self) -> None:
        _check_words(self.text, self.instruction)
        for media in (self.images, self.videos):
            if isinstance(media, (str, bytes)) or not isinstance(media, Iterable):
                raise InputError("images and videos take a tuple", hint='write images=("cat.png",)')
        object.__setattr__(self, "images", tuple(self.images))
        object.__setattr__(self, "videos", tuple(self.videos))
        if not (self.text and self.text.strip()) and not self.images and not self.videos:
            raise InputError("an item needs text, an image or a video")

    @property
    def modality(self) -> Modality:
        """The modality that decides prompt and evidence cue."""
        if self.videos:
            return "video"
        return "image" if self.images else "text"


@dataclass(frozen=True, slots=True)
class LoadedItem:
    """An `Item` whose media are pixels.

    Attributes:
        text: As in the item.
        images: RGB images, upright (EXIF applied), alpha on white.
        videos: Sampled frames.
        instruction: As in the item.
        content_id: Hex digest of content and sampling; independent of file names (see `media.content_id`).

    Raises:
        InputError: If text or instruction is not a `str`, media are not decoded, or frames fail `check_frames`.
    """

    text: str | None
    images: tuple[PIL.Image.Image, ...]
    videos: tuple[Frames, ...]
    instruction: str | None
    content_id: str

    def __post_init__(self) -> None:
        _check_words(self.text, self.instruction)
        if not _are_pictures(self.images) or not all(isinstance(video, Frames) for video in self.videos):
            raise InputError("a loaded item holds pixels", hint="use an Item for files")
        for video in self.videos:
            check_frames(video)

    @property
    def modality(self) -> Modality:
        """The modality that decides prompt and evidence cue."""
        if self.videos:
            return "video"
        return "image" if self.images else "text"


def check_frames(frames: Frames) -> Frames:
    """Check that all frames are pictures of one size with finite times, and return them.

    Raises:
        InputError: If sizes differ, a time is infinite or NaN, or a frame is not a PIL image.
    """
    if not _are_pictures(frames.images):
        raise InputError("frames must be PIL images", hint="use PIL.Image.fromarray for arrays")
    if len(sizes := {image.size for image in frames.images}) > 1:
        listed = ", ".join(f"{width} x {height}" for width, height in sorted(sizes)[:3])
        raise InputError(
            f"the frames of a video differ in size: {listed}",
            hint="resize them to one size, or pass them as images",
        )
    for seconds in (frames.duration_s, *frames.timestamps):
        # Not a number is never less than anything.
        if not abs(seconds) < _MOST_SECONDS:
            raise InputError(f"a video cannot have the time {seconds}", hint="give finite seconds")
    return frames


def _are_pictures(images: Iterable[object]) -> bool:
    return all(isinstance(image, PIL.Image.Image) for image in images)


def _check_words(text: object, instruction: object) -> None:
    for name, words in (("text", text), ("instruction", instruction)):
        if words is not None and not isinstance(words, str):
            raise InputError(f"{name} cannot be a {type(words).__name__}", hint="pass a str or None")


def _page_number(page: int) -> int:
    """A whole number of any library as a plain one."""
    try:
        number = None if isinstance(page, bool) else operator.index(page)
    except TypeError:
        number = None
    if number is None:
        raise InputError(f"a page cannot be a {type(page).__name__}", hint="pass a whole number; the first page is 1")
    if abs(number) > _MOST_PAGES:
        raise InputError("no file has a page with so large a number", hint="the first page is number 1")
    return number


def _seconds(value: float, name: str) -> float:
    """A number of any library as a plain one; infinity and "not a number" stay."""
    try:
        # `float` would also read words and count True as 1.
        seconds = None if isinstance(value, (str, bytes, bool)) else float(value)
    except (TypeError, ValueError, OverflowError):
        seconds = None
    if seconds is None:
        raise InputError(f"{name} cannot be this {type(value).__name__}", hint="pass seconds as a number")
    return seconds


def _second_of_clip(value: float, name: str) -> float:
    if math.isnan(seconds := _seconds(value, name)):
        raise InputError(f"{name} of a clip is not a number", hint="pass seconds from the start of the file")
    return seconds
