"""Everything that decides an EG-RL run. Defaults are the paper's (arXiv 2602.13823, section 4 and supplement)."""

from __future__ import annotations

import warnings
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from ume_training.contrastive.settings import LoraSettings

Share = Annotated[float, Field(ge=0, le=1)]
Positive = Annotated[int, Field(gt=0)]


class RewardWeights(BaseModel):
    """How much each part of the reward counts; the paper's 0.05, 0.8 and 0.2."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    format: Annotated[float, Field(ge=0)] = 0.05
    """Of following the form of a T-CoT."""
    process: Annotated[float, Field(ge=0)] = 0.8
    """Of the discriminator's choice; 0 asks no discriminator."""
    outcome: Annotated[float, Field(ge=0)] = 0.2
    """Of what the Embedder makes of the T-CoT; 0 still embeds, because hard negatives are found by embedding."""


class WatchSettings(BaseModel):
    """When a run counts as collapsed. The bounds are ours; the paper names none."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    min_sampled_format: Share = 0.6
    """Least share of sampled replies that follow the form before training starts. A Reasoner whose greedy replies were
    all in form and whose sampled ones were in 28 % lost everything within 40 steps."""
    sampled_replies: Positive = 64
    """How many replies that check samples."""
    min_format: Share = 0.3
    """Least mean format reward during training."""
    max_kl: Annotated[float, Field(gt=0)] = 5.0
    """Most mean KL divergence from the start, in nats a token."""
    min_entropy: Annotated[float, Field(ge=0)] = 0.0
    """Least mean entropy in nats a token; 0 does not look."""
    patience: Positive = 3
    """Steps in a row outside a bound before the run is stopped."""


class EgrlSettings(BaseModel):
    """Settings of EG-RL."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    reasoner: str = "qwen3-vl-8b"
    """The policy at its start: preset, hub id or folder."""
    embedder: str = "embed-rl-2b"
    """The frozen Embedder that gives the outcome reward: preset, hub id or folder."""
    discriminator: str = "qwen3-vl-8b"
    """Who gives the process reward: "words" (a count of words in common, for Shapes), or a Reasoner that is asked."""
    discriminator_engine: Literal["transformers", "vllm", "server"] = "transformers"
    """Engine of the discriminator; "server" reads its address from `UME_REASONER_URL`, its key from `UME_API_KEY`."""
    rollouts: Annotated[int, Field(ge=2)] = 8
    """G: T-CoTs sampled for each side of a pair."""
    pairs: Annotated[int, Field(ge=2)] = 128
    """Pairs of a step, over all processes. The paper's batch of 256 is read as 128 pairs of two prompts."""
    micro_batch: Positive = 8
    """Rollouts in one forward and backward pass of one process. It divides pairs x 2 x rollouts / processes."""
    steps: Positive | None = None
    """Optimizer steps; None is one epoch."""
    epochs: Positive = 1
    """Passes over the data when `steps` is None."""
    learning_rate: Annotated[float, Field(gt=0)] = 3e-6
    """Peak of AdamW's learning rate."""
    schedule: Literal["constant", "linear", "cosine"] = "cosine"
    """Decay of the learning rate after warm-up."""
    warmup_steps: Annotated[int, Field(ge=0)] = 0
    """Steps of linear warm-up."""
    max_grad_norm: Annotated[float, Field(gt=0)] = 1.0
    """Gradients are clipped to this norm."""
    epsilon: Annotated[float, Field(gt=0, lt=1)] = 0.2
    """GRPO's clip of the probability ratio."""
    kl: Annotated[float, Field(ge=0)] = 0.01
    """Weight of the KL divergence from the start; 0 keeps no reference model."""
    temperature: Annotated[float, Field(gt=0)] = 1.0
    """Of sampling."""
    max_tokens: Positive = 1024
    """Most tokens of a T-CoT; a longer one is cut and fails the form."""
    weights: RewardWeights = RewardWeights()
    """Weights of the reward's parts."""
    top: Positive = 8
    """k of Acc@k in the outcome reward."""
    negative_temperature: Annotated[float, Field(gt=0)] = 0.5
    """Temperature of the softmax that weighs in-batch negatives by their similarity."""
    weighted_negatives: bool = True
    """False takes the plain mean of negatives, as in the paper's ablation."""
    hard_negatives: Annotated[int, Field(ge=1)] = 8
    """Most rollouts of other pairs among the discriminator's candidates, the most similar first."""
    lora: LoraSettings | None = None
    """Adapters instead of full fine-tuning. Full fine-tuning holds a second copy of the model when `kl` > 0."""
    freeze_vision: bool = True
    """Leave the vision tower as it is (LoRA never touches it)."""
    gradient_checkpointing: bool = False
    """Recompute activations in the backward pass: less memory, about a third more time."""
    dtype: Literal["auto", "float32", "bfloat16"] = "auto"
    """"auto" is bfloat16 on a GPU and float32 elsewhere."""
    generation: Literal["transformers", "vllm", "vllm-server"] = "transformers"
    """Who samples: the model itself, vLLM in the same process, or `trl vllm-serve` at `server`. vLLM takes text and
    images; pairs with videos need "transformers"."""
    server: str = "http://127.0.0.1:8000"
    """Where the vLLM server is, for generation="vllm-server"."""
    vllm_memory: Annotated[float, Field(gt=0, le=1)] = 0.3
    """Share of the GPU's memory that vLLM takes, for generation="vllm"."""
    watch: WatchSettings = WatchSettings()
    """When to stop."""
    save_every: Positive = 50
    """Steps between checkpoints."""
    samples_every: Positive = 10
    """Steps between files of sample rollouts."""
    seed: int = 0
    """Of sampling, order and shuffles."""


def __getattr__(name: str) -> object:
    if name == "EgrlLora":
        warnings.warn("EgrlLora is LoraSettings now", DeprecationWarning, stacklevel=2)
        return LoraSettings
    raise AttributeError(name)
