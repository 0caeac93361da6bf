"""The parity checkpoints with wider attention heads: the same function, for engines whose kernels need 32 or more.

Rows of zeros widen each head from 16 to 32. The angles of the first half of each head stay: a head twice as wide takes
base ** (-2 i / 32), so the base is squared. The mean square over a head halves with the zeros, so queries and keys are
scaled by sqrt(2) before they are normalised; after it the scale of the scores, 1 / sqrt(32) for 1 / sqrt(16), is set
right in the weights of the norms.
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

HEAD, WIDE = 16, 32


def widen_heads(folder: Path) -> None:
    """Rewrite a checkpoint in place, in float32."""
    from safetensors.torch import load_file, save_file

    weights = {name: value.float() for name, value in load_file(folder / "model.safetensors").items()}
    for name, value in weights.items():
        if ".language_model." not in name or ".self_attn." not in name:
            continue
        if name.endswith(("q_norm.weight", "k_norm.weight")):
            # Normalised numbers come out sqrt(2) larger, in queries and in keys: 2 s^2 / sqrt(32) = 1 / sqrt(16).
            weights[name] = _spread(value * math.sqrt(math.sqrt(32) / 8))
        elif name.endswith(("q_proj.weight", "k_proj.weight")):
            weights[name] = _spread_rows(value * math.sqrt(2))
        elif name.endswith("v_proj.weight"):
            weights[name] = _spread_rows(value)
        elif name.endswith("o_proj.weight"):
            weights[name] = _spread_rows(value.T).T.contiguous()
    save_file(
        {name: value.contiguous() for name, value in weights.items()}, folder / "model.safetensors", {"format": "pt"}
    )
    config: dict[str, Any] = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    text = config["text_config"]
    text["head_dim"] = WIDE
    text["rope_theta"] = text["rope_theta"] ** 2
    time, height, width = text["rope_scaling"]["mrope_section"]
    text["rope_scaling"]["mrope_section"] = [time + WIDE // 2 - HEAD // 2, height, width]
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")


def _spread(head: Any) -> Any:
    """Each half of a head with as many zeros behind it: rotary embedding turns number i with number i + half."""
    import torch

    first, second = head.reshape(2, HEAD // 2)
    zeros = torch.zeros(WIDE // 2 - HEAD // 2)
    return torch.cat((first, zeros, second, zeros))


def _spread_rows(matrix: Any) -> Any:
    import torch

    heads = matrix.reshape(-1, 2, HEAD // 2, matrix.shape[1])
    zeros = torch.zeros(heads.shape[0], 2, WIDE // 2 - HEAD // 2, matrix.shape[1])
    return torch.cat((heads, zeros), dim=2).reshape(-1, matrix.shape[1])
