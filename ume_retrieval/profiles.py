"""Profiles: how the authors of a model family format the input of their Embedder, as data.

A profile sets the order of text and media, how videos and their frames are formatted, how a T-CoT is formatted, and
which of its evidence pictures are included. `PROFILES` lists the published profiles with their sources; a checkpoint's
`ume.json` may hold another, and `ReasoningEmbedder.from_pretrained(profile=...)` accepts one.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Annotated, Final, Literal, TypeAlias

from pydantic import BaseModel, ConfigDict, Field

from ume_retrieval.errors import InputError

Family: TypeAlias = Literal["embed-rl", "qwen3-vl-embedding", "sentence-transformers"]

Kind: TypeAlias = Literal["text", "images", "videos"]

MIN_CROP: Final = 16
"""One patch of Qwen3-VL, in pixels."""


class EvidenceRule(BaseModel):
    """How a T-CoT's cues become pictures. In every profile, boxes of a flat list belong to the first image."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    rounding: Literal["outwards", "down"] = "outwards"
    """Whether corners are rounded away from the crop's centre or down to whole pixels."""
    small: Literal["widen", "omit"] = "widen"
    """Whether a crop below `min_side` is widened around its centre or left out."""
    min_side: Annotated[int, Field(ge=1)] = MIN_CROP
    """Minimum width and height of a crop in pixels."""
    max_aspect: Annotated[float, Field(ge=1)] | None = None
    """Crops with a higher aspect ratio are left out; None keeps all."""
    first_frame: Literal[0, 1] = 1
    """Number of a video's first frame in the `key_frames` cue."""


EVERY_CUE: Final = EvidenceRule()
"""Keep the picture of every cue on existing media: the library's own rule."""


class Resizing(BaseModel):
    """A resizing of given frames that comes before the budget's own."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    multiple: Annotated[int, Field(ge=1)]
    """Sides are rounded to multiples of this many pixels."""
    min_pixels: Annotated[int, Field(gt=0)] | None = None
    """Minimum area; None takes the budget's `frame_min_pixels`."""
    max_pixels: Annotated[int, Field(gt=0)] | None = None
    """Maximum area; None takes the budget's `frame_max_pixels`."""


class Profile(BaseModel):
    """How an item is formatted for an Embedder. The defaults are the library's own format, which `ume-tiny` uses."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    """Name in `ume.json` and in `from_pretrained(profile=...)`."""
    order: tuple[Kind, Kind, Kind] = ("images", "videos", "text")
    """Order of an item with at most one picture."""
    order_of_several: tuple[Kind, Kind, Kind] = ("images", "videos", "text")
    """Order of an item with several images or a video."""
    several_as_frames: bool = False
    """Whether several images, and evidence from them or from a video, get a frame's visual budget."""
    videos: Literal["part", "images"] = "part"
    """Whether a video is one part with timestamps, or its frames are images without them, after the item's own."""
    doubled_vision_tokens: bool = True
    """Whether a video part keeps the template's vision tokens around those of its frames. transformers 4.57, with which
    both families were published, removed them; 5.x keeps them."""
    first_resizing: Resizing | None = None
    """Resizing of frames that the caller decoded, before the budget's own resizing."""
    frame_resampling: Literal["pillow", "torch"] = "pillow"
    """Library that resizes frames of a video part to the budget; bicubic in both. torch rounds once, Pillow twice."""
    repeat_odd_frame: bool = False
    """Whether the last of an odd number of frames is repeated one time step later; otherwise the model's processor
    repeats it with the same timestamp."""
    thin_frames: bool = False
    """Whether given frames are subsampled evenly to the budget's `video_frames`."""
    strip_text: bool = False
    """Whether leading and trailing white space of the item's text is stripped."""
    instruction_joiner: str = "\n"
    """Separator of instruction and text, where the family puts the instruction before the text."""
    control_tokens: Literal["any", "qwen"] = "any"
    """Which control tokens are broken up in untrusted text: those of all known models, or only Qwen's and the pooled
    token, which keeps markup such as `<s>`."""
    trace: Literal["rendered", "reply"] = "rendered"
    """Whether a T-CoT is written in its canonical form or as the Reasoner wrote it."""
    after_thinking: str = ""
    """Text after `</thinking>` when the reply is used as written."""
    evidence: EvidenceRule = EVERY_CUE
    """How the T-CoT's cues become pictures."""


OWN: Final = Profile(name="ume")
"""The library's own format; the default of a checkpoint whose `ume.json` omits the profile."""

_MMEB: Final = Profile(
    name="mmeb",
    order_of_several=("text", "images", "videos"),
    several_as_frames=True,
    videos="images",
    doubled_vision_tokens=False,
    strip_text=True,
    instruction_joiner=" ",
    control_tokens="qwen",
    trace="reply",
    after_thinking="\n",
    # The prompts of the release number frames from 1, its code takes them from 0: the prompts are followed here.
    evidence=EvidenceRule(rounding="down", small="omit", min_side=10, max_aspect=50.0),
)

_TRAIN: Final = _MMEB.model_copy(
    update={
        "name": "train",
        "videos": "part",
        "first_resizing": Resizing(multiple=64),
        "frame_resampling": "torch",
        "repeat_odd_frame": True,
    }
)

_QWEN3_VL_EMBEDDING: Final = Profile(
    name="published",
    order=("videos", "images", "text"),
    order_of_several=("videos", "images", "text"),
    doubled_vision_tokens=False,
    # qwen-vl-utils 0.0.14, fetch_video: frames of a list are images whose patch is counted as 32 pixels, not 16.
    first_resizing=Resizing(multiple=64, min_pixels=4 * 64 * 64, max_pixels=16_384 * 64 * 64),
    frame_resampling="torch",
    repeat_odd_frame=True,
    thin_frames=True,
    control_tokens="qwen",
)

PROFILES: Final[Mapping[Family, tuple[Profile, ...]]] = MappingProxyType(
    {
        # ZoengHN/Embed-RL 87b52f7. "mmeb": eval/mmeb_eval/vlm2vec/src/model/processor.py, the path of the published
        # scores. "train": eval/uvrb_eval/uvrb_dataset.py and train/contrastive_learning/dataset.
        "embed-rl": (_MMEB, _TRAIN, OWN),
        # QwenLM/Qwen3-VL-Embedding 8ce3aab, src/models/qwen3_vl_embedding.py. It publishes no way to write a T-CoT:
        # the library's own is used.
        "qwen3-vl-embedding": (_QWEN3_VL_EMBEDDING, OWN),
        "sentence-transformers": (OWN,),
    }
)
"""Known profiles of each family, the default one first."""


def find_profile(family: Family, name: str) -> Profile:
    """Look up a profile of a family by name.

    Raises:
        InputError: If the family lacks a profile of that name.

    Example:
        >>> find_profile("embed-rl", "train").videos
        'part'
    """
    known = {profile.name: profile for profile in PROFILES[family]}
    if name not in known:
        raise InputError(f"unknown profile {name!r} of {family}", hint=f"use one of {', '.join(known)}")
    return known[name]
