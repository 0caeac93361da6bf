"""The content id: one name for what a model would see, whatever the files are called."""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Iterable
from pathlib import Path

import PIL.Image

from ume_retrieval.checkpoint import VisualBudget
from ume_retrieval.errors import InputError
from ume_retrieval.inputs import Clip, Frames, ImageInput, Item, Page, VideoInput
from ume_retrieval.media.files import file_digest, local_path
from ume_retrieval.media.images import check_bytes, open_image
from ume_retrieval.media.limits import DEFAULT_LIMITS, Limits

_SCHEME = b"ume-content-1"
"""Changes with the rules below, so that ids made under different rules never meet."""


def content_id(item: Item, budget: VisualBudget, limits: Limits = DEFAULT_LIMITS) -> str:
    """Hash what an item holds: text, instruction, media and how videos are sampled.

    Files count by their bytes and never by their path, so moving or renaming one changes nothing; encoded images have
    the id of a file that holds them. Decoded images and frames count by their upright RGB pixels. Files are streamed,
    not decoded.

    Args:
        item: What to name. Order of images and of videos counts.
        budget: Its `video_fps`, `video_frames` and `video_min_frames` count when videos are sampled.
        limits: Ceilings on bytes and pixels.

    Returns:
        64 hexadecimal digits.

    Raises:
        MediaError: When a file cannot be read or a limit is exceeded.

    Example:
        >>> red = PIL.Image.new("RGB", (8, 8), "red")
        >>> one, two = Item(images=(red,)), Item(images=(red.copy(),), text="now in green")
        >>> content_id(one, VisualBudget()) == content_id(two, VisualBudget())
        False
    """
    fields = [_SCHEME]
    for name, words in ((b"text", item.text), (b"instruction", item.instruction)):
        if words is not None:
            fields += (name, words.encode("utf-8", "surrogatepass"))
    for image in item.images:
        fields += (b"image", _image(image, limits))
    for video in item.videos:
        fields += (b"video", _video(video, budget, limits))
    return hashlib.sha256(frame_fields(fields)).hexdigest()


def frame_fields(fields: Iterable[bytes]) -> bytes:
    r"""Join fields so that different lists never give the same bytes: each is preceded by its length.

    Example:
        >>> frame_fields([b"ab", b"c"]) == frame_fields([b"a", b"bc"])
        False
    """
    return b"".join(struct.pack(">Q", len(field)) + field for field in fields)


def _image(image: ImageInput, limits: Limits) -> bytes:
    if isinstance(image, PIL.Image.Image):
        return frame_fields((b"pixels", _pixels(image, limits)))
    if isinstance(image, Page):
        return frame_fields((b"page", file_digest(image.path, limits), struct.pack(">q", image.page)))
    if isinstance(image, bytes):
        return frame_fields((b"file", hashlib.sha256(check_bytes(image, limits)).digest()))
    if isinstance(image, (str, Path)):
        return frame_fields((b"file", file_digest(local_path(image), limits)))
    raise InputError(f"an image cannot be a {type(image).__name__}", hint="pass a path, bytes, a PIL image or a Page")


def _video(video: VideoInput, budget: VisualBudget, limits: Limits) -> bytes:
    if isinstance(video, Frames):
        shown = (_pixels(image, limits) for image in video.images)
        times = struct.pack(f">{len(video.timestamps) + 1}d", video.duration_s, *video.timestamps)
        return frame_fields((b"frames", times, *shown))
    if not isinstance(video, (str, Path, Clip)):
        raise InputError(f"a video cannot be a {type(video).__name__}", hint="pass a path, a Clip or Frames")
    clip = video if isinstance(video, Clip) else Clip(local_path(video))
    end = b"" if clip.end_s is None else struct.pack(">d", clip.end_s)
    # Adding 0.0 makes one zero of the two that floats have.
    sampling = struct.pack(">ddq", clip.start_s + 0.0, budget.video_fps, budget.video_frames)
    least = () if budget.video_min_frames is None else (struct.pack(">q", budget.video_min_frames),)
    return frame_fields((b"clip", file_digest(clip.path, limits), sampling, end, *least))


def _pixels(image: PIL.Image.Image, limits: Limits) -> bytes:
    seen = open_image(image, limits)
    return hashlib.sha256(struct.pack(">qq", *seen.size) + seen.tobytes()).digest()
