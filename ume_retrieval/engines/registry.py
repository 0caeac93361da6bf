"""Model names: presets as data, and how any other name or folder is understood."""

from __future__ import annotations

import difflib
import re
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Literal, TypeAlias

from ume_retrieval.checkpoint import EmbedderSpec, ReasonerSpec, read_spec
from ume_retrieval.errors import ModelError
from ume_retrieval.tcot.prompts import DEFAULT_PROMPTS

Role: TypeAlias = Literal["embedder", "reasoner"]

HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")


@dataclass(frozen=True, slots=True)
class Preset:
    """A model that is known by a short name.

    Attributes:
        name: The short name, lower case.
        role: What the model does.
        model: Hub id, or "bundled" when the weights are in the package.
        spec: How it wants its input, or None when its folder says so itself.
        dimension: Length of its vectors, or None (a Reasoner, or told by its folder).
        reasoner: The preset that reasons for this Embedder unless another one is named.
        revision: Commit of the hub, or None for the newest.
        note: One line for people.
    """

    name: str
    role: Role
    model: str
    spec: EmbedderSpec | ReasonerSpec | None = None
    dimension: int | None = None
    reasoner: str | None = None
    revision: str | None = None
    note: str = ""


@dataclass(frozen=True, slots=True)
class Resolved:
    """A name that was understood.

    Attributes:
        model: Hub id or folder, as an engine's `from_pretrained` takes it.
        revision: Commit of the hub, or None.
        spec: How the model wants its input.
        reasoner: Name of the Reasoner that goes with an Embedder, or None.
    """

    model: str
    revision: str | None
    spec: EmbedderSpec | ReasonerSpec
    reasoner: str | None = None


EMBED_RL = EmbedderSpec(family="embed-rl")

QWEN3_VL_EMBEDDING = EmbedderSpec(family="qwen3-vl-embedding")

MATRYOSHKA_2B = (64, 128, 256, 512, 1024, 2048)

INSTRUCT = ReasonerSpec(prompts=DEFAULT_PROMPTS)

PRESETS = (
    Preset(
        "ume-tiny",
        "embedder",
        "bundled",
        reasoner="ume-tiny",
        note="demonstration pair, in the package, knows the Shapes world only",
    ),
    Preset("ume-tiny", "reasoner", "bundled", note="Reasoner of the demonstration pair"),
    Preset(
        "embed-rl-2b",
        "embedder",
        "ZoengHouNaam/Embed-RL-2B",
        EMBED_RL,
        2048,
        reasoner="qwen3-vl-8b",
        note="arXiv 2602.13823; trained on inputs with T-CoT",
    ),
    Preset(
        "embed-rl-4b",
        "embedder",
        "ZoengHouNaam/Embed-RL-4B",
        EMBED_RL,
        2560,
        reasoner="qwen3-vl-8b",
        note="arXiv 2602.13823; trained on inputs with T-CoT",
    ),
    Preset(
        "qwen3-vl-embedding-2b",
        "embedder",
        "Qwen/Qwen3-VL-Embedding-2B",
        QWEN3_VL_EMBEDDING.model_copy(update={"matryoshka_dims": MATRYOSHKA_2B}),
        2048,
        reasoner="qwen3-vl-2b",
        note="strong single-pass Embedder; Matryoshka dimensions",
    ),
    Preset(
        "qwen3-vl-embedding-8b",
        "embedder",
        "Qwen/Qwen3-VL-Embedding-8B",
        QWEN3_VL_EMBEDDING.model_copy(update={"matryoshka_dims": (*MATRYOSHKA_2B, 4096)}),
        4096,
        reasoner="qwen3-vl-8b",
        note="strong single-pass Embedder; Matryoshka dimensions",
    ),
    Preset("qwen3-vl-2b", "reasoner", "Qwen/Qwen3-VL-2B-Instruct", INSTRUCT, note="smallest instruct Reasoner"),
    Preset("qwen3-vl-4b", "reasoner", "Qwen/Qwen3-VL-4B-Instruct", INSTRUCT, note="middle instruct Reasoner"),
    Preset("qwen3-vl-8b", "reasoner", "Qwen/Qwen3-VL-8B-Instruct", INSTRUCT, note="the paper's Reasoner before RL"),
)


def presets() -> tuple[Preset, ...]:
    """Every preset, Embedders and Reasoners, bundled ones first."""
    return PRESETS


def bundled_folder(name: str, role: Role) -> Path:
    """Folder of weights that ship inside the package."""
    return Path(str(files("ume_retrieval"))) / "pretrained" / name / role


