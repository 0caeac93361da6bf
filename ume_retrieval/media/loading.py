"""Load an item: decode its images, sample its videos, and compute its content id from what a model sees."""

from __future__ import annotations

import hashlib
import struct
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

import PIL.Image

from ume_retrieval.checkpoint import VisualBudget
from ume_retrieval.errors import InputError
from ume_retrieval.inputs import Clip, Frames, ImageInput, Item, LoadedItem, Page, VideoInput, VideoReader
from ume_retrieval.media.files import file_digest, is_remote, local_path
from ume_retrieval.media.images import check_bytes, open_image
from ume_retrieval.media.isolation.decoder import LOCAL, decoder
from ume_retrieval.media.limits import DEFAULT_LIMITS, Limits
from ume_retrieval.media.remote.fetch import fetch
from ume_retrieval.media.video import sample_video

PAGE_OVERSAMPLING = 4
"""PDF pages are rendered with this many times the pixels that the model sees, so that crops stay readable."""


def load(
    item: Item, budget: VisualBudget, limits: Limits = DEFAULT_LIMITS, *, allow_remote: Sequence[str] = ()
) -> LoadedItem:
    """Decode an item's images, sample its videos and compute its content id.

    Images keep their full size (crops need it; engines shrink to the budget). Videos are sampled with the budget's
    `video_fps`, `video_frames` and `video_min_frames`; `Frames` come through as they are. PDF pages are rendered with
    `PAGE_OVERSAMPLING` times `image_max_pixels`.

    Args:
        item: What to load.
        budget: How videos are sampled and how large pages are rendered.
        limits: Limits on the cost of a file.
        allow_remote: Hosts that http and https addresses may be fetched from, such as "images.example.org" or
            "*.example.org" ("*" for every public host), and private networks such as "10.1.0.0/16"; see `remote.fetch`.

    Raises:
        RemoteNotAllowed: For an address that may not be fetched.
        MediaError: When anything cannot be read, decoded or exceeds a limit; see `open_image` and `sample_video`.
        InputError: When a medium has an unsupported type, or a clip an empty time span.

    Example:
        >>> loaded = load(Item(text="a red circle"), VisualBudget())
        >>> loaded.text, loaded.images, len(loaded.content_id)
        ('a red circle', (), 64)
    """
    if not allow_remote or not any(map(is_remote, (*item.images, *item.videos))):
        return _load(item, budget, limits)
    with tempfile.TemporaryDirectory(prefix="ume-") as folder:
        images = tuple(
            fetch(image, limits, hosts=allow_remote) if isinstance(image, str) and is_remote(image) else image
            for image in item.images
        )
        videos = tuple(
            _video_file(video, Path(folder) / str(i), limits, allow_remote) for i, video in enumerate(item.videos)
        )
        return _load(replace(item, images=images, videos=videos), budget, limits)


def _load(item: Item, budget: VisualBudget, limits: Limits) -> LoadedItem:
    item = replace(item, videos=tuple(_opened(video, budget, limits) for video in item.videos))
    name = content_id(item, budget, limits)
    page_pixels = PAGE_OVERSAMPLING * budget.image_max_pixels
    place = LOCAL if limits.isolation is None else decoder(limits)
    images = tuple(place.open_image(image, limits, page_pixels=page_pixels) for image in item.images)
    fps, most, least = budget.video_fps, budget.video_frames, budget.video_min_frames
    videos = tuple(place.sample_video(video, fps, most, limits, min_frames=least) for video in item.videos)
    return LoadedItem(item.text, images, videos, item.instruction, name)


def _opened(video: VideoInput, budget: VisualBudget, limits: Limits) -> VideoInput:
    """Sample the film of an open reader, which has no file to be hashed or handed to a worker."""
    if not isinstance(video, VideoReader):
        return video
    return sample_video(video, budget.video_fps, budget.video_frames, limits, min_frames=budget.video_min_frames)


def _video_file(video: VideoInput, path: Path, limits: Limits, hosts: Sequence[str]) -> VideoInput:
    if not isinstance(video, str) or not is_remote(video):
        return video
    path.write_bytes(fetch(video, limits, hosts=hosts))
    return path


_SCHEME = b"ume-content-1"
"""Version of the rules below; ids of different versions never match."""


def content_id(item: Item, budget: VisualBudget, limits: Limits = DEFAULT_LIMITS) -> str:
    """Hash an item: text, instruction, media and the sampling of videos.

    Files are hashed by their bytes and never by their path; encoded images have the id of a file with the same bytes.
    Decoded images and frames are hashed by their upright RGB pixels. Files are streamed, not decoded.

    Args:
        item: The item. Order of images and of videos counts.
        budget: Its `video_fps`, `video_frames` and `video_min_frames` count when videos are sampled.
        limits: Limits on bytes and pixels.

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
    video = _opened(video, budget, limits)
    if isinstance(video, Frames):
        shown = (_pixels(image, limits) for image in video.images)
        times = struct.pack(f">{len(video.timestamps) + 1}d", video.duration_s, *video.timestamps)
        return frame_fields((b"frames", times, *shown))
    if not isinstance(video, (str, Path, Clip)):
        raise InputError(f"a video cannot be a {type(video).__name__}", hint="pass a path, a Clip or Frames")
    clip = video if isinstance(video, Clip) else Clip(local_path(video))
    end = b"" if clip.end_s is None else struct.pack(">d", clip.end_s)
    # Adding 0.0 turns -0.0 into 0.0.
    sampling = struct.pack(">ddq", clip.start_s + 0.0, budget.video_fps, budget.video_frames)
    least = () if budget.video_min_frames is None else (struct.pack(">q", budget.video_min_frames),)
    return frame_fields((b"clip", file_digest(clip.path, limits), sampling, end, *least))


def _pixels(image: PIL.Image.Image, limits: Limits) -> bytes:
    seen = open_image(image, limits)
    return hashlib.sha256(struct.pack(">qq", *seen.size) + seen.tobytes()).digest()
