"""The points of files: ids, content keys and payloads."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from ume_qdrant.stores.base import Payload, Point, Vector
from ume_qdrant.stores.filters import ReasoningState
from ume_qdrant.stores.metadata import META_FIELD, Metadata
from ume_qdrant.stores.schema import MAX_TEXT, clean, point_id, within
from ume_qdrant.stores.sources import is_relative
from ume_retrieval.media import Entry

CONTENT_FIELDS = ("file_digest", "kind", "start_s", "end_s", "page")
"""Payload fields that identify the content of a point."""

REASONING_FIELDS = ("trace", "reasoner", "prompt_version", "reasoning_error", "text")
"""Payload fields that reasoning writes."""

Cut: TypeAlias = tuple[float, float]
"""Length and overlap of video segments, in seconds."""

ContentKey: TypeAlias = tuple[str, str, float | None, float | None, int | None]
"""Identity of an entry's content, independent of file names: digest, kind, start, end, page."""


FileKey: TypeAlias = tuple[str, str | None]
"""Name of a file or document, and its tenant, or None in a collection without tenants."""


def entry_id(entry: Entry, tenant: str | None = None) -> str:
    """Return the id of an entry's point."""
    source, digest = entry.source, entry.file_digest
    return point_id(source, digest, start_s=entry.start_s, end_s=entry.end_s, page=entry.page, tenant=tenant)


def entry_key(entry: Entry) -> ContentKey:
    """Return the content key of an entry."""
    return entry.file_digest, entry.kind, entry.start_s, entry.end_s, entry.page


def content_key(payload: Payload) -> ContentKey:
    """Return the content key of a point from its `CONTENT_FIELDS`."""
    place = (payload.get("start_s"), payload.get("end_s"), payload.get("page"))
    return payload["file_digest"], payload["kind"], *place


@dataclass(frozen=True, slots=True)
class Part:
    """An entry as a part of its file.

    Attributes:
        entry: The entry.
        parts: Number of points of the file; fewer in the store mean that indexing is incomplete.
        cut: How videos are cut.
        meta: The user's metadata.
        tenant: The tenant that owns the point, or None in a collection without tenants.
    """

    entry: Entry
    parts: int
    cut: Cut
    meta: Metadata = field(default_factory=dict)
    tenant: str | None = None

    @property
    def id(self) -> str:
        """Id of the point."""
        return entry_id(self.entry, self.tenant)

    @property
    def key(self) -> ContentKey:
        """Identity of the content."""
        return entry_key(self.entry)

    def changing(self) -> tuple[str, ...]:
        """Names of payload fields that may change while the content stays."""
        return ("size", "mtime_ns", "parts", "cut")

    def payload(self, state: ReasoningState) -> dict[str, Any]:
        """Return the point's fields, without None, which only some engines keep."""
        entry = self.entry
        fields = {
            "source": entry.source,
            "doc_id": entry.source,
            # "." matches files with relative names, and no points of other writers.
            "within": [*within(entry.source), *([os.curdir] if is_relative(entry.source) else [])],
            "kind": entry.kind,
            "start_s": entry.start_s,
            "end_s": entry.end_s,
            "page": entry.page,
            "parts": self.parts,
            "cut": list(self.cut) if entry.kind == "video" else None,
            "file_digest": entry.file_digest,
            "size": entry.size,
            "mtime_ns": entry.mtime_ns,
            "text": clean((entry.item.text or "")[:MAX_TEXT]),
            "reasoning": state,
            "reasoning_error": "",
            META_FIELD: self.meta or None,
        }
        return {name: value for name, value in fields.items() if value is not None}

    def point(self, vector: Vector, state: ReasoningState) -> Point:
        """Return a new point with its direct vector."""
        return Point(self.id, {"direct": vector}, self.payload(state))

    def copy_of(self, donor: Point, state: ReasoningState) -> Point:
        """Return a point with the vectors and the trace, but not the metadata, of a point with the same content."""
        if "reasoned" in donor.vectors:
            kept: ReasoningState = "done"
        else:
            kept = "failed" if donor.payload["reasoning"] == "failed" and state != "never" else state
        inherited = {name: donor.payload[name] for name in REASONING_FIELDS if name in donor.payload}
        payload = {**self.payload(kept), **(inherited if kept in {"done", "failed"} else {}), "reasoning": kept}
        return Point(self.id, dict(donor.vectors), payload)