def resolve_embedder(name: str) -> Resolved:
    """Understand the name of an Embedder; reads local files only.

    In this order: a preset (any case) or the hub id of one; a folder that describes itself (`ume.json`), that holds a
    pair (`embedder/` and `reasoner/`), or that sentence-transformers wrote (`modules.json`); any other hub id, which
    is taken for a sentence-transformers model unless its name says Embed-RL or Qwen3-VL-Embedding.

    Args:
        name: Preset, hub id or folder. A folder that is called like a preset is written `./name`.

    Returns:
        What an engine needs to load it.

    Raises:
        ModelError: When the name means nothing; the hint names near matches.
        IncompatibleModel: When the folder's description cannot be read.

    Example:
        >>> resolve_embedder("Embed-RL-2B").model
        'ZoengHouNaam/Embed-RL-2B'
        >>> resolve_embedder("jinaai/jina-clip-v2").spec.family
        'sentence-transformers'
    """
    if preset := _preset(name, "embedder"):
        return _from_preset(preset)
    folder = Path(name).expanduser()
    if folder.is_dir():
        return _embedder_folder(folder)
    _require_hub_id(name, "embedder")
    return Resolved(name, None, _guess_family(name) or EmbedderSpec(family="sentence-transformers"))


def resolve_reasoner(name: str) -> Resolved:
    """Understand the name of a Reasoner; reads local files only.

    In this order: a preset (any case) or the hub id of one; a folder that describes itself (`ume.json`), that holds a
    pair (`embedder/` and `reasoner/`), or that holds an instruct model (`config.json`); any other hub id. A model that
    does not describe itself is asked with the default prompts.

    Args:
        name: Preset, hub id or folder. A folder that is called like a preset is written `./name`.

    Returns:
        What an engine needs to load it.

    Raises:
        ModelError: When the name means nothing; the hint names near matches.
        IncompatibleModel: When the folder's description cannot be read.

    Example:
        >>> resolve_reasoner("qwen3-vl-8b").model
        'Qwen/Qwen3-VL-8B-Instruct'
    """
    if preset := _preset(name, "reasoner"):
        return _from_preset(preset)
    folder = Path(name).expanduser()
    if folder.is_dir():
        return _reasoner_folder(folder)
    _require_hub_id(name, "reasoner")
    return Resolved(name, None, INSTRUCT)


def _preset(name: str, role: Role) -> Preset | None:
    known = [preset for preset in PRESETS if name.lower() in {preset.name, preset.model.lower()} - {"bundled"}]
    fitting = [preset for preset in known if preset.role == role]
    if known and not fitting:
        raise ModelError(f"{name} is a {known[0].role}, not a {role}", hint=f"hand it in as the {known[0].role}")
    return fitting[0] if fitting else None


def _from_preset(preset: Preset) -> Resolved:
    if preset.spec is not None:
        return Resolved(preset.model, preset.revision, preset.spec, preset.reasoner)
    folder = bundled_folder(preset.name, preset.role)
    spec = _spec_of_role(folder, preset.role)
    if spec is None:
        raise ModelError(f"this installation lacks the weights of {preset.name}", hint="install ume-retrieval again")
    return Resolved(str(folder), None, spec, preset.reasoner)


def _embedder_folder(folder: Path) -> Resolved:
    if spec := _spec_of_role(folder, "embedder"):
        return Resolved(str(folder), None, spec)
    if (folder / "embedder").is_dir():
        inner = _embedder_folder(folder / "embedder")
        has_reasoner = (folder / "reasoner").is_dir()
        return Resolved(inner.model, None, inner.spec, str(folder / "reasoner") if has_reasoner else None)
    if spec := _guess_family(folder.name):
        return Resolved(str(folder), None, spec)
    if (folder / "modules.json").is_file():
        return Resolved(str(folder), None, EmbedderSpec(family="sentence-transformers"))
    raise ModelError(
        f"the folder {folder} does not say what kind of Embedder it holds",
        hint="write ume.json into it with ume_retrieval.checkpoint.write_spec",
    )


def _reasoner_folder(folder: Path) -> Resolved:
    if spec := _spec_of_role(folder, "reasoner"):
        return Resolved(str(folder), None, spec)
    if (folder / "reasoner").is_dir():
        return _reasoner_folder(folder / "reasoner")
    if (folder / "config.json").is_file():
        return Resolved(str(folder), None, INSTRUCT)
    raise ModelError(
        f"the folder {folder} holds no model (neither ume.json nor config.json)",
        hint="name the checkpoint's own folder",
    )


def _spec_of_role(folder: Path, role: Role) -> EmbedderSpec | ReasonerSpec | None:
    spec = read_spec(folder)
    if spec is not None and spec.role != role:
        raise ModelError(
            f"the folder {folder} holds a {spec.role}, not a {role}", hint=f"hand it in as the {spec.role}"
        )
    return spec


def _guess_family(name: str) -> EmbedderSpec | None:
    lowered = name.lower()
    if "qwen3-vl-embedding" in lowered:
        return QWEN3_VL_EMBEDDING
    return EMBED_RL if "embed-rl" in lowered else None


def _require_hub_id(name: str, role: Role) -> None:
    if HUB_ID.fullmatch(name) and name[0] not in ".~":
        return
    if "/" in name or "\\" in name:
        raise ModelError(f"there is no folder {name}", hint="check the path, or name a preset or a hub id")
    known = [preset.name for preset in PRESETS if preset.role == role]
    near = difflib.get_close_matches(name.lower(), known, n=3, cutoff=0.5)
    raise ModelError(
        f"unknown {role} {name!r}",
        hint=f"did you mean {' or '.join(near)}?" if near else f"name a hub id, a folder or one of {', '.join(known)}",
    )
