"""A training pair: a query, the item that answers it, and the T-CoTs of both."""

from __future__ import annotations

from dataclasses import dataclass

from ume_retrieval.inputs import Item


@dataclass(frozen=True, slots=True)
class TrainingPair:
    """One query with the item that answers it (arXiv 2602.13823, section 4).

    Attributes:
        id: Unique within its data set.
        dataset: Name of the data set; a batch is drawn from one.
        query: What is asked.
        positive: What answers it.
        negatives: Items that are easy to take for the answer and are none; may be empty.
        group: Pairs of one group are look-alikes of each other and come into the same batch; None is a group of its
            own.
        target: Label of the answer for questions with one, as the data set gives it; None where it gives none. It is
            shown to an annotating Reasoner only when a leak is asked for, and then `leaked` says so.
        query_tcot: T-CoT of the query as written, or None.
        positive_tcot: T-CoT of the positive as written, or None.
        leaked: The Reasoner that wrote `query_tcot` was shown `target`.
    """

    id: str
    dataset: str
    query: Item
    positive: Item
    negatives: tuple[Item, ...] = ()
    group: str | None = None
    target: str | None = None
    query_tcot: str | None = None
    positive_tcot: str | None = None
    leaked: bool = False
