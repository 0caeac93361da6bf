"""How much memory a stage takes on one process, estimated from the model's numbers.

The estimate counts what grows with model and batch, and leaves out what does not: the CUDA context (about 0.5 GB), the
allocator's gaps and kernels' workspaces. `plan` therefore asks for `HEADROOM` on top. It has not been fitted to
measurements.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

from ume_training.recipes.planning.sizes import Architecture

GB = 10**9
HEADROOM = 1.15
"""Factor on an estimate for the memory that a GPU must have."""

ADAM_BYTES = 8
"""Two float32 moments a trained parameter."""


@dataclass(frozen=True, slots=True)
class Memory:
    """Memory of one process in bytes, by use.

    Attributes:
        weights: The model that is trained.
        gradients: Of what is trained.
        optimizer: AdamW's moments.
        activations: Kept between forward and backward pass of one micro-batch.
        logits: Scores over the vocabulary with their gradient.
        other_models: Frozen models: reference, Embedder, discriminator.
        kv_cache: Of the rollouts that are generated at once.
    """

    weights: int = 0
    gradients: int = 0
    optimizer: int = 0
    activations: int = 0
    logits: int = 0
    other_models: int = 0
    kv_cache: int = 0

    @property
    def total(self) -> int:
        """Peak memory: activations and KV cache are never allocated at the same time.

        Example:
            >>> Memory(weights=10, activations=3, logits=2, kv_cache=4).total
            15
        """
        steady = self.weights + self.gradients + self.optimizer + self.other_models
        return steady + max(self.activations + self.logits, self.kv_cache)

    def to_dict(self) -> dict[str, float]:
        """In GB (10^9 bytes), with the total."""
        parts = {field.name: round(getattr(self, field.name) / GB, 2) for field in fields(self)}
        return {**parts, "total": round(self.total / GB, 2)}


def weights(model: Architecture, *, number_bytes: int, rank: int | None) -> int:
    """Estimate the weights at `number_bytes` each; adapters of LoRA are float32."""
    return model.parameters * number_bytes + (4 * model.adapters(rank) if rank else 0)


def trained(model: Architecture, *, rank: int | None, vision: bool) -> int:
    """Count the parameters that are trained: adapters, or the language model, with or without the vision tower."""
    if rank:
        return model.adapters(rank)
    return model.parameters if vision else model.language


def activations(model: Architecture, *, tokens: int, number_bytes: int, checkpointing: bool) -> int:
    """Estimate the bytes that the language layers keep for the backward pass of `tokens` tokens.

    A layer keeps, a token: 4 x hidden (inputs of two norms, of attention and of the MLP), queries, keys and values
    before and after rotation, attention's output, and 4 x intermediate (gate, up, activation, product). Attention
    itself is taken to keep nothing per pair of tokens (SDPA's fused kernels). With checkpointing every layer keeps its
    input and one layer at a time keeps the rest. The vision tower is frozen and keeps nothing.
    """
    projections = (model.heads + 2 * model.kv_heads) * model.head_dim
    a_layer = 4 * model.hidden + 2 * projections + model.heads * model.head_dim + 4 * model.intermediate
    kept = model.layers * model.hidden + a_layer if checkpointing else model.layers * a_layer
    return tokens * number_bytes * kept


def training(
    model: Architecture,
    learns: int,
    *,
    weight_bytes: int,
    number_bytes: int,
    tokens: int,
    rank: int | None = None,
    shards: int = 1,
    checkpointing: bool = False,
) -> Memory:
    """Estimate weights, gradients, optimizer and activations of a training step.

    Args:
        model: The trained model.
        learns: Its trained parameters.
        weight_bytes: Bytes per weight.
        number_bytes: Bytes per number of the forward pass.
        tokens: Tokens of one micro-batch.
        rank: Of LoRA's adapters, or None without.
        shards: Processes over which gradients and optimizer are divided.
        checkpointing: Whether activations are computed again in the backward pass.
    """
    return Memory(
        weights=weights(model, number_bytes=weight_bytes, rank=rank),
        gradients=4 * learns // shards,
        optimizer=ADAM_BYTES * learns // shards,
        activations=activations(model, tokens=tokens, number_bytes=number_bytes, checkpointing=checkpointing),
    )


def logits(model: Architecture, *, tokens: int) -> int:
    """Estimate the scores over the vocabulary in float32 and their gradient, for the tokens that are scored."""
    return tokens * model.vocabulary * 4 * 2


def kv_cache(model: Architecture, *, sequences: int, tokens: int, number_bytes: int) -> int:
    """Keys and values of sequences that are generated at once, at their full length."""
    return sequences * tokens * model.kv_bytes_per_token(number_bytes)
