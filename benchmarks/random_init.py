"""Build Qwen3-VL at its published sizes with random weights, to measure cost without the published weights."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal, TypeAlias

from ume_retrieval.checkpoint import EmbedderSpec, ReasonerSpec, write_spec
from ume_training.shapes.pair.architecture import build_config, build_processor
from ume_training.shapes.pair.tokenizer import build_tokenizer

PublishedSize: TypeAlias = Literal["2b", "4b"]
"""Published sizes that this recipe trains."""


@dataclass(frozen=True, slots=True)
class Shape:
    """The numbers in which the published sizes differ.

    Attributes:
        hidden: Width of the language model, and of what the vision tower hands it.
        intermediate: Width of a language layer's MLP.
        layers: Depth of the language model.
        heads: Attention heads of a language layer; 8 of keys and values, 128 wide, at every size.
    """

    hidden: int
    intermediate: int
    layers: int
    heads: int


SHAPES: Mapping[PublishedSize, Shape] = MappingProxyType(
    {"2b": Shape(2048, 6144, 28, 16), "4b": Shape(2560, 9728, 36, 32)}
)
"""As in `config.json` of Qwen/Qwen3-VL-2B-Instruct and Qwen/Qwen3-VL-4B-Instruct."""

VOCABULARY = 151_936
VISION_LAYERS = 24
DEEPSTACK = (5, 11, 17)
"""Vision layers whose output also goes into the first language layers; both sizes share one vision tower."""


def build_qwen3_vl(
    folder: Path,
    size: PublishedSize = "2b",
    language_layers: int | None = None,
    vision_layers: int | None = None,
    *,
    spec: EmbedderSpec | ReasonerSpec | None = None,
    seed: int = 0,
) -> Path:
    """Write a checkpoint of Qwen3-VL's real widths and random weights, loadable by `from_pretrained`.

    Every matrix has its published size; only depth can be cut. The tokenizer is the project's own small one, so that
    nothing is fetched: it uses the first rows of an embedding matrix of the published size, `<emb>` among them. The
    2B model at full depth takes 4.3 GB on disk and is saved in bfloat16.

    Args:
        folder: Where to write; made when it is missing.
        size: Which published size.
        language_layers: Depth of the language model, 1 or more; None keeps the published depth.
        vision_layers: Depth of the vision tower, 3 or more (three of its layers feed the language model); None keeps
            the published depth.
        spec: Written as `ume.json` when given.
        seed: Of the weights.

    Returns:
        The folder.
    """
    import torch
    from transformers import Qwen3VLForConditionalGeneration

    tokenizer = build_tokenizer("<emb>", samples=300)
    config = _config(tokenizer, SHAPES[size], language_layers, vision_layers)
    torch.manual_seed(seed)
    build: Any = Qwen3VLForConditionalGeneration
    model = build._from_config(config, dtype=torch.bfloat16)  # noqa: SLF001  # the way to random weights in a dtype
    model.generation_config.eos_token_id = tokenizer.eos_token_id
    model.generation_config.pad_token_id = tokenizer.pad_token_id
    folder.mkdir(parents=True, exist_ok=True)
    model.save_pretrained(folder)
    build_processor(tokenizer, None).save_pretrained(folder)
    if spec is not None:
        write_spec(spec, folder)
    return folder


def deepstack_layers(depth: int) -> list[int]:
    """The three vision layers that feed the language model, at the published places of a tower of any depth.

    Example:
        >>> deepstack_layers(24), deepstack_layers(3)
        ([5, 11, 17], [0, 1, 2])
    """
    if depth == VISION_LAYERS:
        return list(DEEPSTACK)
    return [min(depth - 3 + place, depth * layer // VISION_LAYERS) for place, layer in enumerate(DEEPSTACK)]


def _config(tokenizer: Any, shape: Shape, language_layers: int | None, vision_layers: int | None) -> Any:
    depth = vision_layers or VISION_LAYERS
    return build_config(
        tokenizer,
        text={
            "vocab_size": VOCABULARY,
            "hidden_size": shape.hidden,
            "intermediate_size": shape.intermediate,
            "num_hidden_layers": language_layers or shape.layers,
            "num_attention_heads": shape.heads,
            "num_key_value_heads": 8,
            "head_dim": 128,
            "max_position_embeddings": 262_144,
        },
        vision={
            "depth": depth,
            "hidden_size": 1024,
            "intermediate_size": 4096,
            "num_heads": 16,
            "num_position_embeddings": 2304,
            "deepstack_visual_indexes": deepstack_layers(depth),
        },
        rope_theta=5_000_000.0,
        sections=(24, 20, 20),
    )
