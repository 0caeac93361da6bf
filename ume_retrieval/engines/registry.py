"""Model names: those of the catalogue, and how any other name or folder is understood."""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cache
from importlib.resources import files
from pathlib import Path
from types import MappingProxyType
from typing import Literal, TypeAlias

from ume_retrieval.checkpoint import EmbedderSpec, Prompts, ReasonerSpec, RerankerSpec, read_spec
from ume_retrieval.engines.checkpoint_files import family_of, is_cross_encoder, is_qwen3_vl, refuse_adapters
from ume_retrieval.errors import IncompatibleModel, InputError, ModelError
from ume_retrieval.models.catalog import BUNDLED, ModelCard, cards
from ume_retrieval.profiles import PROFILES, Family
from ume_retrieval.tcot.prompts import DEFAULT_PROMPTS

Role: TypeAlias = Literal["embedder", "reasoner", "reranker"]

Spec: TypeAlias = EmbedderSpec | ReasonerSpec | RerankerSpec

HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")


@dataclass(frozen=True, slots=True)
class Preset:
    """A model that is known by a short name.

    Attributes:
        name: The short name, lower case.
        role: Whether it embeds, reasons or reranks.
        model: Hub id, or "bundled" when the weights are in the package.
        spec: How it wants its input, or None when its folder says so itself.
        dimension: Length of its vectors, or None (a Reasoner, or as its folder says).
        reasoner: The preset that reasons for this Embedder unless another one is named.
        revision: Commit of the hub, or None for the newest.
        parameters: How many it has, or None where that is not known.
        note: One line for people.
    """

    name: str
    role: Role
    model: str
    spec: Spec | None = None
    dimension: int | None = None
    reasoner: str | None = None
    revision: str | None = None
    parameters: int | None = None
    note: str = ""


@dataclass(frozen=True, slots=True)
class Resolved:
    """A name that was understood.

    Attributes:
        model: Hub id or folder, as an engine's `from_pretrained` takes it.
        revision: Commit of the hub, or None.
        spec: How the model wants its input.
        reasoner: Name of the Reasoner that goes with an Embedder, or None.
        parameters: How many the model has, or None where that is not known.
    """

    model: str
    revision: str | None
    spec: Spec
    reasoner: str | None = None
    parameters: int | None = None


SPECS: Mapping[Family, EmbedderSpec] = MappingProxyType({family: EmbedderSpec(family=family) for family in PROFILES})
"""How a folder that is recognised by its content wants its input."""

INSTRUCT = ReasonerSpec(prompts=DEFAULT_PROMPTS)

RERANKER = RerankerSpec(family="qwen3-vl-reranker")

FAMILIES: Mapping[str, Spec] = MappingProxyType(
    {**{str(family): spec for family, spec in SPECS.items()}, "instruct": INSTRUCT, RERANKER.family: RERANKER}
)
"""How models of a family want their input, by the name that cards of the catalogue use."""


@cache
def presets() -> tuple[Preset, ...]:
    """Every model of the catalogue: Embedders, Reasoners and rerankers, bundled ones first."""
    return tuple(
        Preset(
            card.name,
            card.role,
            card.model,
            spec_of(card),
            card.dimension,
            card.reasoner,
            card.revision,
            card.parameters,
            card.note,
        )
        for card in cards()
    )


def spec_of(card: ModelCard) -> Spec | None:
    """How a catalogued model wants its input; None where its folder says so itself.

    Example:
        >>> from ume_retrieval.models.catalog import find_cards
        >>> [card] = find_cards("embeddinggemma-2")
        >>> spec_of(card).matryoshka_dims
        (128, 256, 512, 768)
    """
    spec = FAMILIES[card.family] if card.family else None
    if isinstance(spec, EmbedderSpec) and card.matryoshka_dims:
        return spec.model_copy(update={"matryoshka_dims": card.matryoshka_dims})
    return spec


def bundled_folder(name: str, role: Role) -> Path:
    """Folder of weights that ship inside the package."""
    return Path(str(files("ume_retrieval"))) / "pretrained" / name / role


