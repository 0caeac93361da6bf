"""The reward of EG-RL as pure functions of texts and vectors, addressed by position (arXiv 2602.13823, section 3.3).

The reward of a row depends on its text or vector, its side and its pair, never on its position.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ume_retrieval.inputs import Modality, Side
from ume_retrieval.tcot.grammar import parse, validate

Floats = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]


def format_reward(text: str, modality: Modality, *, images: int = 1, frames: int | None = None) -> float:
    """1.0 when a reply is a T-CoT in the form asked for, with the cue that its modality needs, else 0.0.

    Args:
        text: What the Reasoner wrote.
        modality: Of the item: text needs keywords, an image boxes, a video key frames.
        images: How many images the item has; a box on another one breaks the form.
        frames: How many frames were shown; a frame beyond breaks the form.

    Example:
        >>> form = '<thinking>a {"bbox_2d": [40, 40, 293, 293]}</thinking><rethink>yes</rethink><answer>a</answer>'
        >>> format_reward(form, "image"), format_reward(form, "video"), format_reward("a red circle", "text")
        (1.0, 0.0, 0.0)
    """
    tcot = parse(text, images=images, frames=frames)
    return float(not tcot.problems and not validate(tcot, modality))


@dataclass(frozen=True, slots=True)
class Outcome:
    """Outcome rewards of all rollouts.

    Attributes:
        rewards: `accuracy * margin`, shape (n,); 0 for rows without a vector.
        accuracy: Acc@k, the share of a row's k nearest that are rollouts of its own pair, shape (n,), 0..1.
        margin: Mean similarity to those minus the mean to the negatives, shape (n,), -2..2.
    """

    rewards: Floats
    accuracy: Floats
    margin: Floats


def outcome_rewards(
    vectors: npt.ArrayLike,
    sides: Sequence[Side],
    pairs: Sequence[int],
    *,
    exempt: Mask | None = None,
    top: int = 8,
    temperature: float = 0.5,
    weighted: bool = True,
) -> Outcome:
    """Embedder-guided outcome reward: `Acc@k * (sim(e_q, e_t+) - E_tau[sim(e_q, e_t-)])`, for queries and for targets.

    Every rollout is compared with all rollouts of the other side. Positives are those of its own pair; `sim(e_q, e_t+)`
    is the mean over them. `E_tau` is the mean of the negatives' similarities, weighted by softmax(similarity / tau).
    Acc@k takes k or the number of positives, whichever is less, so that it can reach 1; equal similarities share the
    places that they compete for. A row without positives or without negatives gets 0.

    Args:
        vectors: Unit vectors, shape (n, dim). A row of NaN is a rollout that could not be embedded: it gets 0 and is
            neither positive nor negative for others.
        sides: "query" or "corpus", one a row.
        pairs: Number of the pair, one a row.
        exempt: Boolean, shape (n, n): rows that are not negatives of each other because one answers the other.
        top: k.
        temperature: tau, > 0.
        weighted: False takes the plain mean of the negatives, the paper's ablation.

    Returns:
        One value a row, in row order.

    Example:
        >>> vectors, sides = [[1, 0], [0, 1], [1, 0], [0, 1]], ["query", "query", "corpus", "corpus"]
        >>> outcome_rewards(vectors, sides, pairs=[7, 9, 7, 9]).rewards.tolist()
        [1.0, 1.0, 1.0, 1.0]
    """
    matrix = np.asarray(vectors, dtype=np.float64)
    count = len(matrix)
    present = np.asarray(np.isfinite(matrix).all(axis=1))
    similarity = np.nan_to_num(matrix) @ np.nan_to_num(matrix).T
    is_query = np.asarray([side == "query" for side in sides], dtype=bool)
    number = np.asarray(pairs)
    across = (is_query[:, None] != is_query[None, :]) & present[:, None] & present[None, :]
    same = number[:, None] == number[None, :]
    positive = across & same
    negative = across & ~same
    if exempt is not None:
        negative &= ~exempt
    accuracy, margin = np.zeros(count), np.zeros(count)
    for row in range(count):
        right, wrong = similarity[row, positive[row]], similarity[row, negative[row]]
        if len(right) and len(wrong):
            accuracy[row] = _share_of_top(right, wrong, min(top, len(right)))
            margin[row] = right.mean() - _expected(wrong, temperature if weighted else None)
    return Outcome(accuracy * margin, accuracy, margin)


def _share_of_top(right: Floats, wrong: Floats, top: int) -> float:
    """Return the share of the `top` highest that are right, in expectation when equals are put in random order."""
    both = np.sort(np.concatenate([right, wrong]))[::-1]
    last = both[top - 1]
    sure = int((right > last).sum())
    places = top - sure - int((wrong > last).sum())
    level = int((right == last).sum())
    return float((sure + places * level / (level + int((wrong == last).sum()))) / top)


def _expected(similarities: Floats, temperature: float | None) -> float:
    if temperature is None:
        return float(similarities.mean())
    weights = np.exp((similarities - similarities.max()) / temperature)
    return float((weights * similarities).sum() / weights.sum())
