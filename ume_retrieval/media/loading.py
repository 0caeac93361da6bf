"""`load`: an item's media become pixels."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from ume_retrieval.checkpoint import VisualBudget
from ume_retrieval.inputs import Item, LoadedItem, VideoInput
from ume_retrieval.media.files import is_remote
from ume_retrieval.media.identity import content_id
from ume_retrieval.media.isolation.decoder import decoder
from ume_retrieval.media.limits import DEFAULT_LIMITS, Limits
from ume_retrieval.media.remote.fetch import fetch

PAGE_OVERSAMPLING = 4
"""PDF pages are rendered with this many times the pixels that the model sees, so that crops of them stay legible."""


def load(
    item: Item, budget: VisualBudget, limits: Limits = DEFAULT_LIMITS, *, allow_remote: Sequence[str] = ()
) -> LoadedItem:
    """Decode an item's images, sample its videos and name it by its content.

    Images keep their full size (crops need it; engines shrink to the budget). Videos are sampled with the budget's
    `video_fps`, `video_frames` and `video_min_frames`; `Frames` come through as they are. PDF pages are rendered with
    `PAGE_OVERSAMPLING` times `image_max_pixels`.

    Args:
        item: What to load.
        budget: How videos are sampled and how large pages are rendered.
        limits: Ceilings on what a file may cost.
        allow_remote: Hosts that http and https addresses may be fetched from, such as "images.example.org" or
            "*.example.org" ("*" for every public host), and private networks such as "10.1.0.0/16"; see `remote.fetch`.

    Raises:
        RemoteNotAllowed: When an address is given that may not be fetched.
        MediaError: When anything cannot be read, decoded or exceeds a limit; see `open_image` and `sample_video`.
        InputError: When the item holds something that is no medium, or a clip that is no stretch of time.

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
    name = content_id(item, budget, limits)
    page_pixels = PAGE_OVERSAMPLING * budget.image_max_pixels
    place = decoder(limits)
    images = tuple(place.open_image(image, limits, page_pixels=page_pixels) for image in item.images)
    fps, most, least = budget.video_fps, budget.video_frames, budget.video_min_frames
    videos = tuple(place.sample_video(video, fps, most, limits, min_frames=least) for video in item.videos)
    return LoadedItem(item.text, images, videos, item.instruction, name)


def _video_file(video: VideoInput, path: Path, limits: Limits, hosts: Sequence[str]) -> VideoInput:
    if not isinstance(video, str) or not is_remote(video):
        return video
    path.write_bytes(fetch(video, limits, hosts=hosts))
    return path
