"""Replies: hits and errors as clients see them, without paths of this machine."""

from __future__ import annotations

import re
from pathlib import PurePath
from typing import Any, Final

from pydantic import BaseModel
from starlette.requests import Request
from starlette.responses import JSONResponse

from ume_qdrant import Hit, SearchResult
from ume_qdrant.stores.filters import Kind
from ume_qdrant.stores.sources import is_relative
from ume_retrieval import errors
from ume_retrieval.errors import UmeError

SHOWN_PARTS: Final = 2
"""Last components of an absolute path that are shown: the file and its folder."""


class NotReady(UmeError):
    """The models are being loaded, or could not be."""

    code = "not_ready"


class PointNotFound(UmeError):
    """The collection has no such point, or the point no such picture."""

    code = "point_not_found"


STATUS: Final[dict[type[UmeError], int]] = {
    errors.MediaTooLarge: 413,
    errors.UnsupportedMedia: 415,
    errors.MediaNotFound: 410,
    errors.MediaError: 422,
    errors.InputError: 422,
    errors.QueueFull: 503,
    errors.StoreLocked: 503,
    errors.CollectionNotFound: 404,
    errors.ReasoningError: 502,
    NotReady: 503,
    PointNotFound: 404,
}
"""HTTP status of an error; others are 503 if trying again may help, else 500."""

MEDIA_WORDS: Final[dict[type[UmeError], str]] = {
    errors.MediaTooLarge: "the picture, video or document is larger than this server reads",
    errors.UnsupportedMedia: "not a picture, video or document that this server reads",
    errors.MediaNotFound: "the file was indexed and does not exist any more",
    errors.MediaTimeout: "the file took too long to decode",
    errors.MediaError: "the file cannot be decoded",
}
"""Messages for errors of media, whose own messages name files."""

_PATH: Final = re.compile(r"(?<![\w:/])(?:[A-Za-z]:)?[/\\](?:[^/\\\n\"'<>|:]+[/\\])*([^/\\\n\"'<>|:]*)")


class BoxOut(BaseModel):
    """A region of a picture, values 0..1000 of its width and height."""

    x1: int
    y1: int
    x2: int
    y2: int
    image: int = 0


class HitOut(BaseModel):
    """A hit: where it is, and the evidence; its pictures are below `/api/points/{id}`."""

    id: str
    name: str
    kind: Kind
    score: float
    start_s: float | None
    end_s: float | None
    page: int | None
    text: str | None
    answer: str | None
    thinking: str | None
    keywords: list[str]
    boxes: list[BoxOut]
    key_frames_s: list[float]

    @classmethod
    def of(cls, hit: Hit) -> HitOut:
        """Describe a hit."""
        evidence, trace = hit.evidence, hit.trace
        return cls(
            id=hit.point_id,
            name=shown_name(hit.source),
            kind=hit.kind,
            score=hit.score,
            start_s=hit.start_s,
            end_s=hit.end_s,
            page=hit.page,
            text=hit.text,
            answer=hit.answer,
            thinking=None if trace is None else trace.raw or trace.thinking,
            keywords=list(evidence.keywords),
            boxes=[BoxOut(x1=b.x1, y1=b.y1, x2=b.x2, y2=b.y2, image=b.image) for b in evidence.boxes],
            key_frames_s=[frame.time_s for frame in evidence.key_frames if frame.time_s is not None],
        )


class SearchOut(BaseModel):
    """Hits, best first, and how the Reasoner understood the query."""

    meant: str | None
    reasoned: bool
    hits: list[HitOut]

    @classmethod
    def of(cls, result: SearchResult, *, offset: int = 0, threshold: float | None = None) -> SearchOut:
        """Describe a page of results."""
        trace = result.query_trace
        hits = [HitOut.of(hit) for hit in result.hits[offset:] if threshold is None or hit.score >= threshold]
        return cls(meant=trace.tcot.answer if trace else None, reasoned=trace is not None, hits=hits)


def shown_name(source: str) -> str:
    """Return a source as clients see it: relative names whole, of absolute paths the last components.

    Example:
        >>> shown_name("/home/ann/photos/beach/1.jpg"), shown_name("beach/1.jpg")
        ('beach/1.jpg', 'beach/1.jpg')
    """
    return source if is_relative(source) else "/".join(PurePath(source).parts[1:][-SHOWN_PARTS:])


def without_paths(text: str) -> str:
    """Replace absolute paths by their last component.

    Example:
        >>> without_paths("cannot open /home/ann/vectors/films (in use)")
        'cannot open films (in use)'
    """
    return _PATH.sub(lambda found: found[1], text)


def error_body(error: UmeError) -> dict[str, Any]:
    """Describe an error, in the form that OpenAI's clients read too."""
    words = next((words for kind, words in MEDIA_WORDS.items() if isinstance(error, kind)), None)
    return {
        "error": {
            "code": error.code,
            "message": without_paths(error.message) if words is None else words,
            "hint": without_paths(error.hint) if words is None else "",
            "type": "invalid_request_error" if isinstance(error, errors.InputError) else "server_error",
        }
    }


async def answer_error(_: Request, error: Exception) -> JSONResponse:
    """Answer a request that ended with a `UmeError`."""
    assert isinstance(error, UmeError)  # noqa: S101  # it is registered for these only
    usual = 503 if error.retryable else 500
    status = next((status for kind, status in STATUS.items() if isinstance(error, kind)), usual)
    return JSONResponse(error_body(error), status, {"Retry-After": "1"} if status == 503 else None)
