"""A checkpoint folder describes itself: `ume.json` next to the weights names family, prompts and visual budget."""

from __future__ import annotations

import difflib
import hashlib
import json
import logging
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Any, Literal, Self

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    SerializerFunctionWrapHandler,
    ValidationError,
    model_serializer,
    model_validator,
)

from ume_retrieval.errors import IncompatibleModel, InputError
from ume_retrieval.profiles import OWN, PROFILES, Family, Profile, find_profile
from ume_retrieval.util.json_text import parse_json

logger = logging.getLogger(__name__)

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
    video_min_frames: Annotated[int, Field(gt=0)] | None = None
    """A number takes an even number of frames of a file, at least so many, spread evenly from its first frame to its
    last (`media.segments.even_times`). None takes one every 1 / `video_fps` seconds from the start."""
    evidence_images: Annotated[int, Field(ge=0)] = 4
    """Most crops or key frames that go into the Embedder's input."""

    @model_serializer(mode="wrap")
    def _without_later_fields(self, write: SerializerFunctionWrapHandler) -> dict[str, Any]:
        # A budget is part of the keys of kept traces: fields that came later count only where they are used.
        written: dict[str, Any] = write(self)
        if self.video_min_frames is None:
            del written["video_min_frames"]
        return written


class Prompts(BaseModel):
    """Prompt templates of the Reasoner, by side and modality; `{text}` and `{instruction}` are filled from the item.

    `version` is part of cache keys and collection metadata: change it with the wording, or omit it in a file.
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
            # A misspelt name is unknown, and the name that was meant is missing: the former says what to correct.
            first = min(error.errors(), key=lambda one: one["type"] != "extra_forbidden")
            field = ".".join(map(str, first["loc"]))
            said = {"missing": "is missing", "extra_forbidden": "is not a prompt"}.get(first["type"], first["msg"])
            unknown = first["type"] == "extra_forbidden"
            near = difflib.get_close_matches(field, cls.model_fields, n=1, cutoff=0.8) if unknown else ()
            hint = f"the fields are {', '.join(cls.model_fields)}; version may be left out"
            hint = f"did you mean {near[0]}?" if near else hint
            raise InputError(f"{source}: {field} {said}", hint=hint) from error
        for name in ("query_text", "query_text_to_video", "corpus_text"):
            if "{text}" not in getattr(prompts, name):
                raise InputError(f"{source}: {name} lacks {{text}}", hint="add {text} where the item's text belongs")
        if prompts.version:
            return prompts
        wording = json.dumps(prompts.model_dump(exclude={"version"}), sort_keys=True)
        return prompts.model_copy(update={"version": f"sha256:{hashlib.sha256(wording.encode()).hexdigest()[:12]}"})


class ReasonerSpec(BaseModel):
    """Settings of a Reasoner checkpoint, from its `ume.json`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    role: Literal["reasoner"] = "reasoner"
    prompts: Prompts
    budget: VisualBudget = VisualBudget()
    max_tokens: Annotated[int, Field(gt=0)] = 1024
    """Most tokens that a trace of this model needs."""
    max_prompt_tokens: Annotated[int, Field(gt=0)] = 16_384
    """Longest prompt; a longer one is refused, never cut silently."""


PUBLISHED_BUDGETS: Mapping[str, VisualBudget] = MappingProxyType(
    {
        # ZoengHN/Embed-RL 87b52f7: a T-CoT shows all that it names; qwen2_vision_process.py bounds a video part.
        "embed-rl": VisualBudget(evidence_images=64, video_max_pixels=2 * 8 * 300 * PIXELS_PER_TOKEN),
        # QwenLM/Qwen3-VL-Embedding 8ce3aab, src/models/qwen3_vl_embedding.py.
        "qwen3-vl-embedding": VisualBudget(
            image_min_pixels=4 * PIXELS_PER_TOKEN,
            image_max_pixels=1800 * PIXELS_PER_TOKEN,
            frame_max_pixels=768 * PIXELS_PER_TOKEN,
            # Frames travel in pairs, for which qwen-vl-utils doubles the total: at most 7,680 of the 8,192 tokens. The
            # authors leave files without this bound; what exceeds it there is soon too long for the model.
            video_max_pixels=2 * 10 * 768 * PIXELS_PER_TOKEN,
            video_fps=1.0,
            video_frames=64,
            video_min_frames=4,
        ),
    }
)
"""Visual budget of each family, as its authors use it."""


def _usual_budget(given: dict[str, Any]) -> VisualBudget:
    published = PUBLISHED_BUDGETS.get(given.get("family", ""))
    return published if published and given.get("profile") != OWN else VisualBudget()


