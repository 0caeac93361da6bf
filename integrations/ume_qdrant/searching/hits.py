"""Results of a search."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from ume_qdrant.stores.base import Payload
from ume_qdrant.stores.filters import Kind
from ume_qdrant.stores.metadata import META_FIELD
from ume_qdrant.stores.schema import HitEvidence, evidence_of, tcot_of
from ume_qdrant.stores.sources import DOCUMENT_FIELD, item_of
from ume_retrieval.errors import Failure
from ume_retrieval.inputs import Item
from ume_retrieval.results import Trace, Usage
from ume_retrieval.tcot.trace import TCot

FIELDS: Final = (
    *("source", "kind", "start_s", "end_s", "page", "trace", "text", "doc_id"),
    *(META_FIELD, DOCUMENT_FIELD),
)
"""Payload fields of a hit."""


@dataclass(frozen=True, slots=True)
class Hit:
    """One result: what was found, where it is, and the evidence.

    Attributes:
        source: The file.
        score: Higher is better; a cosine, or a weighted mean of two.
        kind: "image", "video", "page" or "text".
        start_s: First second of a segment of video, or None.
        end_s: Last second of a segment of video, or None.
        page: Page number, 1-based, or None.
        answer: The Reasoner's answer, or None without reasoning.
        evidence: Keywords, boxes and key frames of the Reasoner; empty without reasoning.
        trace: The whole T-CoT, or None.
        text: Beginning of a text, or None.
        point_id: Its id in the store.
        id: Id of the document, as given to `index_documents`; for files, the source.
        document: How the item of a document is made again, see `stores.sources.stored_item`; None for files.
        meta: Your own metadata.
        rerank_score: The reranker's score, higher is better; None without one, or if it could not read the hit.
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
    id: str = ""
    meta: dict[str, Any] = field(default_factory=dict, hash=False)
    document: Mapping[str, Any] | None = field(default=None, hash=False)
    rerank_score: float | None = None

    @classmethod
    def of(cls, point_id: str, score: float, payload: Payload) -> Hit:
        """Create a hit from a point's payload."""
        trace = tcot_of(payload.get("trace"))
        meta = payload.get(META_FIELD)
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
            id=payload.get("doc_id") or payload["source"],
            document=payload.get(DOCUMENT_FIELD),
            meta=dict(meta) if isinstance(meta, Mapping) else {},
        )

    @property
    def item(self) -> Item:
        """The hit's media as an input.

        Raises:
            MediaNotFound: If it is a document whose media were in memory and have not been kept.
        """
        return item_of(
            {
                "source": self.source,
                "kind": self.kind,
                "start_s": self.start_s,
                "end_s": self.end_s,
                "page": self.page,
                "text": self.text,
                DOCUMENT_FIELD: self.document,
            }
        )

    def to_dict(self) -> dict[str, Any]:
        """Return JSON values: source, score, start_s, end_s, page, answer, evidence, meta.

        A document has an id too, and a reranked hit its rerank_score.
        """
        return {
            "source": self.source,
            "score": self.score,
            "start_s": self.start_s,
            "end_s": self.end_s,
            "page": self.page,
            "answer": self.answer,
            "evidence": self.evidence.to_dict(),
            "meta": self.meta,
            **({} if self.document is None else {"id": self.id}),
            **({} if self.rerank_score is None else {"rerank_score": self.rerank_score}),
        }


@dataclass(frozen=True, slots=True)
class SearchResult:
    """Hits, and the Reasoner's interpretation of the query.

    Attributes:
        hits: Best first.
        query_trace: The Reasoner's trace of the query, or None without reasoning.
        usage: Calls of the models for the query.
        failures: Candidates that the reranker could not read, by their place in the first search; they keep their
            order behind those with a score.
    """

    hits: tuple[Hit, ...]
    query_trace: Trace | None = None
    usage: Usage = field(default_factory=Usage)
    failures: tuple[Failure, ...] = ()
