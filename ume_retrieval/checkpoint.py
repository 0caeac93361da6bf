"""A checkpoint folder describes itself: `ume.json` next to the weights names family, prompts and visual budget."""

from __future__ import annotations

import hashlib
import json
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from ume_retrieval.errors import IncompatibleModel, InputError

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

    `version` goes into cache keys and collection metadata: change it with the wording, or leave it out of a file.
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

    @classmethod
    def from_file(cls, path: str | Path) -> Self:
        """Read prompts from a TOML or JSON file with the fields of this class.

        A file without `version` gets one that is a digest of the wording, so that changed prompts never meet traces or
        collections of others.

        Args:
            path: A file that ends in `.toml` or `.json`.

        Raises:
            InputError: When the file cannot be read, or a field is missing, unknown or unusable; it is named.

        Example:
            >>> import tempfile
            >>> fields = [name for name in Prompts.model_fields if name != "version"]
            >>> with tempfile.TemporaryDirectory() as folder:
            ...     path = Path(folder) / "prompts.toml"
            ...     _ = path.write_text("".join(f"{name} = 'Describe: {{text}}'" + chr(10) for name in fields))
            ...     Prompts.from_file(path).version
            'sha256:5acdfd27ef40'
        """
        source = Path(path)
        fields = _read_table(source)
        try:
            prompts = cls.model_validate({"version": "", **fields})
        except ValidationError as error:
            first = error.errors()[0]
            field = ".".join(map(str, first["loc"]))
            said = {"missing": "is missing", "extra_forbidden": "is no prompt"}.get(first["type"], first["msg"])
            raise InputError(
                f"{source}: {field} {said}",
                hint=f"the fields are {', '.join(cls.model_fields)}; version may be left out",
            ) from error
        for name in ("query_text", "query_text_to_video", "corpus_text"):
            if "{text}" not in getattr(prompts, name):
                raise InputError(f"{source}: {name} has no place for the text", hint="write {text} where it belongs")
        if prompts.version:
            return prompts
        wording = json.dumps(prompts.model_dump(exclude={"version"}), sort_keys=True)
        return prompts.model_copy(update={"version": f"sha256:{hashlib.sha256(wording.encode()).hexdigest()[:12]}"})


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
    """Longest input; a longer one is refused, never cut silently."""
    matryoshka_dims: tuple[int, ...] = ()
    """Dimensions that training has made usable on their own; empty when unknown."""


def _read_table(path: Path) -> dict[str, object]:
    readers = {".toml": tomllib.loads, ".json": json.loads}
    if path.suffix not in readers:
        raise InputError(f"{path} is neither .toml nor .json", hint="prompts are read from one of these")
    try:
        table = readers[path.suffix](path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}", hint="check the path") from error
    except ValueError as error:  # of bytes that are no text, and of both formats, with the line
        raise InputError(f"cannot read {path}: {error}") from error
    if not isinstance(table, dict):
        raise InputError(f"{path} holds no table of prompts", hint="write one field a prompt")
    return table


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
