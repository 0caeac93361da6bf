"""What a caller hands in: an `Item` of text, images and videos in any mix."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeAlias

import PIL.Image

from ume_retrieval.errors import InputError

Side: TypeAlias = Literal["query", "corpus"]
"""Which end of retrieval an item stands on; prompts differ by side (arXiv 2602.13823, supplement)."""

Modality: TypeAlias = Literal["text", "image", "video"]
"""The modality that decides prompt and evidence cue: video before image before text."""


@dataclass(frozen=True, slots=True)
class Page:
    """One page of a PDF, used as an image.

    Attributes:
        path: The PDF file; a string will do.
        page: Page number, 1-based.
    """

    path: Path
    page: int = 1

    def __post_init__(self) -> None:
        object.__setattr__(self, "path", Path(self.path))


@dataclass(frozen=True, slots=True)
class Frames:
    """Decoded video: sampled frames with their times.

    Attributes:
        images: RGB frames in time order, at least one.
        timestamps: Seconds from the start of the file, one a frame, ascending.
        duration_s: Length of the sampled stretch in seconds, > 0.
    """

    images: tuple[PIL.Image.Image, ...]
    timestamps: tuple[float, ...]
    duration_s: float

    def __post_init__(self) -> None:
        if not self.images or len(self.images) != len(self.timestamps):
            raise InputError("a video needs at least one frame and one timestamp a frame")


@dataclass(frozen=True, slots=True)
class Clip:
    """A stretch of a video file.

    Attributes:
        path: The video file; a string will do.
        start_s: First second that counts; 0.0 is the file's start.
        end_s: First second that no longer counts; None is the file's end.
    """

    path: Path
    start_s: float = 0.0
    end_s: float | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "path", Path(self.path))


ImageInput: TypeAlias = "str | Path | bytes | PIL.Image.Image | Page"
"""A file, encoded bytes, decoded pixels or a PDF page. A `str` is a path (or a URL, refused by default)."""

VideoInput: TypeAlias = "str | Path | Clip | Frames"
"""A file, a stretch of a file, or frames decoded elsewhere."""


@dataclass(frozen=True, slots=True)
class Item:
    """One thing to search with or to be found: text, images, videos and an instruction, in any mix.

    Attributes:
        text: The words, or None.
        images: Images in the order in which the model sees them.
        videos: Videos in the order in which the model sees them.
        instruction: What the caller wants of the item ("Find a page that answers the question"), or None.

    Raises:
        InputError: When neither text nor media is given.

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
    """

    text: str | None
    images: tuple[PIL.Image.Image, ...]
    videos: tuple[Frames, ...]
    instruction: str | None
    content_id: str

    @property
    def modality(self) -> Modality:
        """The modality that decides prompt and evidence cue."""
        if self.videos:
            return "video"
        return "image" if self.images else "text"
