"""From the states of a sequence to one unit vector."""

from __future__ import annotations

from typing import Any


def pool_at_token(hidden: Any, input_ids: Any, token_id: int) -> Any:
    """Unit vectors at the last occurrence of a token.

    Args:
        hidden: Last layer's post-norm states, shape (n, length, dim).
        input_ids: Tokens, shape (n, length).
        token_id: The token to pool at; every row must have it.

    Returns:
        Float32, shape (n, dim), rows of length 1.

    Raises:
        ValueError: When a row lacks the token.
    """
    found = input_ids == token_id
    if not bool(found.any(1).all()):
        raise ValueError("an input lacks the token to pool at; it was cut off")
    return _at_last(hidden, found)


def pool_last(hidden: Any, attention_mask: Any) -> Any:
    """Unit vectors at the last token that is not padding.

    Args:
        hidden: Last layer's post-norm states, shape (n, length, dim).
        attention_mask: 1 for tokens, 0 for padding, shape (n, length); padding on either side.

    Returns:
        Float32, shape (n, dim), rows of length 1.

    Example:
        >>> import torch
        >>> hidden = torch.tensor([[[3.0, 4.0], [1.0, 0.0]]])
        >>> pool_last(hidden, torch.tensor([[1, 0]])).tolist()
        [[0.6000000238418579, 0.800000011920929]]
    """
    return _at_last(hidden, attention_mask == 1)


def _at_last(hidden: Any, wanted: Any) -> Any:
    import torch

    last = wanted.shape[1] - 1 - wanted.flip(1).int().argmax(1)
    pooled = hidden[torch.arange(len(hidden), device=hidden.device), last]
    return torch.nn.functional.normalize(pooled.float(), dim=-1)
