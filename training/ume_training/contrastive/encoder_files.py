"""Names of the files that hold what was learned; apart from the encoder, so that naming them loads no torch."""

from __future__ import annotations

ADAPTER_FILE = "adapter_model.safetensors"
"""Adapters, as peft calls the file."""

ROW_FILE = "emb_row.safetensors"
"""The pooled token's row of the embedding matrix, if it was trained in addition to adapters."""
