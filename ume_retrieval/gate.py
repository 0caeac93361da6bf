"""A gate that decides per query whether to reason, from features of the direct search.

A direct search costs one pass of the Embedder, a reasoned one some hundred tokens of the Reasoner. Where both would put
the same item first, the tokens buy nothing. The gate learns from queries for which both were run: its labels may be the
answers, or only whether the two searches agree, so that unlabelled queries do.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from ume_retrieval.errors import InputError, MissingExtra
from ume_retrieval.util.files import atomic_write
from ume_retrieval.util.json_text import parse_json

SHOWN: Final = 10
"""Hits of each direct search that the gate looks at."""

FOLDS: Final = 5
LEAST_QUERIES: Final = 50
"""Fewer queries than this calibrate nothing."""


@dataclass(frozen=True, slots=True, eq=False)
class DirectView:
    """Features of a query from its direct search, before reasoning.

    Attributes:
        vector: The query's direct vector, shape (dim,).
        direct: Ids and scores of the best hits among `direct` vectors, best first.
        reasoned: The same among `reasoned` vectors, searched with the direct vector; empty where there are none.
    """

    vector: npt.NDArray[np.float32]
    direct: tuple[tuple[str, float], ...]
    reasoned: tuple[tuple[str, float], ...] = ()

    def features(self) -> npt.NDArray[np.float64]:
        """Input of the linear model, shape (7 + dim,): best scores, margins, agreement, and the vector."""
        first, margin, lead = _shape([score for _, score in self.direct[:SHOWN]])
        first_r, margin_r, _ = _shape([score for _, score in self.reasoned[:SHOWN]])
        ids, ids_r = ([key for key, _ in hits[:SHOWN]] for hits in (self.direct, self.reasoned))
        agree = float(bool(ids_r) and ids[:1] == ids_r[:1])
        shared = len({*ids} & {*ids_r}) / max(len({*ids} | {*ids_r}), 1)
        return np.concatenate([[first, margin, lead, first_r, margin_r, agree, shared], self.vector.astype(np.float64)])


def _shape(scores: Sequence[float]) -> tuple[float, float, float]:
    """The best score, its margin over the second, and its lead over the mean of the rest."""
    if not scores:
        return 0.0, 0.0, 0.0
    rest = scores[1:]
    return scores[0], scores[0] - (rest[0] if rest else 0.0), scores[0] - (sum(rest) / len(rest) if rest else 0.0)


@dataclass(frozen=True, slots=True)
class Gate:
    """A linear model over `DirectView.features`.

    Attributes:
        weights: One a feature.
        bias: Added to the weighted sum.
        threshold: Log-odds from which a query is not reasoned over.
        embedder: Name and revision of the Embedder whose vectors it knows.
        saved: Share of calibration queries that it spared, each judged by a model that had not seen it.
        loss: Share of calibration queries that it spared wrongly, judged likewise.
        queries: How many queries it was calibrated on.

    Example:
        >>> gate = Gate((0.0, 10.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0), bias=-1.0, threshold=0.0, embedder="e@1")
        >>> clear = DirectView(np.zeros(2, np.float32), (("a", 0.9), ("b", 0.5)))
        >>> close = DirectView(np.zeros(2, np.float32), (("a", 0.9), ("b", 0.89)))
        >>> gate.needs_reasoning(clear), gate.needs_reasoning(close)
        (False, True)
    """

    weights: tuple[float, ...]
    bias: float
    threshold: float
    embedder: str
    saved: float = 0.0
    loss: float = 0.0
    queries: int = 0

    def needs_reasoning(self, view: DirectView) -> bool:
        """Decide whether to reason over the query.

        Raises:
            InputError: When the view's vector is not of the length that the gate knows.
        """
        features = view.features()
        if len(features) != len(self.weights):
            raise InputError(
                f"the gate reads {len(self.weights)} numbers, this query has {len(features)}",
                hint="calibrate a gate with this Embedder",
            )
        return bool(float(features @ np.asarray(self.weights)) + self.bias < self.threshold)

    def check(self, embedder: str) -> None:
        """Check that vectors come from the gate's Embedder.

        Raises:
            InputError: When the gate was calibrated with another one.
        """
        if embedder != self.embedder:
            raise InputError(
                f"the gate was calibrated with {self.embedder}, the Embedder is {embedder}",
                hint="calibrate one with this Embedder: `ume gate`",
            )

    def save(self, path: str | Path) -> None:
        """Write the gate as JSON.

        Raises:
            InputError: When the file cannot be written.
        """
        atomic_write(path, json.dumps(asdict(self)) + "\n", what="the gate")

    @classmethod
    def load(cls, path: str | Path) -> Gate:
        """Read a gate that `save` wrote.

        Raises:
            InputError: When the file holds no gate.
        """
        try:
            data: dict[str, Any] = parse_json(Path(path).read_text(encoding="utf-8"))
            gate = cls(**{**data, "weights": tuple(float(weight) for weight in data["weights"])})
            finite = all(np.isfinite([*gate.weights, gate.bias])) and not np.isnan(gate.threshold)
        except (OSError, ValueError, TypeError, KeyError, OverflowError) as error:
            raise InputError(f"{path} holds no gate: {error}", hint="make one with `ume gate`") from error
        if not finite:
            raise InputError(f"{path} holds no gate: its numbers are not finite", hint="make one with `ume gate`")
        return gate


def calibrate(views: Sequence[DirectView], spare: Sequence[bool], *, embedder: str, max_loss: float = 0.005) -> Gate:
    """Fit a gate, and set its threshold to skip reasoning as often as a limit on wrong decisions allows.

    Args:
        views: What each query shows; at least 50.
        spare: Whether the direct search serves each query as well as the reasoned one does: by known answers, or by
            putting the same item first.
        embedder: Name and revision of the Embedder.
        max_loss: Most queries, as a share of all, that may be spared though reasoning would serve them better. Every
            query is judged by a model that was fitted without it.

    Raises:
        InputError: When there are too few queries, or `max_loss` is out of range.
        MissingExtra: Without scikit-learn.
    """
    if len(views) < LEAST_QUERIES or len(views) != len(spare) or not 0 <= max_loss <= 1:
        raise InputError(
            f"{len(views)} queries, {len(spare)} labels, max_loss {max_loss}: nothing can be calibrated on that",
            hint=f"give {LEAST_QUERIES} queries or more with a label each, and max_loss between 0 and 1",
        )
    features = np.stack([view.features() for view in views])
    labels = np.asarray(spare, dtype=bool)
    scale = features.std(axis=0)
    scale[scale == 0] = 1.0
    center = features.mean(axis=0)
    scaled = (features - center) / scale
    if labels.all() or min(labels.sum(), (~labels).sum()) < FOLDS:
        # With one kind of label alone, margins decide nothing that the share does not.
        weights, bias = np.zeros(features.shape[1]), 0.0
        odds = np.full(len(labels), 0.0)
    else:
        weights, bias, odds = _fit(scaled, labels)
    threshold, spared, lost = _threshold(odds, labels, max_loss)
    weights = weights / scale
    return Gate(
        tuple(float(weight) for weight in weights),
        float(bias - weights @ center),
        threshold,
        embedder,
        saved=spared / len(labels),
        loss=lost / len(labels),
        queries=len(labels),
    )


def _fit(
    scaled: npt.NDArray[np.float64], labels: npt.NDArray[np.bool_]
) -> tuple[npt.NDArray[np.float64], float, npt.NDArray[np.float64]]:
    """Weights and bias on all queries, and log-odds of each by a model that had not seen it."""
    try:
        from sklearn.linear_model import LogisticRegression
        from sklearn.model_selection import StratifiedKFold, cross_val_predict
    except ImportError as error:
        raise MissingExtra("calibrating a gate needs scikit-learn", hint="pip install 'ume-retrieval[gate]'") from error
    model = LogisticRegression(C=0.1, max_iter=2000)
    folds = StratifiedKFold(FOLDS, shuffle=True, random_state=0)
    odds = cross_val_predict(model, scaled, labels, cv=folds, method="decision_function")
    model.fit(scaled, labels)
    return np.asarray(model.coef_[0], dtype=np.float64), float(model.intercept_[0]), np.asarray(odds)


def _threshold(odds: npt.NDArray[np.float64], labels: npt.NDArray[np.bool_], max_loss: float) -> tuple[float, int, int]:
    """The lowest threshold whose mistakes stay within the bound, how many queries it spares, and how many wrongly."""
    order = np.argsort(-odds, kind="stable")
    wrong = np.cumsum(~labels[order])
    best = (sys.float_info.max, 0, 0)  # spares nothing
    for place, index in enumerate(order):
        last = place + 1 == len(order) or odds[order[place + 1]] < odds[index]  # equal odds are spared together
        if last and wrong[place] <= max_loss * len(labels):
            best = (float(odds[index]), place + 1, int(wrong[place]))
    return best
