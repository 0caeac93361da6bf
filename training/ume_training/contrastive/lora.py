"""Which weights learn: adapters on the language layers, and never the vision tower unless it is asked for."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Literal

from ume_retrieval.errors import IncompatibleModel, MissingExtra
from ume_training.contrastive.settings import LoraSettings

LANGUAGE_PROJECTIONS = r"(.*\.)?language_model\.layers\.\d+\.(self_attn\.(q|k|v|o)_proj|mlp\.(gate|up|down)_proj)"
"""Full names of the modules that get an adapter. The vision tower is not under `language_model`; the released code
matches by last name alone and so adapts it too."""

VISION = "visual"
"""Name of the vision tower with its mergers in transformers' Qwen3-VL models."""


def add_adapters(model: Any, settings: LoraSettings) -> Any:
    """Freeze a model and put adapters on every projection of its language layers.

    Args:
        model: A Qwen3-VL model.
        settings: Rank, scale and dropout.

    Returns:
        A `PeftModel` whose learned weights are float32.

    Raises:
        MissingExtra: When peft is not installed.
    """
    try:
        from peft import get_peft_model
    except ImportError as error:
        raise MissingExtra("adapters need peft", hint="pip install 'ume-retrieval[train]'") from error
    config = lora_config(settings)
    with quiet_peft():
        adapted = get_peft_model(model, config)
    for parameter in adapted.parameters():
        if parameter.requires_grad:
            # Steps of 1e-4 vanish in bfloat16.
            parameter.data = parameter.data.float()
    return adapted


def lora_config(settings: LoraSettings, **more: Any) -> Any:
    """Build peft's configuration for adapters on the language layers alone.

    Args:
        settings: Rank, scale and dropout.
        more: Further fields of `peft.LoraConfig`.
    """
    from peft import LoraConfig

    build: Any = LoraConfig  # its types allow no fraction as a scale
    return build(
        r=settings.r,
        lora_alpha=settings.alpha,
        lora_dropout=settings.dropout,
        target_modules=LANGUAGE_PROJECTIONS,
        **more,
    )


@contextmanager
def quiet_peft() -> Iterator[None]:
    """Let peft 0.21 ask for a property by the name that transformers 5.23 has deprecated."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="`is_gradient_checkpointing` is deprecated", category=FutureWarning)
        yield


def unfreeze(model: Any, vision_tower: Literal["frozen", "trained"]) -> None:
    """Train all weights that a vector depends on, those of the vision tower only on request.

    Raises:
        IncompatibleModel: If the model lacks a vision tower called `visual`.
    """
    model.requires_grad_(True)
    freeze_vision(model, frozen=vision_tower == "frozen")


def freeze_vision(model: Any, *, frozen: bool = True) -> int:
    """Freeze the vision tower with its mergers, or train it.

    Returns:
        How many parameters it has.

    Raises:
        IncompatibleModel: If the model lacks a vision tower called `visual`.
    """
    tower = [parameter for name, parameter in model.named_parameters() if f".{VISION}." in f".{name}"]
    if not tower:
        raise IncompatibleModel("the model lacks a vision tower called `visual`", hint="start from a Qwen3-VL model")
    for parameter in tower:
        parameter.requires_grad_(not frozen)
    return sum(parameter.numel() for parameter in tower)
