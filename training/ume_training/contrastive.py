"""Stage 1 of Embed-RL: symmetric InfoNCE between queries and their items (arXiv 2602.13823, section 4)."""

from __future__ import annotations

from typing import Any

LOGIT_SCALE = 50.0
"""1 / tau with tau = 0.02, the paper's."""


def symmetric_infonce(
    queries: Any, items: Any, also_right: Any, scale: float = LOGIT_SCALE
) -> tuple[Any, dict[str, float]]:
    """Loss of a batch of pairs, each the others' negative.

    Args:
        queries: Unit vectors, shape (n, dim); row i belongs to row i of `items`.
        items: Unit vectors, shape (n, dim).
        also_right: Boolean, shape (n, n): item j answers query i too. The diagonal is ignored. Such pairs are no
            negatives, in either direction.
        scale: Factor on the cosines.

    Returns:
        The loss, and the share of queries whose own item scores highest.

    Example:
        >>> import torch
        >>> eye = torch.eye(3)
        >>> loss, figures = symmetric_infonce(eye, eye, torch.zeros(3, 3, dtype=torch.bool))
        >>> bool(loss < 1e-6), figures["in_batch_hit@1"]
        (True, 1.0)
    """
    import torch

    own = torch.eye(len(queries), dtype=torch.bool, device=queries.device)
    similarity = scale * (queries @ items.T)
    similarity = similarity.masked_fill(also_right & ~own, float("-inf"))
    target = torch.arange(len(queries), device=queries.device)
    loss = torch.nn.functional.cross_entropy(similarity, target)
    loss = (loss + torch.nn.functional.cross_entropy(similarity.T, target)) / 2
    return loss, {"in_batch_hit@1": (similarity.argmax(1) == target).float().mean().item()}


def pool_at_token(hidden: Any, input_ids: Any, token_id: int) -> Any:
    """Unit vectors at the last occurrence of a token.

    Args:
        hidden: Last layer's post-norm states, shape (n, length, dim).
        input_ids: Tokens, shape (n, length).
        token_id: The token to pool at; every row must have it.

    Raises:
        ValueError: When a row lacks the token.
    """
    import torch

    found = input_ids == token_id
    if not bool(found.any(1).all()):
        raise ValueError("an input lacks the token to pool at; it was cut off")
    last = input_ids.shape[1] - 1 - found.flip(1).int().argmax(1)
    pooled = hidden[torch.arange(len(hidden), device=hidden.device), last]
    return torch.nn.functional.normalize(pooled.float(), dim=-1)
