"""Models for the benchmarks: the bundled pair, and a random Qwen3-VL of middle size where weights do not matter."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

from ume_retrieval.checkpoint import PIXELS_PER_TOKEN, EmbedderSpec, VisualBudget, read_spec, write_spec
from ume_retrieval.engines.registry import resolve_embedder
from ume_training.export.stock import add_stock_modules
from ume_training.shapes.pair.architecture import build_processor
from ume_training.shapes.pair.tokenizer import build_tokenizer

MIDDLE_BUDGET = VisualBudget(
    image_min_pixels=4 * PIXELS_PER_TOKEN,
    image_max_pixels=100 * PIXELS_PER_TOKEN,
    frame_min_pixels=4 * PIXELS_PER_TOKEN,
    frame_max_pixels=36 * PIXELS_PER_TOKEN,
)


def tiny_embedder(folder: Path) -> Path:
    """The bundled Embedder, with the files by which sentence-transformers loads it."""
    shutil.copytree(resolve_embedder("ume-tiny").model, folder)
    return with_stock_modules(folder)


def middle_embedder(folder: Path) -> Path:
    """A Qwen3-VL Embedder with 12 layers of width 512 and 8 of vision, and random weights."""
    import torch
    from transformers import Qwen3VLConfig, Qwen3VLForConditionalGeneration

    tokenizer = build_tokenizer("<emb>", samples=500)
    ids = tokenizer.convert_tokens_to_ids
    config = Qwen3VLConfig(
        text_config={
            "vocab_size": len(tokenizer),
            "hidden_size": 512,
            "intermediate_size": 1536,
            "num_hidden_layers": 12,
            "num_attention_heads": 8,
            "num_key_value_heads": 4,
            "head_dim": 64,
            "max_position_embeddings": 32768,
            "tie_word_embeddings": True,
            "rope_parameters": {
                "rope_type": "default",
                "rope_theta": 5000000.0,
                "mrope_section": [12, 10, 10],
                "mrope_interleaved": True,
            },
            "pad_token_id": tokenizer.pad_token_id,
            "eos_token_id": tokenizer.eos_token_id,
        },
        vision_config={
            "depth": 8,
            "hidden_size": 384,
            "intermediate_size": 1536,
            "num_heads": 6,
            "patch_size": 16,
            "spatial_merge_size": 2,
            "temporal_patch_size": 2,
            "out_hidden_size": 512,
            "num_position_embeddings": 2304,
            "deepstack_visual_indexes": [1, 3, 5],
        },
        image_token_id=ids("<|image_pad|>"),
        video_token_id=ids("<|video_pad|>"),
        vision_start_token_id=ids("<|vision_start|>"),
        vision_end_token_id=ids("<|vision_end|>"),
        tie_word_embeddings=True,
    )
    torch.manual_seed(0)
    Qwen3VLForConditionalGeneration(config).save_pretrained(folder)
    build_processor(tokenizer).save_pretrained(folder)
    write_spec(EmbedderSpec(family="embed-rl", budget=MIDDLE_BUDGET), folder)
    return with_stock_modules(folder)


def parameters(model: Any) -> int:
    """How many weights a model has."""
    return sum(weight.numel() for weight in model.parameters())


def with_stock_modules(folder: Path) -> Path:
    """Add the files by which sentence-transformers loads an Embedder."""
    spec = read_spec(folder)
    assert isinstance(spec, EmbedderSpec)  # noqa: S101
    add_stock_modules(folder, spec)
    # Pictures are fitted before anything is timed, the same for all; nobody resizes them again.
    path = folder / "sentence_bert_config.json"
    settings = json.loads(path.read_text())
    settings["processing_kwargs"]["image"]["do_resize"] = False
    settings["processing_kwargs"]["video"] = {
        "do_resize": False,
        "do_sample_frames": False,
        "cap_pixels_per_frame": False,
    }
    path.write_text(json.dumps(settings))
    return folder
