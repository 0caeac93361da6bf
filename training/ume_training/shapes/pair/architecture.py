"""The pair's architecture: Qwen3-VL, as published, a thousand times smaller."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ume_retrieval.checkpoint import PIXELS_PER_TOKEN, EmbedderSpec, Prompts, ReasonerSpec, VisualBudget
from ume_retrieval.profiles import OWN

BUDGET = VisualBudget(
    image_min_pixels=PIXELS_PER_TOKEN,
    image_max_pixels=12 * PIXELS_PER_TOKEN,
    frame_min_pixels=PIXELS_PER_TOKEN,
    frame_max_pixels=9 * PIXELS_PER_TOKEN,
    crop_min_pixels=PIXELS_PER_TOKEN,
    crop_max_pixels=PIXELS_PER_TOKEN,
    video_fps=2.0,
    video_frames=8,
    evidence_images=4,
)
"""A scene is seen at 96 x 96 pixels, one token a cell; a page at 96 x 128; a crop as one token."""

PROMPTS = Prompts(
    version="tiny-1",
    query_text="query:\n{text}",
    query_image="query:\n{text}",
    query_video="query:\n{text}",
    query_text_to_video="query:\n{text}",
    corpus_text="item:\n{text}",
    corpus_image="item:\n{text}",
    corpus_video="item:\n{text}",
)
"""A small model needs a sign for the side, not an explanation."""

REASONER_SPEC = ReasonerSpec(prompts=PROMPTS, budget=BUDGET, max_tokens=160, max_prompt_tokens=2048)
EMBEDDER_SPEC = EmbedderSpec(family="embed-rl", profile=OWN, summary_prompt="summary:", budget=BUDGET, max_tokens=2048)


@dataclass(frozen=True, slots=True)
class Size:
    """Width and depth of the model.

    Attributes:
        hidden: Width of the language model, a multiple of 4 heads.
        layers: Depth of the language model.
        vision_hidden: Width of the vision tower.
        vision_layers: Depth of the vision tower, at least 2.
    """

    hidden: int = 128
    layers: int = 4
    vision_hidden: int = 128
    vision_layers: int = 3


def build_model(tokenizer: Any, size: Size, seed: int) -> Any:
    """Build a `Qwen3VLForConditionalGeneration` with random weights in float32."""
    import torch
    from transformers import Qwen3VLForConditionalGeneration

    heads = 4
    rotary = size.hidden // heads // 2
    config = build_config(
        tokenizer,
        text={
            "vocab_size": len(tokenizer),
            "hidden_size": size.hidden,
            "intermediate_size": 3 * size.hidden,
            "num_hidden_layers": size.layers,
            "num_attention_heads": heads,
            "num_key_value_heads": 2,
            "head_dim": size.hidden // heads,
            "max_position_embeddings": 4096,
        },
        vision={
            "depth": size.vision_layers,
            "hidden_size": size.vision_hidden,
            "intermediate_size": 3 * size.vision_hidden,
            "num_heads": 4,
            "num_position_embeddings": 64,
            "deepstack_visual_indexes": [0, 1],
        },
        rope_theta=10_000.0,
        sections=(rotary - 2 * (rotary // 3), rotary // 3, rotary // 3),
    )
    torch.manual_seed(seed)
    model = Qwen3VLForConditionalGeneration(config)
    model.generation_config.eos_token_id = tokenizer.eos_token_id
    model.generation_config.pad_token_id = tokenizer.pad_token_id
    return model


def build_config(
    tokenizer: Any, *, text: dict[str, Any], vision: dict[str, Any], rope_theta: float, sections: tuple[int, int, int]
) -> Any:
    """Build a `Qwen3VLConfig` with tied embeddings, the published patch sizes and the tokenizer's ids.

    Args:
        tokenizer: Knows the special tokens of pictures and videos.
        text: Sizes of the language model, by the names of `text_config`.
        vision: Sizes of the vision tower, by the names of `vision_config`.
        rope_theta: Base of the rotary positions.
        sections: Rotary dimensions of time, height and width.
    """
    from transformers import Qwen3VLConfig

    token_id = tokenizer.convert_tokens_to_ids
    rope = {"rope_type": "default", "rope_theta": rope_theta, "mrope_section": [*sections], "mrope_interleaved": True}
    ids = {"pad_token_id": tokenizer.pad_token_id, "eos_token_id": tokenizer.eos_token_id}
    patches = {"patch_size": 16, "spatial_merge_size": 2, "temporal_patch_size": 2}
    return Qwen3VLConfig(
        text_config={**text, "tie_word_embeddings": True, "rope_parameters": rope, **ids},
        vision_config={**vision, **patches, "out_hidden_size": text["hidden_size"]},
        image_token_id=token_id("<|image_pad|>"),
        video_token_id=token_id("<|video_pad|>"),
        vision_start_token_id=token_id("<|vision_start|>"),
        vision_end_token_id=token_id("<|vision_end|>"),
        tie_word_embeddings=True,
    )


def build_processor(tokenizer: Any, budget: VisualBudget | None = BUDGET) -> Any:
    """Build a `Qwen3VLProcessor` around the tokenizer.

    Args:
        tokenizer: With a chat template.
        budget: Bounds of a picture in pixels; None keeps the library's own.
    """
    from transformers import Qwen2VLImageProcessor, Qwen3VLProcessor, Qwen3VLVideoProcessor

    pictures: dict[str, Any] = {
        "patch_size": 16,
        "temporal_patch_size": 2,
        "merge_size": 2,
        "image_mean": [0.5] * 3,
        "image_std": [0.5] * 3,
    }
    if budget is not None:
        pictures["size"] = {"shortest_edge": budget.image_min_pixels, "longest_edge": budget.image_max_pixels}
    make: Any = Qwen3VLProcessor
    return make(
        image_processor=Qwen2VLImageProcessor(**pictures),
        tokenizer=tokenizer,
        video_processor=Qwen3VLVideoProcessor(**pictures),
        chat_template=tokenizer.chat_template,
    )
