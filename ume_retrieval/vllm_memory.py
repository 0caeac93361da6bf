"""How much memory a vLLM engine takes, so that a Reasoner and an Embedder fit beside each other by themselves."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Literal

from ume_retrieval.memory import machine_bytes

if TYPE_CHECKING:
    import torch

POOLED_TOKENS = 32_768
"""Tokens of keys and values that an Embedder keeps: it embeds in one pass, so what is in flight is all it needs."""

CPU_SEQUENCES = 64
"""Longest sequences whose keys and values a Reasoner on a CPU keeps, memory permitting."""

CPU_SHARE = 0.25
"""Most of a machine's memory for keys and values."""

GPU_SHARE = 0.9
"""Most of what is free on a GPU when an engine starts; the rest is for kernels and fragments."""


def cache_bytes_per_token(config: Any, itemsize: int) -> int:
    """Bytes that keys and values of one token take in all layers.

    Args:
        config: The model's transformers config.
        itemsize: Bytes of a number.

    Example:
        >>> from transformers import Qwen3VLConfig
        >>> text = {"num_hidden_layers": 28, "num_key_value_heads": 8, "head_dim": 128}  # Qwen3-VL-2B
        >>> cache_bytes_per_token(Qwen3VLConfig(text_config=text), 2)
        114688
    """
    text = config.get_text_config()
    heads = getattr(text, "num_key_value_heads", None) or text.num_attention_heads
    width = getattr(text, "head_dim", None) or text.hidden_size // text.num_attention_heads
    return int(2 * text.num_hidden_layers * heads * width * itemsize)


def memory_settings(
    config: Any,
    device: torch.device,
    dtype: torch.dtype,
    *,
    runner: Literal["generate", "pooling"],
    max_tokens: int,
) -> dict[str, Any]:
    """Settings of memory for vLLM.

    An Embedder takes its weights and a small fixed cache. A Reasoner on a GPU takes what is then left, since its speed
    grows with its cache: load the Embedder first, as `ReasoningEmbedder.from_pretrained` does.

    Args:
        config: The model's transformers config.
        device: Where it runs.
        dtype: In which numbers.
        runner: What the engine does.
        max_tokens: Longest prompt with its reply.
    """
    per_token = cache_bytes_per_token(config, dtype.itemsize)
    # vLLM deals its cache out in blocks of at most 128 tokens; the longest sequence has to fit, with one to spare.
    longest = math.ceil(max_tokens / 128 + 1) * 128
    pooled = max(POOLED_TOKENS, 2 * longest) * per_token
    if device.type != "cuda":
        wanted = pooled if runner == "pooling" else CPU_SEQUENCES * longest * per_token
        least, most = longest * per_token, int(CPU_SHARE * _machine_bytes())
        return {"kv_cache_memory_bytes": max(least, min(wanted, most))}
    import torch

    free, total = torch.cuda.mem_get_info(device)
    settings: dict[str, Any] = {"gpu_memory_utilization": round(GPU_SHARE * free / total, 3)}
    return settings | ({"kv_cache_memory_bytes": pooled} if runner == "pooling" else {})


def _machine_bytes() -> int:
    return machine_bytes() or 0
