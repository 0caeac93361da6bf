"""What indexing and enriching report, as values."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

from ume_retrieval import errors
from ume_retrieval.errors import Failure, UmeError
from ume_retrieval.results import Usage
from ume_retrieval.util.progress import OnProgress, Progress

__all__ = ["EnrichReport", "IndexReport", "OnProgress", "Progress", "error_of", "once_a_source"]


@dataclass(frozen=True, slots=True)
class IndexReport:
    """What `index` did. `indexed`, `unchanged` and files that failed wholly add up to the files that are there.

    Attributes:
        indexed: Files that are new, moved or changed, or that an earlier run left unfinished.
        unchanged: Files that needed nothing.
        removed: Files that are gone and were taken out of the collection.
        failed: Files of which something could not be indexed, each once.
        moved: Those of `indexed` whose vectors were all taken over from another file with the same bytes.
        points: Points that were written.
        usage: What the models were asked.
        seconds: Wall-clock time.
    """

    indexed: int
    unchanged: int
    removed: int
    failed: tuple[Failure, ...]
    moved: int
    points: int
    usage: Usage
    seconds: float

    @property
    def model_calls(self) -> int:
        """Chats that the Reasoner answered and the Embedder embedded."""
        return self.usage.reasoner_calls + self.usage.embedder_calls

    def to_dict(self) -> dict[str, Any]:
        """As JSON values."""
        return {
            "indexed": self.indexed,
            "unchanged": self.unchanged,
            "removed": self.removed,
            "failed": [failure_dict(failure) for failure in self.failed],
            "model_calls": self.model_calls,
            "seconds": round(self.seconds, 3),
        }


@dataclass(frozen=True, slots=True)
class EnrichReport:
    """What `enrich` did.

    Attributes:
        enriched: Points that got a `reasoned` vector.
        remaining: Points that still wait for one.
        failed: Files of which something could not be reasoned over, each once.
        usage: What the models were asked.
        seconds: Wall-clock time.
    """

    enriched: int
    remaining: int
    failed: tuple[Failure, ...]
    usage: Usage
    seconds: float

    @property
    def model_calls(self) -> int:
        """Chats that the Reasoner answered and the Embedder embedded."""
        return self.usage.reasoner_calls + self.usage.embedder_calls

    def to_dict(self) -> dict[str, Any]:
        """As JSON values."""
        return {
            "enriched": self.enriched,
            "remaining": self.remaining,
            "failed": [failure_dict(failure) for failure in self.failed],
            "model_calls": self.model_calls,
            "seconds": round(self.seconds, 3),
        }


def failure_dict(failure: Failure) -> dict[str, str]:
    """A failure as JSON values.

    Example:
        >>> failure_dict(Failure(0, "a.jpg", "broken_media", "a.jpg is cut off", "copy it again"))
        {'source': 'a.jpg', 'error': 'broken_media: a.jpg is cut off', 'hint': 'copy it again'}
    """
    return {"source": failure.source, "error": f"{failure.error}: {failure.message}", "hint": failure.hint}


def once_a_source(failures: Iterable[Failure]) -> tuple[Failure, ...]:
    """The first failure of each file, saying how many more there are, ordered by file.

    Example:
        >>> [one] = once_a_source([Failure(0, "a.pdf", "broken_media", "page 2"), Failure(1, "a.pdf", "x", "page 3")])
        >>> one.message
        'page 2 (and 1 more)'
    """
    of_source: dict[str, list[Failure]] = {}
    for failure in failures:
        of_source.setdefault(failure.source, []).append(failure)
    return tuple(
        replace(first, index=index, message=f"{first.message} (and {len(rest)} more)" if rest else first.message)
        for index, (_, (first, *rest)) in enumerate(sorted(of_source.items()))
    )


def error_of(failure: Failure) -> UmeError:
    """The error that a failure describes, for callers that want it raised.

    Example:
        >>> error_of(Failure(0, "a.jpg", "broken_media", "cut off"))
        BrokenMedia('a.jpg: cut off')
    """
    classes = {cls.code: cls for cls in vars(errors).values() if isinstance(cls, type) and issubclass(cls, UmeError)}
    named = failure.source in failure.message
    message = failure.message if named else f"{failure.source}: {failure.message}"
    return classes.get(failure.error, UmeError)(message, hint=failure.hint, retryable=failure.retryable)
