"""Profiles: how the authors of a family write an item for their Embedder, as values that one writer reads.

A profile says in which order text and media stand, how videos and their frames are shown, how a T-CoT is written and
which of its pictures are shown. `PROFILES` lists the published ones with their sources; another one can be put into a
checkpoint's `ume.json`, or passed to `ReasoningEmbedder.from_pretrained(profile=...)`.
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
    """Which pictures a T-CoT's cues give. Boxes of a flat list belong to the first image, in every profile."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    rounding: Literal["outwards", "down"] = "outwards"
    """Whether corners are rounded away from the crop's centre or down to whole pixels."""
    small: Literal["widen", "omit"] = "widen"
    """Whether a crop below `min_side` is widened around its centre or left out."""
    min_side: Annotated[int, Field(ge=1)] = MIN_CROP
    """Least width and height of a crop in pixels."""
    max_aspect: Annotated[float, Field(ge=1)] | None = None
    """Crops with a longer shape are left out; None keeps all."""
    first_frame: Literal[0, 1] = 1
    """Number of a video's first frame in the `key_frames` cue."""


EVERY_CUE: Final = EvidenceRule()
"""Each cue on media that the item has gives a picture: the library's own rule."""


class Resizing(BaseModel):
    """A resizing that given frames go through before the one of the budget."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    multiple: Annotated[int, Field(ge=1)]
    """Sides become multiples of this many pixels."""
    min_pixels: Annotated[int, Field(gt=0)] | None = None
    """Least area; None takes the budget's `frame_min_pixels`."""
    max_pixels: Annotated[int, Field(gt=0)] | None = None
    """Most area; None takes the budget's `frame_max_pixels`."""


class Profile(BaseModel):
    """How an item is written for an Embedder. The defaults are the library's own way; `ume-tiny` is trained on it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    """What it is called in `ume.json` and in `from_pretrained(profile=...)`."""
    order: tuple[Kind, Kind, Kind] = ("images", "videos", "text")
    """Order of an item with at most one picture."""
    order_of_several: tuple[Kind, Kind, Kind] = ("images", "videos", "text")
    """Order of an item with several images or a video."""
    several_as_frames: bool = False
    """Whether several images, and the evidence of them or of a video, get the budget of a frame."""
    videos: Literal["part", "images"] = "part"
    """Whether a video is one part with time marks, or its frames are images without marks, after the item's own."""
    doubled_vision_tokens: bool = True
    """Whether a video part keeps the template's own vision tokens around those of its frames. transformers 4.57, with
    which both families were published, wrote none; 5.x leaves what a template writes."""
    first_resizing: Resizing | None = None
    """What frames that were decoded elsewhere go through before the budget's own resizing."""
    frame_resampling: Literal["pillow", "torch"] = "pillow"
    """What resizes the frames of a video part to the budget. Both are bicubic; torch rounds once, Pillow twice."""
    repeat_odd_frame: bool = False
    """Whether the last of an odd number of frames is shown again one step later; else the model's processor repeats it
    at the same time."""
    thin_frames: bool = False
    """Whether given frames beyond the budget's `video_frames` are thinned evenly."""
    strip_text: bool = False
    """Whether white space around the item's text is left out."""
    instruction_joiner: str = "\n"
    """What stands between instruction and text, where the family has no system turn for the instruction."""
    control_tokens: Literal["any", "qwen"] = "any"
    """Whose control tokens are broken up in words from outside: those of any known model, or Qwen's and the pooled one
    only, so that markup such as `<s>` stays as it is."""
    trace: Literal["rendered", "reply"] = "rendered"
    """Whether a T-CoT is written in its canonical form or as the Reasoner wrote it."""
    after_thinking: str = ""
    """What follows `</thinking>` when the reply is written."""
    evidence: EvidenceRule = EVERY_CUE
    """Which pictures the T-CoT's cues give."""


OWN: Final = Profile(name="ume")
"""The library's own way; checkpoints whose `ume.json` names no profile were trained with it."""

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
    """Look a profile of a family up by its name.

    Raises:
        InputError: When the family has no profile of that name.

    Example:
        >>> find_profile("embed-rl", "train").videos
        'part'
    """
    known = {profile.name: profile for profile in PROFILES[family]}
    if name not in known:
        raise InputError(f"unknown profile {name!r} of {family}", hint=f"use one of {', '.join(known)}")
    return known[name]
