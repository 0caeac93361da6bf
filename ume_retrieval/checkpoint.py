"""A checkpoint folder describes itself: `ume.json` next to the weights names family, prompts and visual budget."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from ume_retrieval.errors import IncompatibleModel

FILE_NAME = "ume.json"

PIXELS_PER_TOKEN = 32 * 32
"""One visual token of Qwen3-VL covers 32 x 32 pixels (patch 16, merged 2 x 2)."""


@dataclass(frozen=True, slots=True)
class ModelInfo:
    """Which weights these are.

    Attributes:
        name: Hub id, preset or folder name.
        revision: Commit of the hub, or a digest of the folder, so that different weights never look the same.
        engine: What runs it ("transformers", "vllm", "server", "sentence-transformers").
    """

    name: str
    revision: str
    engine: str


class VisualBudget(BaseModel):
    """How many pixels a model sees. Defaults are the paper's (arXiv 2602.13823, supplement).

    Pixels are counted after resizing; images and frames keep their shape.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    image_min_pixels: Annotated[int, Field(gt=0)] = 128 * PIXELS_PER_TOKEN
    image_max_pixels: Annotated[int, Field(gt=0)] = 768 * PIXELS_PER_TOKEN
    frame_min_pixels: Annotated[int, Field(gt=0)] = 128 * PIXELS_PER_TOKEN
    frame_max_pixels: Annotated[int, Field(gt=0)] = 300 * PIXELS_PER_TOKEN
    crop_min_pixels: Annotated[int, Field(gt=0)] = 128 * PIXELS_PER_TOKEN
    """Least pixels of an evidence crop or key frame."""
    crop_max_pixels: Annotated[int, Field(gt=0)] = 768 * PIXELS_PER_TOKEN
    video_fps: Annotated[float, Field(gt=0)] = 2.0
    video_max_pixels: Annotated[int, Field(gt=0)] | None = None
    """Most pixels of all frames of a video together; many frames are made smaller. None sets no such bound."""
    video_frames: Annotated[int, Field(gt=0)] = 8
    """Most frames of one video; longer videos are thinned evenly."""
    evidence_images: Annotated[int, Field(ge=0)] = 4
    """Most crops or key frames that go into the Embedder's input."""


class Prompts(BaseModel):
    """What the Reasoner is asked, by side and modality. `{text}` and `{instruction}` stand for the item's own words.

    `version` goes into cache keys and collection metadata: change it with the wording.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    version: str
    query_text: str
    query_image: str
    query_video: str
    query_text_to_video: str
    corpus_text: str
    corpus_image: str
    corpus_video: str


class ReasonerSpec(BaseModel):
    """What a Reasoner checkpoint says of itself."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    role: Literal["reasoner"] = "reasoner"
    prompts: Prompts
    budget: VisualBudget = VisualBudget()
    max_tokens: Annotated[int, Field(gt=0)] = 1024
    """Most tokens that a trace of this model needs."""
    max_prompt_tokens: Annotated[int, Field(gt=0)] = 16_384
    """Longest prompt; a longer one is refused, never cut silently."""


class EmbedderSpec(BaseModel):
    """What an Embedder checkpoint says of itself."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    role: Literal["embedder"] = "embedder"
    family: Literal["embed-rl", "qwen3-vl-embedding", "sentence-transformers"]
    emb_token: str = "<emb>"
    """Token that is pooled; only the embed-rl family reads it."""
    summary_prompt: str = "Summarize the above content in one word:"
    """Closing words of the user turn; only the embed-rl family reads it."""
    default_instruction: str = "Represent the user's input."
    """System turn when the item brings no instruction; only the qwen3-vl-embedding family reads it."""
    budget: VisualBudget = VisualBudget()
    max_tokens: Annotated[int, Field(gt=0)] = 8192
    """Longest input; a longer one is refused, never cut silently. The sentence-transformers family goes by the model's
    own limit, and by this one where the model names none."""
    trace_part: Literal["whole", "answer"] | None = None
    """How much of a T-CoT is embedded. None is all of it, but the answer alone where a model reads either words or
    pictures (CLIP, SigLIP): what reads captions of 64 or 77 tokens has no room for more."""
    words_share: Annotated[float, Field(ge=0, le=1)] = 0.1
    """Weight of words in the vector of an item with words and pictures, for a model that reads one of the two at a
    time; pictures have the rest. Measured on Shapes: `benchmarks/dual_encoder.py`."""
    matryoshka_dims: tuple[int, ...] = ()
    """Dimensions that training has made usable on their own; empty when unknown."""


def read_spec(folder: Path) -> ReasonerSpec | EmbedderSpec | None:
    """Read a checkpoint's own description, or None when it brings none.

    Raises:
        IncompatibleModel: When the file is there but cannot be understood.
    """
    path = folder / FILE_NAME
    if not path.is_file():
        return None
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
        kind = ReasonerSpec if isinstance(data, dict) and data.get("role") == "reasoner" else EmbedderSpec
        return kind.model_validate(data)
    except (ValueError, ValidationError) as error:
        raise IncompatibleModel(
            f"{path} does not describe a model: {error}", hint="write it again with ume_retrieval.checkpoint.write_spec"
        ) from error


def write_spec(spec: ReasonerSpec | EmbedderSpec, folder: Path) -> Path:
    """Write `ume.json` into a checkpoint folder and return its path."""
    path = folder / FILE_NAME
    path.write_text(spec.model_dump_json(indent=2) + "\n", encoding="utf-8")
    return path
