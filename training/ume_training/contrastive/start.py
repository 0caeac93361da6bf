"""Where training starts: an Embedder, or a plain Qwen3-VL model that becomes one."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ume_retrieval.checkpoint import EmbedderSpec, read_spec
from ume_retrieval.engines.registry import SPECS, Spec, presets, resolve_embedder, resolve_reasoner
from ume_retrieval.engines.transformers.embedder import pooled_token
from ume_retrieval.errors import InputError

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Start:
    """A model to train from.

    Attributes:
        model: Folder or hub id, as `from_pretrained` takes it.
        revision: Commit of the hub, or None.
        spec: How the Embedder wants its input.
    """

    model: str
    revision: str | None
    spec: EmbedderSpec


def resolve_start(name: str, spec: EmbedderSpec | None = None) -> Start:
    """Understand where training starts; reads local files only.

    Args:
        name: An Embedder by preset, folder or hub id, or a Reasoner or an instruct model of the Qwen3-VL kind, which
            becomes an embed-rl Embedder with that model's visual budget.
        spec: How the Embedder shall want its input, or None for what the start says.

    Raises:
        ModelError: When the name means nothing.
        InputError: When the model is of a kind that this recipe cannot train.

    Example:
        >>> resolve_start("qwen3-vl-2b").spec.family
        'embed-rl'
    """
    if _is_instruct(name):
        reasoner = resolve_reasoner(name)
        budget = reasoner.spec.budget if read_spec(Path(reasoner.model)) else SPECS["embed-rl"].budget
        return Start(reasoner.model, reasoner.revision, spec or SPECS["embed-rl"].model_copy(update={"budget": budget}))
    found = resolve_embedder(name)
    start = Start(found.model, found.revision, spec or _embedder_spec(found.spec))
    if start.spec.family == "sentence-transformers":
        raise InputError(
            f"{name} is a sentence-transformers model; this recipe trains Qwen3-VL models",
            hint="start from an embed-rl or qwen3-vl-embedding model, or from a Qwen3-VL instruct model",
        )
    return start


def _embedder_spec(spec: Spec) -> EmbedderSpec:
    assert isinstance(spec, EmbedderSpec)  # noqa: S101  # `resolve_embedder` refuses the other role
    return spec


def _is_instruct(name: str) -> bool:
    """Return whether a name means a Reasoner, or a folder of a plain model without a description."""
    roles = {preset.role for preset in presets() if name.lower() in {preset.name, preset.model.lower()} - {"bundled"}}
    if roles:
        return roles == {"reasoner"}
    folder = Path(name).expanduser()
    if not folder.is_dir():
        return False
    found = read_spec(folder)
    if found is not None:
        return found.role == "reasoner"
    silent = not (folder / "embedder").is_dir() and not (folder / "modules.json").is_file()
    lowered = folder.name.lower()
    return silent and (folder / "config.json").is_file() and "embed" not in lowered


@dataclass(frozen=True, slots=True)
class EmbToken:
    """The token that an embed-rl Embedder is pooled at.

    Attributes:
        id: Its row in the embedding matrix.
        is_new: The start did not know it, so its row must be learned.
    """

    id: int
    is_new: bool


def ensure_emb_token(model: Any, tokenizer: Any, spec: EmbedderSpec) -> EmbToken:
    """Give tokenizer, embedding matrix and config the pooled token where they lack it.

    A new row starts as the mean of all rows: rows that Qwen3-VL keeps in reserve were never trained. The config
    declares the token as `emb_token_ids`, as the published Embedders do.

    Args:
        model: A transformers model; its embedding matrix grows if it lacks a row for the token.
        tokenizer: Its tokenizer; gets the token as a special one.
        spec: Names the token.

    Raises:
        IncompatibleModel: When config and tokenizer disagree.
    """
    is_new = spec.emb_token not in tokenizer.get_vocab() and not getattr(model.config, "emb_token_ids", None)
    if is_new:
        tokenizer.add_special_tokens(
            {"additional_special_tokens": [spec.emb_token]}, replace_extra_special_tokens=False
        )
        token = int(tokenizer.convert_tokens_to_ids(spec.emb_token))
        rows = model.get_input_embeddings().weight.shape[0]
        if token >= rows:
            model.resize_token_embeddings(token + 1, mean_resizing=False)
            logger.info("the embedding matrix grew from %d to %d rows", rows, token + 1)
        weight = model.get_input_embeddings().weight.data
        weight[token] = weight[: min(rows, token)].float().mean(0).to(weight.dtype)
    token = pooled_token(model, tokenizer, spec)
    model.config.emb_token_ids = [token]
    return EmbToken(token, is_new)
