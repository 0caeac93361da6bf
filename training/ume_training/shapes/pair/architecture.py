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
    """A `Qwen3VLForConditionalGeneration` with random weights, float32."""
    import torch
    from transformers import Qwen3VLConfig, Qwen3VLForConditionalGeneration

    heads = 4
    rotary = size.hidden // heads // 2
    token_id = tokenizer.convert_tokens_to_ids
    config = Qwen3VLConfig(
        text_config={
            "vocab_size": len(tokenizer),
            "hidden_size": size.hidden,
            "intermediate_size": 3 * size.hidden,
            "num_hidden_layers": size.layers,
            "num_attention_heads": heads,
            "num_key_value_heads": 2,
            "head_dim": size.hidden // heads,
            "max_position_embeddings": 4096,
            "tie_word_embeddings": True,
            "rope_parameters": {
                "rope_type": "default",
                "rope_theta": 10000.0,
                "mrope_section": [rotary - 2 * (rotary // 3), rotary // 3, rotary // 3],
                "mrope_interleaved": True,
            },
            "pad_token_id": tokenizer.pad_token_id,
            "eos_token_id": tokenizer.eos_token_id,
        },
        vision_config={
            "depth": size.vision_layers,
            "hidden_size": size.vision_hidden,
            "intermediate_size": 3 * size.vision_hidden,
            "num_heads": 4,
            "patch_size": 16,
            "spatial_merge_size": 2,
            "temporal_patch_size": 2,
            "out_hidden_size": size.hidden,
            "num_position_embeddings": 64,
            "deepstack_visual_indexes": [0, 1],
        },
        image_token_id=token_id("<|image_pad|>"),
        video_token_id=token_id("<|video_pad|>"),
        vision_start_token_id=token_id("<|vision_start|>"),
        vision_end_token_id=token_id("<|vision_end|>"),
        tie_word_embeddings=True,
    )
    torch.manual_seed(seed)
    model = Qwen3VLForConditionalGeneration(config)
    model.generation_config.eos_token_id = tokenizer.eos_token_id
    model.generation_config.pad_token_id = tokenizer.pad_token_id
    return model


def build_processor(tokenizer: Any) -> Any:
    """A `Qwen3VLProcessor` around the tokenizer, with the pair's visual budget."""
    from transformers import Qwen2VLImageProcessor, Qwen3VLProcessor, Qwen3VLVideoProcessor

    pictures: dict[str, Any] = {
        "patch_size": 16,
        "temporal_patch_size": 2,
        "merge_size": 2,
        "image_mean": [0.5] * 3,
        "image_std": [0.5] * 3,
        "size": {"shortest_edge": BUDGET.image_min_pixels, "longest_edge": BUDGET.image_max_pixels},
    }
    make: Any = Qwen3VLProcessor
    return make(
        image_processor=Qwen2VLImageProcessor(**pictures),
        tokenizer=tokenizer,
        video_processor=Qwen3VLVideoProcessor(**pictures),
        chat_template=tokenizer.chat_template,
    )
