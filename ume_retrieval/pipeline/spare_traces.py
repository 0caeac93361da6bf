"""A run whose trace cache fails goes on without it: traces are kept in memory, after one warning."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from pathlib import Path

from ume_retrieval.errors import CacheError
from ume_retrieval.pipeline.trace_cache import InMemoryTraceCache, TraceCache, TraceRecord

logger = logging.getLogger(__name__)


class SpareableTraces:
    """A cache on disk that a run can do without: once its file fails, traces are kept in memory, after one warning.

    Args:
        cache: The cache on disk, as it was opened.
    """

    def __init__(self, cache: TraceCache | InMemoryTraceCache) -> None:
        self.cache = cache
        self._used = cache

    def get_many(self, keys: Iterable[str]) -> dict[str, TraceRecord]:
        """Return the records of known keys."""
        wanted = list(keys)
        try:
            return self._used.get_many(wanted)
        except CacheError as error:
            self._spare(error)
            return self._used.get_many(wanted)

    def put_many(self, records: Mapping[str, TraceRecord]) -> None:
        """Keep records."""
        try:
            self._used.put_many(records)
        except CacheError as error:
            self._spare(error)
            self._used.put_many(records)

    def _spare(self, error: CacheError) -> None:
        _warn(error)
        self._used = InMemoryTraceCache()


def open_cache(path: str | Path) -> TraceCache | None:
    """Open a cache on disk, or warn and return None if it is damaged, read-only or in use for too long."""
    try:
        return TraceCache(path)
    except CacheError as error:
        _warn(error)
        return None


def _warn(error: CacheError) -> None:
    logger.warning("%s; going on without it, so traces are not kept (%s)", error.message, error.hint)


class LastSpareable:
    """Keeps the view of a cache as long as the cache is the same."""

    def __init__(self) -> None:
        self._last: SpareableTraces | None = None

    def of(self, cache: TraceCache) -> SpareableTraces:
        """Return the view of a cache."""
        if self._last is None or self._last.cache is not cache:
            self._last = SpareableTraces(cache)
        return self._last
