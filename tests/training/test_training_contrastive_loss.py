from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from ume_training.contrastive import matryoshka_infonce, pool_at_token, pool_last, symmetric_infonce


def unit(rows: int, seed: int, dim: int = 6) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.nn.functional.normalize(torch.randn(rows, dim, generator=generator), dim=-1)


def slow_loss(
    queries: np.ndarray,
    items: np.ndarray,
    also: np.ndarray,
    *,
    negatives: np.ndarray,
    negative_mask: np.ndarray,
    scale: float,
) -> float:
    """The same, one number at a time."""
    total = 0.0
    n = len(queries)
    for i in range(n):
        against = [math.exp(scale * queries[i] @ items[j]) for j in range(n) if j == i or not also[i, j]]
        against += [
            math.exp(scale * queries[i] @ negatives[j]) for j in range(len(negatives)) if not negative_mask[i, j]
        ]
        total -= math.log(math.exp(scale * queries[i] @ items[i]) / sum(against))
        against = [math.exp(scale * queries[j] @ items[i]) for j in range(n) if j == i or not also[j, i]]
        total -= math.log(math.exp(scale * queries[i] @ items[i]) / sum(against))
    return total / (2 * n)


@given(
    n=st.integers(2, 5),
    m=st.integers(0, 4),
    seed=st.integers(0, 10**6),
    scale=st.floats(0.5, 20),
)
def test_the_loss_equals_a_slow_reference(n: int, m: int, seed: int, scale: float) -> None:
    generator = torch.Generator().manual_seed(seed)
    queries, items, negatives = unit(n, seed), unit(n, seed + 1), unit(m, seed + 2)
    also = torch.rand(n, n, generator=generator) < 0.3
    negative_mask = torch.rand(n, m, generator=generator) < 0.3
    loss, _ = symmetric_infonce(queries, items, also, scale, negatives=negatives, negative_mask=negative_mask)
    expected = slow_loss(
        *(one.double().numpy() for one in (queries, items)),
        also.numpy(),
        negatives=negatives.double().numpy(),
        negative_mask=negative_mask.numpy(),
        scale=scale,
    )
    assert loss.item() == pytest.approx(expected, rel=1e-4, abs=1e-5)


def test_a_hard_negative_costs_and_a_barred_one_does_not() -> None:
    queries, nothing = unit(3, 0), torch.zeros(3, 3, dtype=torch.bool)
    plain, _ = symmetric_infonce(queries, queries, nothing)
    hard, figures = symmetric_infonce(queries, queries, nothing, negatives=queries[:1])
    negative_mask, _ = symmetric_infonce(
        queries, queries, nothing, negatives=queries[:1], negative_mask=torch.ones(3, 1, dtype=torch.bool)
    )
    assert hard > plain + 0.1
    assert figures["in_batch_hit@1"] == 1.0
    assert negative_mask.item() == pytest.approx(plain.item(), abs=1e-6)


def test_matryoshka_is_the_mean_over_cut_and_renormalised_vectors() -> None:
    queries, items, nothing = unit(4, 1), unit(4, 2), torch.zeros(4, 4, dtype=torch.bool)
    alone = []
    for dim in (2, 3, 6):
        cut = (torch.nn.functional.normalize(rows[:, :dim], dim=-1) for rows in (queries, items))
        alone.append(symmetric_infonce(*cut, nothing)[0].item())
    together, figures = matryoshka_infonce(queries, items, nothing, dims=(3, 2))
    assert together.item() == pytest.approx(np.mean(alone), rel=1e-5)
    assert figures == symmetric_infonce(queries, items, nothing)[1]
    with pytest.raises(ValueError, match="cannot be cut to 7"):
        matryoshka_infonce(queries, items, nothing, dims=(7,))


def test_pooling_finds_the_last_token_on_either_side_of_padding() -> None:
    hidden = torch.randn(2, 4, 5)
    mask = torch.tensor([[1, 1, 0, 0], [0, 0, 1, 1]])
    pooled = pool_last(hidden, mask)
    torch.testing.assert_close(pooled[0], torch.nn.functional.normalize(hidden[0, 1], dim=-1))
    torch.testing.assert_close(pooled[1], torch.nn.functional.normalize(hidden[1, 3], dim=-1))
    ids = torch.tensor([[7, 9, 9, 1], [9, 1, 1, 1]])
    torch.testing.assert_close(
        pool_at_token(hidden, ids, 9)[:, 0],
        torch.nn.functional.normalize(torch.stack([hidden[0, 2], hidden[1, 0]]), dim=-1)[:, 0],
    )
