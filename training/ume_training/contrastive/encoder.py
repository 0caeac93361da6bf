"""Chunks of inputs to vectors, with gradients, in the memory of one chunk."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch.utils.checkpoint import checkpoint

from ume_training.contrastive.pooling import pool_at_token, pool_last
from ume_training.contrastive.records import ROW_FILE
from ume_training.contrastive.shards import Chunk

PREFIX = "backbone."


class LearnedRow(torch.nn.Module):
    """One row of a frozen embedding matrix that learns, in float32.

    peft's trainable tokens copy the whole matrix in every forward pass and hold the row in the matrix's own number
    type, in which small steps vanish (bfloat16).

    Args:
        embedding: The embedding module; its weight stays as it is.
        token: Which row.
    """

    def __init__(self, embedding: torch.nn.Module, token: int) -> None:
        super().__init__()
        weight = embedding.get_parameter("weight")
        self.token = token
        self.weight = torch.nn.Parameter(weight.data[token].float().clone())
        embedding.register_forward_hook(self._replace)

    def _replace(self, _: torch.nn.Module, args: tuple[torch.Tensor, ...], output: torch.Tensor) -> torch.Tensor:
        return torch.where((args[0] == self.token).unsqueeze(-1), self.weight.to(output.dtype), output)


class Encoder(torch.nn.Module):
    """A Qwen3-VL model with its pooling, as one module: one forward and one backward pass a step, whatever wraps it.

    Of several chunks, none but its vectors is kept: the backward pass computes each chunk once more, with the same
    random numbers (`torch.utils.checkpoint`). That is gradient caching (arXiv 2101.06983) without a second loop, and
    it works under DDP because that sees a single forward pass. One chunk alone is not computed twice.

    Args:
        backbone: A model whose output has `last_hidden_state`, with or without adapters.
        pooled_token: Token to pool at, or None for the last one.
        learn_row: Whether the pooled token's row is trained in addition to the adapters.
    """

    def __init__(self, backbone: Any, pooled_token: int | None, *, learn_row: bool = False) -> None:
        super().__init__()
        self.backbone = backbone
        self.pooled_token = pooled_token
        learns = learn_row and pooled_token is not None
        self.row = LearnedRow(backbone.get_input_embeddings(), int(pooled_token or 0)) if learns else None

    @property
    def dimension(self) -> int:
        """Length of a vector: the width of the language model."""
        return int(self.backbone.config.get_text_config().hidden_size)

    def forward(self, chunks: Sequence[Chunk], places: int) -> torch.Tensor:
        """Embed every input of a step.

        Args:
            chunks: At least one; tensors may still be on the CPU.
            places: Rows of the result.

        Returns:
            Float32, shape (places, dimension): the vector of each place, zeros where no input belongs.
        """
        again = len(chunks) > 1 and torch.is_grad_enabled()
        rows = [
            checkpoint(self.embed, chunk.tensors, use_reentrant=False) if again else self.embed(chunk.tensors)
            for chunk in chunks
        ]
        vectors = torch.cat(rows)
        order = torch.tensor([place for chunk in chunks for place in chunk.places], device=vectors.device)
        result = vectors.new_zeros(places, vectors.shape[1]).index_copy(0, order[order >= 0], vectors[order >= 0])
        # Padding rows still take part, so that every process has a gradient for every weight.
        return result + 0.0 * vectors.sum()

    def embed(self, tensors: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """Unit vectors of one chunk, float32, shape (n, dimension)."""
        device = next(self.backbone.parameters()).device
        batch = {name: value.to(device, non_blocking=True) for name, value in tensors.items()}
        hidden = self.backbone(**batch, use_cache=False).last_hidden_state
        if self.pooled_token is None:
            pooled: torch.Tensor = pool_last(hidden, batch["attention_mask"])
        else:
            pooled = pool_at_token(hidden, batch["input_ids"], self.pooled_token)
        return pooled

    def save(self, folder: Path, state: Mapping[str, torch.Tensor] | None = None) -> None:
        """Write the adapters, or the whole model where there are none.

        Args:
            folder: Made when it is missing.
            state: This module's state as a distributed wrapper gathered it, or None to take its own.
        """
        folder.mkdir(parents=True, exist_ok=True)
        state = self.state_dict() if state is None else state
        inner = {name.removeprefix(PREFIX): value for name, value in state.items() if name.startswith(PREFIX)}
        more = {"save_embedding_layers": False} if hasattr(self.backbone, "peft_config") else {}
        self.backbone.save_pretrained(folder, state_dict=inner, **more)
        # peft writes a card of its own, full of blanks to fill in.
        (folder / "README.md").unlink(missing_ok=True)
        if self.row is not None:
            save_file({"weight": state["row.weight"].detach().cpu()}, folder / ROW_FILE, {"token": str(self.row.token)})

    def restore(self, folder: Path) -> None:
        """Read back what `save` wrote."""
        if self.row is not None:
            self.row.load_state_dict(load_file(folder / ROW_FILE))
        if hasattr(self.backbone, "peft_config"):
            from peft import set_peft_model_state_dict
            from peft.utils import load_peft_weights

            set_peft_model_state_dict(self.backbone, load_peft_weights(str(folder), device="cpu"))
            return
        state: dict[str, torch.Tensor] = {}
        for part in sorted(folder.glob("model*.safetensors")):
            state |= load_file(part)
        self.backbone.load_state_dict(state)