class EmbedderSpec(BaseModel):
    """Settings of an Embedder checkpoint, from its `ume.json`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    role: Literal["embedder"] = "embedder"
    family: Family
    profile: Profile = Field(default_factory=lambda given: PROFILES[given["family"]][0] if "family" in given else OWN)
    """How items are formatted; by default as the authors published it. Accepts a name of `profiles.PROFILES`."""
    emb_token: str = "<emb>"
    """Token that is pooled; only the embed-rl family reads it."""
    summary_prompt: str = "Summarize the above content in one word:"
    """Closing words of the user turn; only the embed-rl family reads it."""
    default_instruction: str = "Represent the user's input."
    """System turn when the item brings no instruction; only the qwen3-vl-embedding family reads it."""
    budget: VisualBudget = Field(default_factory=_usual_budget)
    """Resolution and number of frames that the model sees; by default as the family's authors use it."""
    max_tokens: Annotated[int, Field(gt=0)] = 8192
    """Most tokens of an input; a longer one raises an error and is never truncated. The sentence-transformers family
    uses the model's own limit, and this one only where the model declares no limit."""
    trace_part: Literal["whole", "answer"] | None = None
    """Part of a T-CoT that is embedded. None means all of it, except for dual encoders (CLIP, SigLIP): their text
    towers read 64 or 77 tokens, so only the answer is embedded."""
    words_share: Annotated[float, Field(ge=0, le=1)] = 0.1
    """Weight of the text in the vector of an item with text and pictures, for dual encoders; the pictures get the
    rest. Measured on Shapes: `benchmarks/dual_encoder.py`."""
    matryoshka_dims: tuple[int, ...] = ()
    """Dimensions to which vectors may be truncated (Matryoshka training); empty when unknown."""

    @model_validator(mode="before")
    @classmethod
    def _profile_by_name(cls, given: Any) -> Any:
        if isinstance(given, dict) and isinstance(given.get("profile"), str) and given.get("family") in PROFILES:
            try:
                return {**given, "profile": find_profile(given["family"], given["profile"])}
            except InputError as error:
                raise ValueError(f"{error} ({error.hint})") from error
        return given

    def with_profile(self, profile: Profile | str) -> EmbedderSpec:
        """Return this spec with another profile.

        Raises:
            InputError: If the family lacks a profile of that name.

        Example:
            >>> EmbedderSpec(family="embed-rl").with_profile("train").profile.name
            'train'
        """
        found = find_profile(self.family, profile) if isinstance(profile, str) else profile
        return self.model_copy(update={"profile": found})

    @property
    def writing(self) -> str:
        """Family and profile as one string. Vectors that differ in it are not comparable.

        Example:
            >>> EmbedderSpec(family="embed-rl").writing, EmbedderSpec(family="embed-rl", profile="ume").writing
            ('embed-rl/mmeb', 'embed-rl')
        """
        return self.family if self.profile == OWN else f"{self.family}/{self.profile.name}"


class RerankerSpec(BaseModel):
    """Settings of a reranker that scores pairs of a query and an item."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    role: Literal["reranker"] = "reranker"
    family: Literal["qwen3-vl-reranker", "cross-encoder"]
    """How a pair is written: QwenLM/Qwen3-VL-Embedding 8ce3aab, src/models/qwen3_vl_reranker.py; or by the model's own
    sentence-transformers files, which also resize its pictures."""
    profile: Profile = PROFILES["qwen3-vl-embedding"][0]
    """How videos and pictures are shown; the published rerankers share it with the Embedders of their family."""
    budget: VisualBudget = PUBLISHED_BUDGETS["qwen3-vl-embedding"]
    """Resolution and number of frames that the model sees."""
    default_instruction: str = "Given a search query, retrieve relevant candidates that answer the query."
    """Task of a query without an instruction; only the qwen3-vl-reranker family reads it."""
    max_tokens: Annotated[int, Field(gt=0)] = 10_240
    """Tokens of a pair before its fixed end. Of a longer pair, words are dropped from the end, as published; pictures
    stay. The cross-encoder family uses the model's own limit."""


def _read_table(path: Path) -> dict[str, object]:
    readers: dict[str, Callable[[str], object]] = {".toml": tomllib.loads, ".json": parse_json}
    if path.suffix not in readers:
        raise InputError(f"{path} is neither .toml nor .json", hint="prompts are read from one of these")
    try:
        table = readers[path.suffix](path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}", hint="check the path") from error
    except (ValueError, RecursionError) as error:  # invalid UTF-8, or a syntax error of either format, with its line
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
        data = parse_json(path.read_text(encoding="utf-8"))
        if isinstance(data, dict) and data.get("role") == "reasoner":
            return ReasonerSpec.model_validate(data)
        if isinstance(data, dict) and data.get("family") == "embed-rl" and "profile" not in data:
            # Files without a profile were written before there were any, next to weights trained in the own way.
            logger.info("%s names no profile; read as %r", path, OWN.name)
            data["profile"] = OWN.name
        return EmbedderSpec.model_validate(data)
    except (ValueError, ValidationError) as error:
        raise IncompatibleModel(
            f"{path} does not describe a model: {error}", hint="write it again with ume_retrieval.checkpoint.write_spec"
        ) from error


def write_spec(spec: ReasonerSpec | EmbedderSpec, folder: Path) -> Path:
    """Write `ume.json` into a checkpoint folder and return its path."""
    path = folder / FILE_NAME
    path.write_text(spec.model_dump_json(indent=2) + "\n", encoding="utf-8")
    return path
