"""Symmetric InfoNCE between queries and their items (arXiv 2602.13823, section 4)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

LOGIT_SCALE = 50.0
"""1 / tau with tau = 0.02, the paper's."""


def symmetric_infonce(
    queries: Any,
    items: Any,
    also_right: Any,
    scale: float = LOGIT_SCALE,
    *,
    negatives: Any | None = None,
    negative_mask: Any | None = None,
) -> tuple[Any, dict[str, float]]:
    """Loss of a batch of pairs, each the others' negative.

    Args:
        queries: Unit vectors, shape (n, dim); row i belongs to row i of `items`.
        items: Unit vectors, shape (n, dim).
        also_right: Boolean, shape (n, n): item j answers query i too. The diagonal is ignored. Such
            pairs are masked out as negatives, in both directions.
        scale: Factor on the cosines.
        negatives: Unit vectors of hard negatives, shape (m, dim): further columns for every query, or None. They have
            no queries of their own, so that they count in one direction only.
        negative_mask: Boolean, shape (n, m): hard negative j is masked out for query i; None masks none.

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
    columns = similarity
    if negatives is not None and len(negatives):
        further = scale * (queries @ negatives.T)
        if negative_mask is not None:
            further = further.masked_fill(negative_mask, float("-inf"))
        columns = torch.cat([similarity, further], dim=1)
    loss = torch.nn.functional.cross_entropy(columns, target)
    loss = (loss + torch.nn.functional.cross_entropy(similarity.T, target)) / 2
    return loss, {"in_batch_hit@1": (columns.argmax(1) == target).float().mean().item()}


def matryoshka_infonce(
    queries: Any,
    items: Any,
    also_right: Any,
    scale: float = LOGIT_SCALE,
    *,
    dims: Sequence[int] = (),
    negatives: Any | None = None,
    negative_mask: Any | None = None,
) -> tuple[Any, dict[str, float]]:
    """Average `symmetric_infonce` over the first components of the vectors, each cut normalised to unit length.

    `dims` are the numbers of components that the cuts keep, 1..dim; the whole vector always counts as one more. Other
    arguments are those of `symmetric_infonce`, and the figures are those of the whole vectors.

    Raises:
        ValueError: When a cut keeps more components than there are.
    """
    import torch

    full = queries.shape[1]
    if dims and max(dims) > full:
        raise ValueError(f"a vector of {full} components cannot be cut to {max(dims)}")
    losses = []
    figures: dict[str, float] = {}
    for dim in sorted({*dims, full}):
        cut = [
            None if rows is None else torch.nn.functional.normalize(rows[:, :dim], dim=-1)
            for rows in (queries, items, negatives)
        ]
        loss, figures = symmetric_infonce(
            cut[0], cut[1], also_right, scale, negatives=cut[2], negative_mask=negative_mask
        )
        losses.append(loss)
    return torch.stack(losses).mean(), figures
