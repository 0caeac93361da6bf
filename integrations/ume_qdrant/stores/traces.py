"""Convert traces to payloads and back."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from ume_qdrant.stores.schema import clean
from ume_retrieval.results import Trace
from ume_retrieval.tcot.grammar import render
from ume_retrieval.tcot.trace import Box, Problem, TCot


@dataclass(frozen=True, slots=True)
class KeyFrame:
    """A frame that the Reasoner pointed at.

    Attributes:
        frame: Its number among the sampled frames, 1-based.
        time_s: Its time in seconds from the start of the file; None for a frame that the Embedder did not get, because
            the trace names more frames than it takes.
    """

    frame: int
    time_s: float | None


@dataclass(frozen=True, slots=True)
class HitEvidence:
    """Evidence that a hit's trace points at.

    Attributes:
        keywords: Words of a text.
        boxes: Regions of an image or page, 0..1000.
        key_frames: Frames of a video.
    """

    keywords: tuple[str, ...] = ()
    boxes: tuple[Box, ...] = ()
    key_frames: tuple[KeyFrame, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Return JSON values; a box is [x1, y1, x2, y2].

        Example:
            >>> HitEvidence(boxes=(Box(1, 2, 3, 4),), key_frames=(KeyFrame(5, 2.0),)).to_dict()
            {'keywords': [], 'boxes': [[1, 2, 3, 4]], 'key_frames': [{'frame': 5, 'time_s': 2.0}]}
        """
        return {
            "keywords": list(self.keywords),
            "boxes": [[box.x1, box.y1, box.x2, box.y2] for box in self.boxes],
            "key_frames": [asdict(frame) for frame in self.key_frames],
        }


def to_payload(trace: Trace) -> dict[str, Any]:
    """Convert a trace to JSON values: its generated text and its parts.

    Example:
        >>> tcot = TCot("two shapes", "sure", "a circle", key_frames=(2,))
        >>> to_payload(Trace(tcot, (), False, 0, 0, "id"))["key_frames"]
        [{'frame': 2, 'time_s': None}]
    """
    tcot = trace.tcot
    seconds = {ref.frame: ref.time_s for ref in trace.evidence if ref.kind == "frame"}
    payload = {
        "raw": tcot.raw or render(tcot),
        "thinking": tcot.thinking,
        "rethink": tcot.rethink,
        "answer": tcot.answer,
        "keywords": list(tcot.keywords),
        "boxes": [asdict(box) for box in tcot.boxes],
        "key_frames": [{"frame": frame, "time_s": seconds.get(frame)} for frame in tcot.key_frames],
        "problems": [asdict(problem) for problem in tcot.problems],
    }
    cleaned: dict[str, Any] = clean(payload)
    return cleaned


def tcot_of(payload: Mapping[str, Any] | None) -> TCot | None:
    """Read the T-CoT that `to_payload` wrote; None without a payload."""
    if not payload:
        return None
    return TCot(
        thinking=payload["thinking"],
        rethink=payload["rethink"],
        answer=payload["answer"],
        keywords=tuple(payload["keywords"]),
        boxes=tuple(Box(**box) for box in payload["boxes"]),
        key_frames=tuple(frame["frame"] for frame in payload["key_frames"]),
        problems=tuple(Problem(**problem) for problem in payload["problems"]),
        raw=payload["raw"],
    )


def evidence_of(payload: Mapping[str, Any] | None) -> HitEvidence:
    """Read the evidence of a trace; empty without a payload."""
    if not payload:
        return HitEvidence()
    return HitEvidence(
        keywords=tuple(payload["keywords"]),
        boxes=tuple(Box(**box) for box in payload["boxes"]),
        key_frames=tuple(KeyFrame(frame["frame"], frame.get("time_s")) for frame in payload["key_frames"]),
    )
