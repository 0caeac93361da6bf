"""How large a Qwen3-VL is, from the numbers in its `config.json`; weights are never opened."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

from ume_retrieval.engines.registry import resolve_embedder, resolve_reasoner
from ume_retrieval.errors import UmeError

CONFIG = "config.json"


@dataclass(frozen=True, slots=True)
class Architecture:
    """The widths and depths of a Qwen3-VL, named as in `config.json`.

    Attributes:
        hidden: `text_config.hidden_size`.
        intermediate: `text_config.intermediate_size`.
        layers: `text_config.num_hidden_layers`.
        heads: `text_config.num_attention_heads`.
        kv_heads: `text_config.num_key_value_heads`.
        head_dim: `text_config.head_dim`.
        vocabulary: `text_config.vocab_size`.
        tied: `tie_word_embeddings`; without it the vocabulary has a second matrix.
        vision_hidden: `vision_config.hidden_size`.
        vision_intermediate: `vision_config.intermediate_size`.
        vision_layers: `vision_config.depth`.
        vision_positions: `vision_config.num_position_embeddings`.
        deepstack: How many vision layers also feed the language model.
        patch_values: Numbers in a patch: 3 channels x 2 frames x 16 x 16 pixels.
    """

    hidden: int
    intermediate: int
    layers: int
    heads: int
    kv_heads: int
    head_dim: int
    vocabulary: int
    tied: bool
    vision_hidden: int
    vision_intermediate: int
    vision_layers: int
    vision_positions: int = 2304
    deepstack: int = 3
    patch_values: int = 3 * 2 * 16 * 16

    @property
    def language_layer(self) -> int:
        """Parameters of one language layer."""
        attention = self.hidden * self.head_dim * (2 * self.heads + 2 * self.kv_heads) + 2 * self.head_dim
        return attention + 3 * self.hidden * self.intermediate + 2 * self.hidden

    @property
    def language(self) -> int:
        """Parameters of the language model, with its vocabulary."""
        vocabulary = self.vocabulary * self.hidden * (1 if self.tied else 2)
        return vocabulary + self.layers * self.language_layer + self.hidden

    @property
    def vision(self) -> int:
        """Parameters of the vision tower, with its mergers."""
        width, inner = self.vision_hidden, self.vision_intermediate
        embedding = self.patch_values * width + width + self.vision_positions * width
        block = 4 * width + 3 * width * width + 3 * width + width * width + width + 2 * width * inner + inner + width
        merged = 4 * width
        merger = merged * merged + merged + merged * self.hidden + self.hidden
        norms = 2 * width + self.deepstack * 2 * merged
        return embedding + self.vision_layers * block + (1 + self.deepstack) * merger + norms

    @property
    def parameters(self) -> int:
        """All parameters.

        Example:
            >>> f"{PUBLISHED['Qwen/Qwen3-VL-2B-Instruct'].parameters / 1e9:.2f} billion"
            '2.13 billion'
        """
        return self.language + self.vision

    def adapters(self, rank: int) -> int:
        """Return parameters of LoRA on the seven projections of every language layer."""
        width, attention, keys = self.hidden, self.heads * self.head_dim, self.kv_heads * self.head_dim
        sums = (width + attention) * 2 + (width + keys) * 2 + 3 * (width + self.intermediate)
        return self.layers * rank * sums

    def kv_bytes_per_token(self, number_bytes: int) -> int:
        """Return bytes that one token of one sequence takes in the KV cache."""
        return 2 * self.layers * self.kv_heads * self.head_dim * number_bytes


_2B = Architecture(2048, 6144, 28, 16, 8, 128, 151_936, True, 1024, 4096, 24)
_4B = Architecture(2560, 9728, 36, 32, 8, 128, 151_936, True, 1024, 4096, 24)
_8B = Architecture(4096, 12_288, 36, 32, 8, 128, 151_936, False, 1152, 4304, 27)

PUBLISHED: Mapping[str, Architecture] = MappingProxyType(
    {
        "Qwen/Qwen3-VL-2B-Instruct": _2B,
        "Qwen/Qwen3-VL-4B-Instruct": _4B,
        "Qwen/Qwen3-VL-8B-Instruct": _8B,
        "Qwen/Qwen3-VL-Embedding-2B": _2B,
        "Qwen/Qwen3-VL-Embedding-8B": _8B,
        "ZoengHouNaam/Embed-RL-2B": _2B,
        "ZoengHouNaam/Embed-RL-4B": _4B,
    }
)
"""By hub id; the numbers are those of `config.json` in Qwen/Qwen3-VL-{2B,4B,8B}-Instruct. The Embedders are trained
from these models and share their architecture."""


def architecture_of(name: str) -> Architecture | None:
    """Return the architecture behind a model's name, or None when it is not known without fetching.

    Args:
        name: A preset, a hub id, or a folder that holds `config.json`.

    Example:
        >>> architecture_of("qwen3-vl-8b") == PUBLISHED["Qwen/Qwen3-VL-8B-Instruct"]
        True
    """
    model = model_behind(name)
    if Path(model).is_dir():
        return _from_config(Path(model) / CONFIG)
    return PUBLISHED.get(model)


def model_behind(name: str) -> str:
    """Return the folder or hub id of a preset; other names unchanged.

    Example:
        >>> model_behind("qwen3-vl-2b"), model_behind("nobody/knows")
        ('Qwen/Qwen3-VL-2B-Instruct', 'nobody/knows')
    """
    for resolve in (resolve_reasoner, resolve_embedder):
        try:
            return resolve(name).model
        except UmeError:
            continue
    return name


def _from_config(path: Path) -> Architecture | None:
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
        text, vision = config["text_config"], config["vision_config"]
        return Architecture(
            hidden=text["hidden_size"],
            intermediate=text["intermediate_size"],
            layers=text["num_hidden_layers"],
            heads=text["num_attention_heads"],
            kv_heads=text["num_key_value_heads"],
            head_dim=text["head_dim"],
            vocabulary=text["vocab_size"],
            tied=config.get("tie_word_embeddings", text.get("tie_word_embeddings", False)),
            vision_hidden=vision["hidden_size"],
            vision_intermediate=vision["intermediate_size"],
            vision_layers=vision["depth"],
            vision_positions=vision["num_position_embeddings"],
            deepstack=len(vision["deepstack_visual_indexes"]),
            patch_values=_patch_values(vision),
        )
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _patch_values(vision: Mapping[str, Any]) -> int:
    return int(vision.get("in_channels", 3) * vision["temporal_patch_size"] * vision["patch_size"] ** 2)
