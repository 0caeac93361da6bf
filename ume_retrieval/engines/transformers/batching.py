"""Batches by token budget: few long inputs, or many short ones."""

from __future__ import annotations

from collections.abc import Sequence


def pack(lengths: Sequence[int], budget: int) -> list[list[int]]:
    """Group inputs that are computed without padding, so that each batch stays within the budget.

    Longest first, so that an input that does not fit in memory shows at once, and inputs of equal length are
    neighbours. An input longer than the budget is a batch of its own.

    Args:
        lengths: Tokens of each input.
        budget: Most tokens of a batch, all inputs together.

    Returns:
        Positions of the inputs, every one exactly once.

    Example:
        >>> pack([10, 90, 12, 11], budget=100)
        [[1], [2, 3, 0]]
    """
    batches: list[list[int]] = []
    room = 0
    for position in _longest_first(lengths):
        if not batches or lengths[position] > room:
            batches.append([])
            room = budget
        batches[-1].append(position)
        room -= lengths[position]
    return batches


def pack_padded(lengths: Sequence[int], budget: int) -> list[list[int]]:
    """The same for inputs that are padded to the longest of their batch.

    Args:
        lengths: Tokens of each input.
        budget: Most tokens of a padded batch: longest length times batch size.

    Returns:
        Positions of the inputs, every one exactly once.

    Example:
        >>> pack_padded([10, 90, 12, 11], budget=30)
        [[1], [2, 3], [0]]
    """
    batches: list[list[int]] = []
    for position in _longest_first(lengths):
        # The first of a batch is its longest, so it sets the padded length.
        if batches and lengths[batches[-1][0]] * (len(batches[-1]) + 1) <= budget:
            batches[-1].append(position)
        else:
            batches.append([position])
    return batches


def _longest_first(lengths: Sequence[int]) -> list[int]:
    return sorted(range(len(lengths)), key=lambda position: (-lengths[position], position))
