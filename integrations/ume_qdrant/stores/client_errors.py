"""Errors of Qdrant clients as typed errors."""

from __future__ import annotations

import json
from typing import ClassVar, Final

import grpc  # type: ignore[import-untyped]  # grpcio ships no types
import httpx
from pydantic import ValidationError
from qdrant_client.common.client_exceptions import QdrantException, ResourceExhaustedResponse
from qdrant_client.http.exceptions import ApiException, ResponseHandlingException, UnexpectedResponse

from ume_retrieval.errors import CollectionNotFound, StoreError, StoreMismatch, UmeError, reason_of
from ume_retrieval.util.json_text import parse_json
from ume_retrieval.util.retry import BUSY_STATUS, Busy

_OF_AN_ANSWER: Final = (
    *(ValidationError, UnicodeDecodeError, json.JSONDecodeError, httpx.DecodingError),
    *(AssertionError, KeyError, IndexError, OverflowError, RecursionError),
)
"""What the client raises while it reads an answer that is not Qdrant's."""

CLIENT_ERRORS: Final = (
    *(ApiException, QdrantException, grpc.RpcError, httpx.HTTPError, httpx.InvalidURL, OSError, ValueError),
    *_OF_AN_ANSWER,
)
"""Exceptions of a failed request; the client's in-memory engine raises ValueError, and KeyError for missing points."""

STATUS_OF_CODE: Final = {
    "UNAVAILABLE": 503,
    "DEADLINE_EXCEEDED": 504,
    "RESOURCE_EXHAUSTED": 429,
    "UNAUTHENTICATED": 401,
    "PERMISSION_DENIED": 403,
    "NOT_FOUND": 404,
}
"""HTTP status that corresponds to a gRPC code."""

MAX_REASON: Final = 300
"""Most characters of a server's answer that an error quotes."""


class BusyError(Busy, StoreError):
    """A server did not answer, or is overloaded; the request may be retried."""

    given_up: ClassVar[type[UmeError]] = StoreError


def typed_error(error: Exception, location: str, collection: str, api_key: str | None) -> StoreError:
    """Convert a client's exception.

    Args:
        error: One of `CLIENT_ERRORS`.
        location: Address of the server, without secrets.
        collection: The collection of the request.
        api_key: The key in use, to be masked if the answer repeats it.

    Returns:
        `BusyError` if the request may be retried, `CollectionNotFound`, `StoreMismatch` for a vector of the wrong
        length, or a `StoreError` with a hint.
    """
    status, reason, wait_s = _read(error)
    if api_key:
        reason = reason.replace(api_key, "***")
    reason = " ".join(reason.split())[:MAX_REASON]
    if status is None:
        return BusyError(
            f"the store at {location} does not answer: {reason}", hint="check the address and that the server runs"
        )
    if status in BUSY_STATUS:
        return BusyError(
            f"the store at {location} is busy: {status} {reason}".rstrip(), hint="try again later", wait_s=wait_s
        )
    if status in {401, 403}:
        return StoreError(f"the store at {location} refused the API key ({status})", hint="pass the key of this server")
    if status == 404 and "ollection" in reason:
        return CollectionNotFound(f"{location} has no collection {collection!r}", hint="index something first")
    if "dimension error" in reason:
        return StoreMismatch(
            f"the store at {location} refused a vector: {reason}", hint="use the model that made the collection"
        )
    return StoreError(f"the store at {location} refused a request: {status} {reason}".rstrip())


def _read(error: Exception) -> tuple[int | None, str, float]:
    """Return the HTTP status (None without an answer), the server's reason and the seconds to wait."""
    if isinstance(error, ResourceExhaustedResponse):
        return 429, error.message, float(error.retry_after_s)
    if isinstance(error, UnexpectedResponse):
        return error.status_code, _reason(error.content) or error.reason_phrase, 0.0
    if isinstance(getattr(error, "source", error), _OF_AN_ANSWER):
        return 200, "the answer is not Qdrant's; is this the address of a Qdrant server?", 0.0
    if isinstance(error, (ResponseHandlingException, httpx.HTTPError, OSError)):
        return None, reason_of(getattr(error, "source", error)), 0.0
    if isinstance(error, grpc.RpcError):
        code = error.code().name
        return STATUS_OF_CODE.get(code, 400), error.details() or code, 0.0
    return 404 if "not found" in str(error) else 400, str(error), 0.0


def _reason(content: bytes) -> str:
    try:
        return str(parse_json(content)["status"]["error"])
    except (ValueError, KeyError, TypeError):
        return content.decode("utf-8", "replace")
