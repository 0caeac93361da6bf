"""The published architecture without its weights: Qwen3-VL-2B, cut in depth, through the same `from_pretrained`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from ume_retrieval import EmbedderSpec, LoadedItem, ReasonerSpec, ReasoningEmbedder
from ume_retrieval.checkpoint import write_spec
from ume_retrieval.tcot import DEFAULT_PROMPTS
from ume_training.shapes.pair.architecture import BUDGET
from ume_training.shapes.pair.tokenizer import build_tokenizer

DIMENSION = 2048


def make_pair(folder: Path, vocabulary: int) -> Path:
    """Qwen3-VL-2B's widths (config of Qwen/Qwen3-VL-2B-Instruct), 2 of 28 and 3 of 24 layers, random weights."""
    import torch
    from transformers import (
        Qwen2VLImageProcessor,
        Qwen3VLConfig,
        Qwen3VLForConditionalGeneration,
        Qwen3VLProcessor,
        Qwen3VLVideoProcessor,
    )

    tokenizer = build_tokenizer("<emb>", samples=200)
    ids = tokenizer.convert_tokens_to_ids
    config = Qwen3VLConfig(
        text_config={
            "vocab_size": vocabulary,
            "hidden_size": DIMENSION,
            "intermediate_size": 6144,
            "num_hidden_layers": 2,
            "num_attention_heads": 16,
            "num_key_value_heads": 8,
            "head_dim": 128,
            "max_position_embeddings": 262144,
            "tie_word_embeddings": True,
            "rope_parameters": {
                "rope_type": "default",
                "rope_theta": 5000000.0,
                "mrope_section": [24, 20, 20],
                "mrope_interleaved": True,
            },
            "pad_token_id": tokenizer.pad_token_id,
            "eos_token_id": tokenizer.eos_token_id,
        },
        vision_config={
            "depth": 3,
            "hidden_size": 1024,
            "intermediate_size": 4096,
            "num_heads": 16,
            "patch_size": 16,
            "spatial_merge_size": 2,
            "temporal_patch_size": 2,
            "out_hidden_size": DIMENSION,
            "num_position_embeddings": 2304,
            "deepstack_visual_indexes": [0, 1],
        },
        image_token_id=ids("<|image_pad|>"),
        video_token_id=ids("<|video_pad|>"),
        vision_start_token_id=ids("<|vision_start|>"),
        vision_end_token_id=ids("<|vision_end|>"),
        tie_word_embeddings=True,
    )
    torch.manual_seed(0)
    model = Qwen3VLForConditionalGeneration(config).to(torch.bfloat16)
    processor = Qwen3VLProcessor(
        image_processor=Qwen2VLImageProcessor(patch_size=16, merge_size=2),
        tokenizer=tokenizer,
        video_processor=Qwen3VLVideoProcessor(patch_size=16, merge_size=2),
        chat_template=tokenizer.chat_template,
    )
    for name, spec in (
        ("embedder", EmbedderSpec(family="embed-rl")),
        ("reasoner", ReasonerSpec(prompts=DEFAULT_PROMPTS, max_tokens=8)),
    ):
        model.save_pretrained(folder / name)
        processor.save_pretrained(folder / name)
        write_spec(spec, folder / name)
    return folder


def check(folder: Path, items: list[LoadedItem]) -> None:
    pair = ReasoningEmbedder.from_pretrained(folder, device="cpu", dtype="bfloat16", cache=None)
    assert pair.dimension == DIMENSION
    assert pair.embedder.spec.budget == EmbedderSpec(family="embed-rl").budget != BUDGET
    direct = pair.encode_corpus(items, reasoning="never")
    assert direct.shape == (len(items), DIMENSION)
    np.testing.assert_allclose(np.linalg.norm(direct, axis=1), 1.0, atol=1e-3)
    assert pair.reasoner is not None
    # Random weights write noise; what counts is that the whole way is walked and the noise is named.
    reasoned = pair.encode_corpus(items, strict=False, return_traces=True)
    assert reasoned.usage.reasoner_calls == len(items)
    failed = {failure.index for failure in reasoned.failures}
    for index, vector in enumerate(reasoned.vectors):
        assert np.isnan(vector).all() if index in failed else np.linalg.norm(vector) == pytest.approx(1.0, abs=1e-3)


def test_the_2b_architecture_walks_the_whole_way(
    tmp_path: Path, shapes_items: Callable[[int], list[LoadedItem]]
) -> None:
    items = shapes_items(1)
    chosen = [next(i for i in items if i.modality == kind) for kind in ("text", "image", "video")]
    check(make_pair(tmp_path, vocabulary=2048), chosen)


@pytest.mark.slow
def test_the_2b_architecture_with_its_whole_vocabulary(
    tmp_path: Path, shapes_items: Callable[[int], list[LoadedItem]]
) -> None:
    items = shapes_items(1)
    check(make_pair(tmp_path, vocabulary=151_936), [next(i for i in items if i.modality == "image")])
