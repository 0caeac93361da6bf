"""Pictures fitted to a model's visual budget, so that every engine sees the same pixels.

Engines never resize: their own resizing differs between releases and between engines.
"""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import PIL.Image

from ume_retrieval.chat import Chat, ImagePart, Part, VideoPart
from ume_retrieval.checkpoint import VisualBudget
from ume_retrieval.inputs import Frames
from ume_retrieval.profiles import OWN, Profile

GRID = 32
"""Sides are multiples of this many pixels: Qwen3-VL merges 2 x 2 patches of 16 pixels into one token."""


def fitted_size(width: int, height: int, min_pixels: int, max_pixels: int, multiple: int = GRID) -> tuple[int, int]:
    """Size nearest to the picture's own whose sides are multiples of 32 and whose area keeps the budget.

    The same rule as Qwen3-VL's `smart_resize`, but a very long picture keeps at least one multiple on its short side
    and loses length instead of being refused. Where rounding makes the bounds exclude each other, `max_pixels` wins.

    Args:
        width: Pixels, > 0.
        height: Pixels, > 0.
        min_pixels: Least area, > 0.
        max_pixels: Most area, at least 32 x 32.
        multiple: What sides are multiples of, in pixels.

    Returns:
        Width and height in pixels.

    Example:
        >>> fitted_size(640, 360, 128 * 1024, 300 * 1024)
        (640, 352)
        >>> fitted_size(192, 192, 1024, 12 * 1024)
        (96, 96)
    """
    fit_width, fit_height = (max(multiple, round(side / multiple) * multiple) for side in (width, height))
    if fit_width * fit_height < min_pixels:
        grow = math.sqrt(min_pixels / (width * height))
        fit_width, fit_height = (math.ceil(side * grow / multiple) * multiple for side in (width, height))
    if fit_width * fit_height > max_pixels:
        shrink = math.sqrt(width * height / max_pixels)
        fit_width, fit_height = (
            max(multiple, math.floor(side / shrink / multiple) * multiple) for side in (width, height)
        )
    longest = max(multiple, max_pixels // multiple // multiple * multiple)
    return min(fit_width, longest), min(fit_height, longest)


def fit_image(image: PIL.Image.Image, min_pixels: int, max_pixels: int, multiple: int = GRID) -> PIL.Image.Image:
    """Resize a picture into the budget (bicubic); a picture that fits already is returned unchanged."""
    size = fitted_size(image.width, image.height, min_pixels, max_pixels, multiple)
    return image if size == image.size else image.resize(size, PIL.Image.Resampling.BICUBIC)


def fit_frames(frames: Frames, budget: VisualBudget, profile: Profile = OWN) -> Frames:
    """Resize every frame of a video into the budget; all frames of a video keep one size.

    Args:
        frames: The video.
        budget: Bounds of a frame, and of all frames together.
        profile: What resizes frames, and what those that the library did not take from a file go through before.
    """
    share = budget.frame_max_pixels
    if budget.video_max_pixels is not None:
        share = max(GRID * GRID, min(share, budget.video_max_pixels // len(frames.images)))
    least = min(budget.frame_min_pixels, share)
    images = frames.images
    if (first := profile.first_resizing) is not None and not frames.from_file:
        bounds = (first.min_pixels or budget.frame_min_pixels, first.max_pixels or budget.frame_max_pixels)
        images = tuple(fit_image(image, *bounds, first.multiple) for image in images)
    size = fitted_size(*images[0].size, least, share)
    if size != images[0].size and profile.frame_resampling == "torch":
        return replace(frames, images=tuple(_resized_by_torch(image, size) for image in images))
    return replace(frames, images=tuple(fit_image(image, least, share) for image in images))


def _resized_by_torch(image: PIL.Image.Image, size: tuple[int, int]) -> PIL.Image.Image:
    """Resize in float32 and round once, as torchvision does with the frames of a video."""
    import torch

    pixels = torch.from_numpy(np.array(image, dtype=np.float32)).permute(2, 0, 1)[None]
    resized = torch.nn.functional.interpolate(pixels, size=size[::-1], mode="bicubic", antialias=True)
    rounded = resized[0].clamp(0, 255).round().to(torch.uint8)
    return PIL.Image.fromarray(rounded.permute(1, 2, 0).numpy())


def fit_chat(chat: Chat, budget: VisualBudget) -> Chat:
    """Fit every image and video of a chat into the budget for whole pictures."""

    def fit(part: Part) -> Part:
        if isinstance(part, ImagePart):
            return ImagePart(fit_image(part.image, budget.image_min_pixels, budget.image_max_pixels))
        return replace(part, frames=fit_frames(part.frames, budget)) if isinstance(part, VideoPart) else part

    return tuple(replace(message, parts=tuple(fit(part) for part in message.parts)) for message in chat)
