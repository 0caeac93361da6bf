"""Batches by token budget: long inputs travel in small company, short ones in large."""

from __future__ import annotations

from collections.abc import Sequence


def pack(lengths: Sequence[int], budget: int) -> list[list[int]]:
    """Group inputs so that each padded batch stays within the budget.

    Inputs of like length share a batch, longest first, so that little is padded and an input that does not fit
    in memory shows at once. An input longer than the budget travels alone.

    Args:
        lengths: Tokens of each input.
        budget: Most tokens of a padded batch: longest length times batch size.

    Returns:
        Positions of the inputs, every one exactly once.

    Example:
        >>> pack([10, 90, 12, 11], budget=100)
        [[1], [2, 3, 0]]
    """
    order = sorted(range(len(lengths)), key=lambda position: (-lengths[position], position))
    batches: list[list[int]] = []
    for position in order:
        # The first of a batch is its longest, so it sets the padded length.
        if batches and lengths[batches[-1][0]] * (len(batches[-1]) + 1) <= budget:
            batches[-1].append(position)
        else:
            batches.append([position])
    return batches