def resolve_embedder(name: str) -> Resolved:
    """Understand the name of an Embedder; reads local files only.

    In this order: a preset (any case) or the hub id of one; a folder that describes itself (`ume.json`), that holds a
    pair (`embedder/` and `reasoner/`), or whose files show what it is (see `checkpoint_files.family_of`), as in the
    hub's cache, where folders are named by a hash; any other hub id, which is taken for a sentence-transformers model.
    Where neither files nor preset tell, a name that says Embed-RL or Qwen3-VL-Embedding does.

    Args:
        name: Preset, hub id or folder. A folder that is called like a preset is written `./name`.

    Returns:
        Model, revision and description for an engine.

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

    Argument, result and errors are those of `resolve_embedder`.

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


def resolve_reranker(name: str) -> Resolved:
    """Understand the name of a reranker; reads local files only.

    In this order: a preset (any case) or the hub id of one, a Reasoner's included; a folder that describes itself as a
    Reasoner (`ume.json`) or holds a pair, that is a sentence-transformers CrossEncoder, or that holds a Qwen3-VL; any
    other hub id, which is taken for a CrossEncoder unless its name says Qwen3-VL-Reranker. A Reasoner reranks by
    reading T-CoTs (`reranking.tcot`).

    Argument and errors are those of `resolve_embedder`.

    Returns:
        Model, revision and description: a `RerankerSpec` for an engine, or the `ReasonerSpec` of a Reasoner.

    Example:
        >>> resolve_reranker("Qwen3-VL-Reranker-2B").model, resolve_reranker("qwen3-vl-2b").spec.role
        ('Qwen/Qwen3-VL-Reranker-2B', 'reasoner')
        >>> resolve_reranker("cross-encoder/ms-marco-MiniLM-L6-v2").spec.family
        'cross-encoder'
    """
    if preset := _preset(name, "reranker", "reasoner"):
        return _from_preset(preset)
    folder = Path(name).expanduser()
    if folder.is_dir():
        return _reranker_folder(folder)
    _require_hub_id(name, "reranker")
    is_qwen = RERANKER.family in name.lower()
    return Resolved(name, None, RERANKER if is_qwen else RerankerSpec(family="cross-encoder"))


def with_prompts(reasoner: Resolved | None, prompts: Prompts | str | Path) -> Resolved:
    """Let a Reasoner that is yet to be loaded be asked with other prompts than its own.

    Args:
        reasoner: The Reasoner, or None where none is loaded by name.
        prompts: The wording, or a file that `Prompts.from_file` reads.

    Raises:
        InputError: When no Reasoner is loaded by name, or the file cannot be used.
    """
    if reasoner is None:
        raise InputError("prompts go to a Reasoner that is loaded by name", hint="name one, or leave the prompts out")
    worded = prompts if isinstance(prompts, Prompts) else Prompts.from_file(prompts)
    return replace(reasoner, spec=reasoner.spec.model_copy(update={"prompts": worded}))


def _preset(name: str, *roles: Role) -> Preset | None:
    known = [preset for preset in presets() if name.lower() in {preset.name, preset.model.lower()} - {BUNDLED}]
    fitting = [preset for preset in known if preset.role in roles]
    if known and not fitting:
        raise _other_role(name, known[0].role, roles[0])
    return fitting[0] if fitting else None


def _other_role(name: str, is_a: Role, role: Role) -> ModelError:
    hint = f"hand it in as the {is_a}"
    if is_a == "reranker":
        hint = "load it with Reranker.from_pretrained, or search with --rerank"
    return ModelError(f"{name} is a {is_a}, not a {role}", hint=hint)


def _from_preset(preset: Preset) -> Resolved:
    if preset.spec is not None:
        return Resolved(preset.model, preset.revision, preset.spec, preset.reasoner, preset.parameters)
    folder = bundled_folder(preset.name, preset.role)
    spec = _spec_of_role(folder, preset.role)
    if spec is None:
        raise ModelError(f"this installation lacks the weights of {preset.name}", hint="install ume-retrieval again")
    return Resolved(str(folder), None, spec, preset.reasoner, preset.parameters)


def _embedder_folder(folder: Path) -> Resolved:
    refuse_adapters(folder)
    if spec := _spec_of_role(folder, "embedder"):
        return Resolved(str(folder), None, spec)
    if (folder / "embedder").is_dir():
        inner = _embedder_folder(folder / "embedder")
        has_reasoner = (folder / "reasoner").is_dir()
        return Resolved(inner.model, None, inner.spec, str(folder / "reasoner") if has_reasoner else None)
    if family := family_of(folder):
        return Resolved(str(folder), None, SPECS[family])
    if spec := _guess_family(folder.name):
        return Resolved(str(folder), None, spec)
    if is_qwen3_vl(folder):
        raise IncompatibleModel(
            f"the folder {folder} holds a Qwen3-VL, but not an Embedder: its config names no emb_token_ids, and its "
            "tokenizer appends no token to pool",
            hint="hand it in as the reasoner, or name an Embedder such as qwen3-vl-embedding-2b",
        )
    raise ModelError(
        f"the folder {folder} does not say what kind of Embedder it holds",
        hint="write ume.json into it with ume_retrieval.checkpoint.write_spec",
    )


def _reasoner_folder(folder: Path) -> Resolved:
    refuse_adapters(folder)
    if spec := _spec_of_role(folder, "reasoner"):
        return Resolved(str(folder), None, spec)
    if (folder / "reasoner").is_dir():
        return _reasoner_folder(folder / "reasoner")
    if (family := family_of(folder)) in {"embed-rl", "qwen3-vl-embedding"}:
        raise ModelError(
            f"the folder {folder} holds an embedder ({family}), not a reasoner", hint="hand it in as the embedder"
        )
    if (folder / "config.json").is_file():
        return Resolved(str(folder), None, INSTRUCT)
    raise ModelError(
        f"the folder {folder} holds no model (neither ume.json nor config.json)",
        hint="name the checkpoint's own folder",
    )


def _reranker_folder(folder: Path) -> Resolved:
    refuse_adapters(folder)
    if read_spec(folder) is not None or (folder / "reasoner").is_dir():
        return _reasoner_folder(folder)
    if is_cross_encoder(folder):
        return Resolved(str(folder), None, RerankerSpec(family="cross-encoder"))
    if (family := family_of(folder)) is not None:
        raise _other_role(f"the model in {folder} ({family})", "embedder", "reranker")
    if is_qwen3_vl(folder):
        return Resolved(str(folder), None, RERANKER)
    raise ModelError(
        f"the folder {folder} holds no reranker",
        hint="name a folder with a Qwen3-VL-Reranker, a sentence-transformers CrossEncoder, or a Reasoner",
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
        return SPECS["qwen3-vl-embedding"]
    return SPECS["embed-rl"] if "embed-rl" in lowered else None


def _require_hub_id(name: str, role: Role) -> None:
    if HUB_ID.fullmatch(name) and name[0] not in ".~":
        return
    if "/" in name or "\\" in name:
        raise ModelError(f"folder {name} not found", hint="check the path, or name a preset or a hub id")
    known = [preset.name for preset in presets() if preset.role == role]
    near = difflib.get_close_matches(name.lower(), known, n=3, cutoff=0.5)
    raise ModelError(
        f"unknown {role} {name!r}",
        hint=f"did you mean {' or '.join(near)}?" if near else f"name a hub id, a folder or one of {', '.join(known)}",
    )
