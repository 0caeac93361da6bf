"""What a search returns."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Final

from ume_qdrant.stores.base import Payload
from ume_qdrant.stores.filters import Kind
from ume_qdrant.stores.sources import item_of
from ume_qdrant.stores.traces import HitEvidence, evidence_of, tcot_of
from ume_retrieval.inputs import Item
from ume_retrieval.results import Trace, Usage
from ume_retrieval.tcot.trace import TCot

FIELDS: Final = ("source", "kind", "start_s", "end_s", "page", "trace", "text")
"""Payload fields that a hit is made of."""


@dataclass(frozen=True, slots=True)
class Hit:
    """One thing that was found, where it is, and why.

    Attributes:
        source: The file.
        score: Higher is better; a cosine, or a weighted mean of two.
        kind: "image", "video", "page" or "text".
        start_s: First second of a segment of video, or None.
        end_s: Last second of a segment of video, or None.
        page: Page number, 1-based, or None.
        answer: What the Reasoner takes it to be, or None where it has not reasoned.
        evidence: What the Reasoner points at; empty where it has not reasoned.
        trace: The whole T-CoT, or None.
        text: Beginning of a text, or None.
        point_id: Its id in the store.
    """

    source: str
    score: float
    kind: Kind
    start_s: float | None
    end_s: float | None
    page: int | None
    answer: str | None
    evidence: HitEvidence
    trace: TCot | None
    text: str | None
    point_id: str

    @classmethod
    def of(cls, point_id: str, score: float, payload: Payload) -> Hit:
        """Read a point's payload."""
        trace = tcot_of(payload.get("trace"))
        return cls(
            source=payload["source"],
            score=score,
            kind=payload["kind"],
            start_s=payload.get("start_s"),
            end_s=payload.get("end_s"),
            page=payload.get("page"),
            answer=None if trace is None else trace.answer,
            evidence=evidence_of(payload.get("trace")),
            trace=trace,
            text=payload.get("text") if payload["kind"] == "text" else None,
            point_id=point_id,
        )

    @property
    def item(self) -> Item:
        """The file's media as an input, to look at it again."""
        return item_of(
            {
                "source": self.source,
                "kind": self.kind,
                "start_s": self.start_s,
                "end_s": self.end_s,
                "page": self.page,
                "text": self.text,
            }
        )

    def to_dict(self) -> dict[str, Any]:
        """As JSON values: source, score, start_s, end_s, page, answer, evidence."""
        return {
            "source": self.source,
            "score": self.score,
            "start_s": self.start_s,
            "end_s": self.end_s,
            "page": self.page,
            "answer": self.answer,
            "evidence": self.evidence.to_dict(),
        }


@dataclass(frozen=True, slots=True)
class SearchResult:
    """Hits with what the query was taken to mean.

    Attributes:
        hits: Best first.
        query_trace: The Reasoner's trace over the query, or None where it did not reason.
        usage: What encoding the query cost.
    """

    hits: tuple[Hit, ...]
    query_trace: Trace | None = None
    usage: Usage = field(default_factory=Usage)
