"""Typed errors: each says what happened, what to do next, and whether trying again can help."""

from __future__ import annotations

from dataclasses import dataclass


class UmeError(Exception):
    """Base of every error that this library raises on purpose.

    Args:
        message: One line that says what happened.
        hint: One line that says what to do next; empty when there is nothing to add.
        retryable: True when the same call may succeed later (a time-out, a busy server).

    Example:
        >>> error = UmeError("cannot read cat.jpg", hint="check the file")
        >>> str(error), error.retryable, error.code
        ('cannot read cat.jpg', False, 'ume_error')
    """

    code = "ume_error"

    def __init__(self, message: str, *, hint: str = "", retryable: bool = False) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.retryable = retryable


class Stopped(Exception):
    """The call was cancelled: its `stopped` event is set. Traces that were finished before are kept."""


class InputError(UmeError):
    """The caller's item or argument cannot be used (an empty item, a wrong type)."""

    code = "invalid_input"


class MediaError(UmeError):
    """Media could not be turned into pixels."""

    code = "media_error"


class MediaNotFound(MediaError):
    """The file does not exist or cannot be opened."""

    code = "media_not_found"


class UnsupportedMedia(MediaError):
    """The bytes are not an image, video or PDF that this library reads."""

    code = "unsupported_media"


class BrokenMedia(MediaError):
    """The bytes claim to be media but do not decode (truncated, corrupted, empty)."""

    code = "broken_media"


class MediaTooLarge(MediaError):
    """A limit on pixels, bytes, frames or pages would be exceeded."""

    code = "media_too_large"


class MediaCrashed(MediaError):
    """A worker process died while it decoded this item (see `media.limits.Isolation`)."""

    code = "media_crashed"


class MediaTimeout(MediaError):
    """A worker process was stopped because it decoded this item for too long."""

    code = "media_timeout"


class RemoteNotAllowed(MediaError):
    """An address was given that may not be fetched: fetching is off (the default), or its host is not allowed."""

    code = "remote_not_allowed"


class ModelError(UmeError):
    """A model could not be loaded or run."""

    code = "model_error"


class IncompatibleModel(ModelError):
    """The checkpoint does not fit its family (no row for the pooled token, wrong architecture)."""

    code = "incompatible_model"


class ModelTooLarge(ModelError):
    """The weights do not fit the memory of the device that was chosen; nothing was loaded."""

    code = "model_too_large"


class ServerError(ModelError):
    """A model's server could not be reached, refused the request, or gave no answer that can be read."""

    code = "server_error"


class MissingExtra(UmeError):
    """An optional package is not installed; the hint carries the install command."""

    code = "missing_extra"


class ReasoningError(UmeError):
    """The Reasoner's output could not be used where a trace was required."""

    code = "reasoning_error"


class QueueFull(UmeError):
    """Too many calls are waiting; nothing was done for this one."""

    code = "queue_full"


class CacheError(UmeError):
    """The trace cache on disk cannot be read or written."""

    code = "cache_error"


class TrainingError(UmeError):
    """Training cannot start or continue (invalid data, a Reasoner that does not follow the format, a collapse)."""

    code = "training_error"


class StoreError(UmeError):
    """An operation of a vector store failed."""

    code = "store_error"


class StoreMismatch(StoreError):
    """The collection was made with another model, dimension or prompt version."""

    code = "store_mismatch"


class StoreUnsupported(StoreError):
    """The feature needs another kind of store."""

    code = "store_unsupported"


class StoreLocked(StoreError):
    """Another process holds the in-process store."""

    code = "store_locked"


class CollectionNotFound(StoreError):
    """The store does not contain a collection of that name."""

    code = "collection_not_found"


@dataclass(frozen=True, slots=True)
class Failure:
    """One item that was left out, as a value that can be reported.

    Attributes:
        index: Position of the item in the caller's input, 0-based.
        source: The caller's name of the item (a path, an id), or "".
        error: The error's `code`.
        message: What happened, one line.
        hint: What to do next, one line, may be empty.
        retryable: True when trying again may help.
    """

    index: int
    source: str
    error: str
    message: str
    hint: str = ""
    retryable: bool = False

    @classmethod
    def of(cls, error: UmeError, *, index: int, source: str = "") -> Failure:
        """Describe `error` as it struck item `index`."""
        return cls(index, source, error.code, error.message, error.hint, error.retryable)
