"""Reports and progress of indexing and enriching."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

from ume_retrieval import errors
from ume_retrieval.errors import Failure, ItemWarning, UmeError
from ume_retrieval.results import Usage
from ume_retrieval.util.progress import OnProgress, Progress

__all__ = ["EnrichReport", "IndexReport", "OnProgress", "Progress", "error_of", "once_a_source"]


@dataclass(frozen=True, slots=True, kw_only=True)
class _RunReport:
    """Fields that `IndexReport` and `EnrichReport` share."""

    failed: tuple[Failure, ...]
    usage: Usage
    seconds: float
    warnings: tuple[ItemWarning, ...] = ()

    @property
    def model_calls(self) -> int:
        """Calls of the Reasoner and the Embedder."""
        return self.usage.reasoner_calls + self.usage.embedder_calls

    def _with_counts(self, **counts: int) -> dict[str, Any]:
        return {
            **counts,
            "failed": [failure_dict(failure) for failure in self.failed],
            "warnings": [{"source": one.source, "warning": one.message} for one in self.warnings],
            "model_calls": self.model_calls,
            "seconds": round(self.seconds, 3),
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class IndexReport(_RunReport):
    """Result of `index` and `index_documents`, where a document counts as a file.

    `indexed`, `unchanged` and the files that failed entirely add up to all files.

    Attributes:
        indexed: Files that are new, moved or changed, or that an earlier run left unfinished.
        unchanged: Files that needed no model.
        removed: Deleted files whose points were removed.
        failed: Files with an item that could not be indexed, each once.
        moved: Those of `indexed` whose vectors were all reused from another file with the same content.
        relabelled: Those of `unchanged` whose metadata were changed.
        points: Points that were written.
        usage: Calls of the models.
        seconds: Wall-clock time.
        warnings: Files that were indexed though something is not as it should be, such as a film that is cut short.
    """

    indexed: int
    unchanged: int
    removed: int
    moved: int
    points: int
    relabelled: int = 0

    def to_dict(self) -> dict[str, Any]:
        """Return JSON values."""
        counts = {"relabelled": self.relabelled} if self.relabelled else {}
        return self._with_counts(indexed=self.indexed, unchanged=self.unchanged, removed=self.removed, **counts)


@dataclass(frozen=True, slots=True, kw_only=True)
class EnrichReport(_RunReport):
    """Result of `enrich`.

    Attributes:
        enriched: Points that got a `reasoned` vector.
        remaining: Points that are still queued.
        failed: Files with an item that could not be reasoned over, each once.
        usage: Calls of the models.
        seconds: Wall-clock time.
    """

    enriched: int
    remaining: int

    def to_dict(self) -> dict[str, Any]:
        """Return JSON values."""
        return self._with_counts(enriched=self.enriched, remaining=self.remaining)


def failure_dict(failure: Failure) -> dict[str, str]:
    """Convert a failure to JSON values.

    Example:
        >>> failure_dict(Failure(0, "a.jpg", "broken_media", "a.jpg is cut off", "copy it again"))
        {'source': 'a.jpg', 'error': 'broken_media: a.jpg is cut off', 'hint': 'copy it again'}
    """
    return {"source": failure.source, "error": f"{failure.error}: {failure.message}", "hint": failure.hint}


def once_a_source(failures: Iterable[Failure]) -> tuple[Failure, ...]:
    """Return the first failure of each file with the number of further ones, ordered by file.

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
    """Return the error that a failure describes, to be raised.

    Example:
        >>> error_of(Failure(0, "a.jpg", "broken_media", "cut off"))
        BrokenMedia('a.jpg: cut off')
    """
    classes = {cls.code: cls for cls in vars(errors).values() if isinstance(cls, type) and issubclass(cls, UmeError)}
    named = failure.source in failure.message
    message = failure.message if named else f"{failure.source}: {failure.message}"
    return classes.get(failure.error, UmeError)(message, hint=failure.hint, retryable=failure.retryable)
