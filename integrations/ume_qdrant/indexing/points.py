"""Convert discovered entries and results of reasoning to points."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any, TypeAlias

from ume_qdrant.stores.base import Point, Vector
from ume_qdrant.stores.filters import ReasoningState
from ume_qdrant.stores.schema import MAX_TEXT, clean, point_id, within
from ume_qdrant.stores.sources import is_relative
from ume_qdrant.stores.traces import to_payload
from ume_retrieval.errors import Failure, ServerError
from ume_retrieval.media import Entry
from ume_retrieval.results import PipelineInfo, Trace

Cut: TypeAlias = tuple[float, float]
"""Length and overlap of video segments, in seconds."""

ContentKey: TypeAlias = tuple[str, str, float | None, float | None, int | None]
"""Identity of an entry's content, independent of file names: digest, kind, start, end, page."""


def entry_id(entry: Entry) -> str:
    """Return the id of an entry's point."""
    return point_id(entry.source, entry.file_digest, start_s=entry.start_s, end_s=entry.end_s, page=entry.page)


def entry_key(entry: Entry) -> ContentKey:
    """Return the content key of an entry."""
    return entry.file_digest, entry.kind, entry.start_s, entry.end_s, entry.page


@dataclass(frozen=True, slots=True)
class Part:
    """An entry as a part of its file.

    Attributes:
        entry: The entry.
        parts: Number of points of the file; fewer in the store mean that indexing is incomplete.
        cut: How videos are cut.
    """

    entry: Entry
    parts: int
    cut: Cut

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
        }
        return {name: value for name, value in fields.items() if value is not None}

    def point(self, vector: Vector, state: ReasoningState) -> Point:
        """Return a new point with its direct vector."""
        return Point(entry_id(self.entry), {"direct": vector}, self.payload(state))

    def copy_of(self, donor: Point, state: ReasoningState) -> Point:
        """Return a point with the vectors and the trace of a point with the same content."""
        if "reasoned" in donor.vectors:
            kept: ReasoningState = "done"
        else:
            kept = "failed" if donor.payload["reasoning"] == "failed" and state != "never" else state
        inherited = {name: donor.payload[name] for name in REASONING_FIELDS if name in donor.payload}
        payload = {**self.payload(kept), **(inherited if kept in {"done", "failed"} else {}), "reasoning": kept}
        return Point(entry_id(self.entry), dict(donor.vectors), payload)


REASONING_FIELDS = ("trace", "reasoner", "prompt_version", "reasoning_error", "text")
"""Payload fields that reasoning writes."""


def refused_update(key: str, failure: Failure) -> Point:
    """Return the update of an existing point after a failure: marked as failed if permanent, else empty.

    A refusal by a server, such as for a wrong key, is not permanent.

    Args:
        key: The point's id.
        failure: Why the trace is missing.
    """
    if failure.retryable or failure.error == ServerError.code:
        return Point(key)
    return Point(key, {}, {"reasoning": "failed", "reasoning_error": failure.error})


def reasoned_update(key: str, vector: Vector, trace: Trace, info: PipelineInfo, *, text: str | None = None) -> Point:
    """Return the update of an existing point after reasoning.

    Args:
        key: The point's id.
        vector: Its `reasoned` vector.
        trace: The Reasoner's trace.
        info: The models.
        text: New value of the `text` field, for tools that show this field of media; None keeps it.
    """
    reasoner = f"{info.reasoner.name}@{info.reasoner.revision}" if info.reasoner else ""
    payload = {
        "reasoning": "done",
        "reasoning_error": "",
        "trace": to_payload(trace),
        "reasoner": reasoner,
        "prompt_version": info.prompt_version or "",
    }
    if text is not None:
        payload["text"] = clean(text[:MAX_TEXT])
    return Point(key, {"reasoned": vector}, payload)
