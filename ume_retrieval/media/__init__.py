"""Decode images, videos and PDF pages within limits, and discover files.

Example:
    >>> import PIL.Image
    >>> from ume_retrieval.checkpoint import VisualBudget
    >>> from ume_retrieval.inputs import Item
    >>> loaded = load(Item(images=(PIL.Image.new("L", (32, 32)),)), VisualBudget())
    >>> loaded.images[0].mode
    'RGB'
"""

from ume_retrieval.media.discovery import Entry, discover, entries
from ume_retrieval.media.film import VideoInfo
from ume_retrieval.media.images import check_image, open_image, to_rgb
from ume_retrieval.media.limits import DEFAULT_LIMITS, Isolation, Limits
from ume_retrieval.media.loading import content_id, load
from ume_retrieval.media.pages import count_pages, render_page
from ume_retrieval.media.segments import OVERLAP_S, SEGMENT_S, sample_times, segments
from ume_retrieval.media.video import probe_video, sample_video
from ume_retrieval.media.walking import FoundFile, walk
from ume_retrieval.util.files import display_name

__all__ = [
    "DEFAULT_LIMITS",
    "OVERLAP_S",
    "SEGMENT_S",
    "Entry",
    "FoundFile",
    "Isolation",
    "Limits",
    "VideoInfo",
    "check_image",
    "content_id",
    "count_pages",
    "discover",
    "display_name",
    "entries",
    "load",
    "open_image",
    "probe_video",
    "render_page",
    "sample_times",
    "sample_video",
    "segments",
    "to_rgb",
    "walk",
]
