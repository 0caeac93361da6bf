"""From errors that Ray reports to errors of this library."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

from ume_retrieval.errors import MissingExtra, UmeError
from ume_retrieval.media import display_name

_RAISED: Final = re.compile(r"[\w.]+(?:Error|Exception|Lost): .")


class WorkersLost(UmeError):
    """Workers died again and again at the same work, or the cluster cannot be reached."""

    code = "workers_lost"


def own_error(error: BaseException) -> UmeError:
    r"""The error that a worker raised, or what Ray says of a worker that cannot say anything any more.

    Example:
        >>> own_error(RuntimeError("the node died\nmany lines of logs")).message
        'Ray: RuntimeError: the node died'
    """
    for cause in _causes(error):
        if isinstance(cause, UmeError) and type(cause).__module__ != "ray.exceptions":
            return cause
    lines = str(error).strip().splitlines() or [""]
    # Of a traceback what it ends with counts; what Ray advises comes behind.
    said = next((line for line in reversed(lines) if _RAISED.match(line)), lines[0])
    return WorkersLost(
        f"Ray: {type(error).__name__}: {display_name(said)[:300]}",
        hint="see the workers' logs; the same call goes on where this one stopped",
        retryable=True,
    )


def missing_ray() -> MissingExtra:
    """The error when Ray is not installed."""
    return MissingExtra("ray is not installed", hint="pip install 'ume-retrieval[ray]'")


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    """The error and what led to it, the innermost first: Ray's own wrapper takes on the class of what it wraps."""
    chain: list[BaseException] = []
    while error is not None and error not in chain:
        chain.append(error)
        error = getattr(error, "cause", None) or error.__cause__
    yield from reversed(chain)
