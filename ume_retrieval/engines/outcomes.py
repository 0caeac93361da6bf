"""Outcomes as values: one result or one error for each chat (or pair) of a call, in order."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import TypeVar

from ume_retrieval.errors import UmeError

Asked = TypeVar("Asked")
Result = TypeVar("Result")

EngineCall = Callable[[Sequence[Asked]], Sequence[Result | UmeError]]
"""An engine's call: an outcome for each chat, or a `UmeError` for the whole call."""


def attempt(
    call: EngineCall[Asked, Result], chats: Sequence[Asked], *, strict: bool = False
) -> list[Result | UmeError]:
    """Call an engine; when it refuses the whole call, find the chats at fault by halves.

    Args:
        call: The engine.
        chats: Its input, any number.
        strict: Whether the first error ends the call. Errors after the first are then not looked for: they may be
            in the place of results that were never computed.

    Returns:
        For each chat its result or its error.

    Raises:
        UmeError: When `strict` is set and a temporary error (a busy server) struck several chats alike.

    Example:
        >>> def lengths(chats):
        ...     if () in chats:
        ...         raise UmeError("an empty chat")
        ...     return [len(chat) for chat in chats]
        >>> attempt(lengths, [("a",), (), ("a", "b")])
        [1, UmeError('an empty chat'), 2]
    """
    if not chats:
        return []
    try:
        return list(call(chats))
    except UmeError as error:
        return isolate(error, call, chats, strict=strict)


def isolate(
    error: UmeError, call: EngineCall[Asked, Result], chats: Sequence[Asked], *, strict: bool
) -> list[Result | UmeError]:
    """Bisect a batch that an engine refused, and call the engine on each half; see `attempt`."""
    # A temporary error strikes all chats alike; trying again would only add load.
    if error.retryable and strict and len(chats) > 1:
        raise error
    if error.retryable or len(chats) == 1:
        return [error] * len(chats)
    middle = len(chats) // 2
    outcomes = attempt(call, chats[:middle], strict=strict)
    if strict and any(isinstance(outcome, UmeError) for outcome in outcomes):
        return outcomes + [error] * (len(chats) - middle)
    return outcomes + attempt(call, chats[middle:], strict=strict)


def require_all(outcomes: Iterable[Result | UmeError]) -> list[Result]:
    """Return the results.

    Raises:
        UmeError: The first error among the outcomes.
    """
    results: list[Result] = []
    for outcome in outcomes:
        if isinstance(outcome, UmeError):
            raise outcome
        results.append(outcome)
    return results


def in_order(numbered: Iterable[tuple[int, Result | UmeError]]) -> list[Result]:
    """Sort streamed outcomes by position and return the results.

    Raises:
        UmeError: The error with the lowest position.
    """
    return require_all(outcome for _, outcome in sorted(numbered, key=lambda one: one[0]))
