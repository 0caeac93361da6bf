"""Everything that decides what contrastive training makes of a model. Defaults are the paper's 2B run."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from ume_retrieval.checkpoint import EmbedderSpec

Share = Annotated[float, Field(ge=0.0, le=1.0)]
Positive = Annotated[int, Field(gt=0)]

FREE_TO_CHANGE = frozenset({"workers", "log_every", "checkpoint_every", "mini_batch", "on_error"})
"""Settings that may differ when a run goes on: none of them decides what is learned from a whole pair."""


class LoraSettings(BaseModel):
    """Low-rank adapters on every projection of the language layers; the vision tower gets none."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    r: Positive = 64
    """Rank. arXiv 2602.13823, section 4: 64 for the 2B model, 96 for the 4B model."""
    alpha: Annotated[float, Field(gt=0)] = 128.0
    """The update is scaled by alpha / r. arXiv 2602.13823, section 4: 128 (2B), 192 (4B)."""
    dropout: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.0
    """Share of an adapter's inputs that is dropped. The paper names none; 0 is peft's default."""


class ContrastiveSettings(BaseModel):
    """How the Embedder is trained (arXiv 2602.13823, section 4).

    Example:
        >>> ContrastiveSettings(embedder="qwen3-vl-embedding-2b", batch=64, sub_batch=32).negatives
        0
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    embedder: str
    """Where training starts: a folder, a preset or a hub id. A plain Qwen3-VL model becomes an embed-rl Embedder."""
    spec: EmbedderSpec | None = None
    """How the Embedder wants its input: family, prompts, visual budget; None takes what the start says of itself."""
    batch: Positive = 512
    """Pairs of an optimizer step over all processes. Paper: 512 (2B), 256 (4B)."""
    sub_batch: Positive = 256
    """Pairs that are each other's negatives, all of one data set; `batch` is a multiple. Paper: 256 (2B), 128 (4B)."""
    mini_batch: Positive = 8
    """Inputs that pass through the model at once (gradient caching, arXiv 2101.06983): memory, not learning. The paper
    names none; lower it when memory runs out."""
    epochs: Annotated[float, Field(gt=0)] = 2.0
    """Passes over the data; `steps` overrides it. Paper: 2."""
    steps: Positive | None = None
    """Optimizer steps, or None for `epochs` passes."""
    learning_rate: Annotated[float, Field(gt=0)] = 1e-4
    """Peak learning rate of AdamW. Paper: 1e-4."""
    warmup_steps: Annotated[int, Field(ge=0)] = 10
    """Steps of linear warm-up. Paper: 10."""
    weight_decay: Annotated[float, Field(ge=0)] = 0.01
    """Of AdamW. Paper: 0.01."""
    schedule: Literal["cosine", "linear", "constant"] = "cosine"
    """How the learning rate falls after warm-up. Paper: cosine."""
    max_grad_norm: Annotated[float, Field(gt=0)] = 1.0
    """Longer gradients are shortened to this norm. The paper names none; 1 is the trainer's default."""
    logit_scale: Annotated[float, Field(gt=0)] = 50.0
    """Factor on the cosines, 1 / tau. Paper: 50 (tau 0.02)."""
    trace_share: Share = 0.5
    """Share of sub-batches whose inputs carry their T-CoT with its crops and frames; the others are direct, so that
    direct vectors stay good. The paper trains with T-CoTs alone (1.0); one half is this project's choice, because it
    serves both vectors."""
    negatives: Annotated[int, Field(ge=0)] = 0
    """Hard negatives a pair, of those that the data has; 0 for none. The paper names none for this stage."""
    matryoshka_dims: tuple[Positive, ...] = ()
    """First components that are trained to work alone; the whole vector is always trained. Paper: none."""
    lora: LoraSettings | None = LoraSettings()
    """Adapters, or None to train all weights of the language model. Paper: adapters."""
    vision_tower: Literal["frozen", "trained"] = "frozen"
    """Whether the vision tower and its mergers learn; "trained" needs `lora: null`. Paper: frozen."""
    dtype: Literal["auto", "float32", "bfloat16"] = "auto"
    """Number type of the forward pass: "auto" is bfloat16 on a GPU, float32 elsewhere. What is trained is always kept
    in float32. Paper: bfloat16."""
    checkpoint_every: Positive = 100
    """Steps between checkpoints, from which a killed run goes on."""
    log_every: Positive = 10
    """Steps between lines of `log.jsonl`."""
    seed: int = 0
    """Of the order of the data, of which sub-batches carry T-CoTs, and of new weights."""
    workers: Annotated[int, Field(ge=0)] = 2
    """Processes that load pairs ahead, for each training process; 0 loads in the training process itself."""
    on_error: Literal["skip", "stop"] = "skip"
    """Skip a broken pair and list it in `skipped.jsonl`, or stop the run."""

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        if self.batch % self.sub_batch:
            raise ValueError(f"batch ({self.batch}) is not a multiple of sub_batch ({self.sub_batch})")
        if self.sub_batch < 2:
            raise ValueError("sub_batch must be at least 2: a pair needs another one as its negative")
        if self.lora is not None and self.vision_tower == "trained":
            raise ValueError("adapters leave the vision tower alone; vision_tower='trained' needs lora: null")
        return self
