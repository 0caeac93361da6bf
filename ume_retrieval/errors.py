"""Typed errors: each says what happened, what to do next, and whether trying again can help."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final


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
    """Another process holds the folder store and cannot share it."""

    code = "store_locked"


class StoreDamaged(StoreError):
    """Files of the in-process store are missing or not as they were written."""

    code = "store_damaged"


class TenantRequired(StoreError):
    """The collection has tenants, and a filter or a point does not say which one it concerns."""

    code = "tenant_required"


class CollectionNotFound(StoreError):
    """The store does not contain a collection of that name."""

    code = "collection_not_found"


@dataclass(frozen=True, slots=True)
class ItemWarning:
    """One item that was used though something about it is not as it should be.

    Attributes:
        source: The caller's name of the item (a path, an id), or "".
        message: What the user should know, one line: a film that is cut short, another decoder than the chosen one.
    """

    source: str
    message: str


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


MOST_REASON: Final = 200
"""Most characters of a foreign exception's own words that a typed error quotes."""

_PANIC: Final = "PanicException"
"""What PyO3 raises when Rust code panics: a `BaseException`, of which each extension module has a class of its own."""


@contextmanager
def typed_errors(kind: type[UmeError], message: str, *, hint: str = "", retryable: bool = False) -> Iterator[None]:
    """Convert every foreign exception of a block to a typed error: the boundary to hostile data and other libraries.

    Errors of this library, `Stopped`, interrupts and exits pass unchanged. Panics of Rust extensions are converted,
    though they are no `Exception`. A block should hold only what depends on the data at hand, so that a mistake in the
    code around it is not taken for a damaged file.

    Args:
        kind: Class of the typed error.
        message: What could not be done; what the exception says follows after a colon.
        hint: As in `UmeError`.
        retryable: As in `UmeError`.

    Raises:
        UmeError: Of class `kind`, with the exception as its cause.

    Example:
        >>> with typed_errors(InputError, "the file cannot be read", hint="check it"):
        ...     {}["width"]
        Traceback (most recent call last):
        ume_retrieval.errors.InputError: the file cannot be read: KeyError: 'width'
    """
    try:
        yield
    except BaseException as error:
        typed = typed_error(error, kind, message, hint=hint, retryable=retryable)
        if typed is error:
            raise
        raise typed from error


def typed_error(
    error: BaseException, kind: type[UmeError], message: str, *, hint: str = "", retryable: bool = False
) -> UmeError:
    """Convert one exception; arguments are those of `typed_errors`.

    Returns:
        The error itself if it is one of this library, else a new one with the exception as its cause.

    Raises:
        BaseException: The exception itself, when it is `Stopped`, an interrupt or an exit.
    """
    if isinstance(error, UmeError):
        return error
    if isinstance(error, Stopped) or not (isinstance(error, Exception) or type(error).__name__ == _PANIC):
        raise error
    typed = kind(f"{message}: {reason_of(error)}", hint=hint, retryable=retryable)
    typed.__cause__ = error
    return typed


def reason_of(error: BaseException) -> str:
    r"""Describe a foreign exception on one line of printable characters: its type and what it says.

    Example:
        >>> reason_of(ValueError("bad\n\x1b[31m port")), reason_of(RecursionError())
        ('ValueError: bad [31m port', 'RecursionError')
    """
    try:
        words = str(error)
    except Exception:  # noqa: BLE001  # an exception that cannot be written must not hide what happened
        words = ""
    line = " ".join("".join(letter if letter.isprintable() else " " for letter in words[: 4 * MOST_REASON]).split())
    return ": ".join(filter(None, (type(error).__name__, line)))[:MOST_REASON]
