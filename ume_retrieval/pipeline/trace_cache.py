"""Traces on disk, so that a second run makes no model call.

The cache keeps raw replies, so that a better parser can read old ones. It does not keep a reply without words to embed:
later runs would fail on it without asking the Reasoner again. Each record has a digest, since SQLite does not notice a
flipped bit in a text: a damaged record counts as missing, and a run whose cache fails goes on without it.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import sqlite3
import time
from collections import OrderedDict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self

import platformdirs

from ume_retrieval.checkpoint import ModelInfo, Prompts, VisualBudget
from ume_retrieval.engines.base import Generation, Sampling
from ume_retrieval.inputs import Modality, Side
from ume_retrieval.tcot.grammar import is_usable, parse
from ume_retrieval.util.files import display_name
from ume_retrieval.util.sqlite import SQLiteStore

logger = logging.getLogger(__name__)

REMEMBERED = 16_384
"""Traces that a call keeps in memory without a cache on disk: some 50 MB where traces are long."""

MOST_BYTES = 4 * 1024**3
"""Size of a cache's file from which on the oldest traces go: some three million traces."""

COLUMNS = "key, text, prompt_tokens, completion_tokens, finish, reasoner, created_at"

DIGEST = (
    "digest(CAST(key AS BLOB), CAST(text AS BLOB), prompt_tokens, completion_tokens, CAST(finish AS BLOB),"
    " CAST(reasoner AS BLOB), created_at)"
)
"""A record's digest in SQL; of bytes, since a damaged text may not be UTF-8, which no function of Python takes."""

KEEP = f"""
INSERT INTO traces ({COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?)
ON CONFLICT (key) DO UPDATE SET
    text = excluded.text, prompt_tokens = excluded.prompt_tokens, completion_tokens = excluded.completion_tokens,
    finish = excluded.finish, reasoner = excluded.reasoner, created_at = excluded.created_at
WHERE NOT has_words(CAST(text AS BLOB)) OR 'blob' IN (typeof(text), typeof(finish), typeof(reasoner))
    OR {DIGEST} IS NOT (SELECT digest FROM digests WHERE digests.key = traces.key)
"""  # noqa: S608  # constants

DIGESTS = """
CREATE TABLE IF NOT EXISTS digests (key TEXT PRIMARY KEY, digest BLOB NOT NULL) WITHOUT ROWID
"""
"""A table of its own, so that an earlier version can still write to the file."""

FORGET_DIGESTS = """
CREATE TRIGGER IF NOT EXISTS forget_digests AFTER DELETE ON traces
BEGIN DELETE FROM digests WHERE key = old.key; END
"""

NOTE_DIGESTS = f"INSERT OR REPLACE INTO digests SELECT key, {DIGEST} FROM traces WHERE "  # noqa: S608  # constants

FORGET_OLDEST = """
DELETE FROM traces WHERE key IN (
    SELECT key FROM (
        SELECT key, sum(bytes) OVER (ORDER BY created_at DESC, key DESC) AS up_to_here, sum(bytes) OVER () AS total
        FROM (SELECT key, created_at, length(CAST(text AS BLOB)) + 256 AS bytes FROM traces)
    ) WHERE up_to_here > total * ?
)
"""
"""Keeps the newest traces that together are the given share of all; a row takes about 256 bytes besides its
text. The share must be below 1: then at least the oldest goes."""


def trace_key(
    *,
    content_id: str,
    side: Side,
    target: Modality | None,
    reasoner: ModelInfo,
    prompts: Prompts,
    budget: VisualBudget,
    sampling: Sampling,
) -> str:
    """Return the cache key of a trace: a digest of everything that determines the Reasoner's reply.

    The wording of the prompts counts as well as their version. The engine does not: the same weights write the same
    trace.

    Args:
        content_id: Digest of the item's content and sampling (`media.content_id`), never a file name.
        side: Which prompts were used.
        target: Modality that the query searches for, if given.
        reasoner: Name and revision of the Reasoner.
        prompts: The Reasoner's prompts.
        budget: The Reasoner's visual budget.
        sampling: How it decodes.

    Returns:
        A SHA-256 digest, 64 hex digits.
    """
    parts = {
        "content_id": content_id,
        "side": side,
        "target": target,
        "reasoner": [reasoner.name, reasoner.revision],
        "prompts": _fields(prompts),
        "budget": _fields(budget),
        "sampling": sampling.identity(),
    }
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


@lru_cache(maxsize=64)
def _fields(settings: Prompts | VisualBudget) -> dict[str, Any]:
    """Return the fields of a Reasoner's settings, converted once and not for each item."""
    return settings.model_dump()


def default_cache_path() -> Path:
    """Return the default path of the cache: under `UME_CACHE_DIR`, else in the user's cache folder."""
    chosen = os.environ.get("UME_CACHE_DIR")
    folder = Path(chosen).expanduser() if chosen else platformdirs.user_cache_path("ume-retrieval")
    return folder / "traces.sqlite3"


@dataclass(frozen=True, slots=True)
class TraceRecord:
    """One reply of a Reasoner.

    Attributes:
        text: The reply as it was written.
        prompt_tokens: Tokens that it took to ask.
        completion_tokens: Tokens that it took to answer.
        finish: "stop" when the model ended it, "length" when the token limit did.
        reasoner: Name and revision of the model, for reading.
        created_at: Seconds since 1970.
    """

    text: str
    prompt_tokens: int
    completion_tokens: int
    finish: Literal["stop", "length"]
    reasoner: str = ""
    created_at: float = field(default_factory=time.time)

    @classmethod
    def of(cls, reply: Generation, reasoner: ModelInfo) -> TraceRecord:
        """Make the record of a new reply."""
        # SQLite cannot store a lone surrogate; a first run must read the same text as a second one.
        text = reply.text.encode("utf-8", "replace").decode("utf-8")
        name = f"{reasoner.name}@{reasoner.revision}"
        return cls(text, reply.prompt_tokens, reply.completion_tokens, reply.finish, name)


class TraceCache(SQLiteStore):
    """A file of traces, safe with several threads, several processes and `kill -9`.

    A write is there entirely or not at all. No connection is held between calls, so an instance may be shared, forked
    and dropped.

    Args:
        path: The SQLite file; made, with its folders, when it is not there.
        max_bytes: Size from which on the oldest traces are forgotten, > 0, or None for no limit.

    Raises:
        CacheError: When the file is damaged, belongs to another program, or cannot be opened.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder, TraceCache(Path(folder) / "traces.sqlite3") as cache:
        ...     cache.put_many({"key": TraceRecord("<answer>a cat</answer>", 12, 5, "stop")})
        ...     len(cache), cache.get_many(["key", "other"])["key"].text
        (1, '<answer>a cat</answer>')
    """

    what = "the trace cache"
    table = "traces"
    schema = """
    CREATE TABLE IF NOT EXISTS traces (
        key TEXT PRIMARY KEY,
        text TEXT NOT NULL,
        prompt_tokens INTEGER NOT NULL,
        completion_tokens INTEGER NOT NULL,
        finish TEXT NOT NULL,
        reasoner TEXT NOT NULL,
        created_at REAL NOT NULL
    )
    """
    application_id = 0x756D6531  # "ume1"
    when_damaged = "move the file away or delete it; traces are generated again when they are needed"

    def __init__(self, path: str | Path, *, max_bytes: int | None = MOST_BYTES) -> None:
        super().__init__(path)
        self.max_bytes = max_bytes

    def _upgrade(self, database: sqlite3.Connection) -> None:
        database.execute(DIGESTS)
        database.execute(FORGET_DIGESTS)
        [version] = database.execute("PRAGMA user_version").fetchone()
        if version < 1:
            _add_functions(database)
            database.execute(NOTE_DIGESTS + "key NOT IN (SELECT key FROM digests)")  # noqa: S608  # constants
            database.execute("PRAGMA user_version = 1")

    def get_many(self, keys: Iterable[str]) -> dict[str, TraceRecord]:
        """Return the records of known keys; damaged ones, and replies without text to embed, are left out.

        Raises:
            CacheError: When the file cannot be read.
        """
        expected = "(SELECT digest FROM digests WHERE digests.key = traces.key)"
        rows = [*self._select(f"{COLUMNS}, {expected}", keys)]
        records = {
            key: TraceRecord(*values)
            for key, *values, digest in rows
            if digest == _digest(key, *values) and bytes not in map(type, values)
        }
        if damaged := len(rows) - len(records):
            logger.warning("%s: %d damaged traces are generated again", display_name(self.path), damaged)
        # Earlier versions kept such replies.
        return {key: record for key, record in records.items() if _has_words(record.text)}

    def put_many(self, records: Mapping[str, TraceRecord]) -> None:
        """Store records in one transaction; skip replies without text to embed.

        A key that is known already keeps its first record that has words.

        Raises:
            CacheError: When the file cannot be written.
        """
        rows = {
            key: (key, r.text, r.prompt_tokens, r.completion_tokens, r.finish, r.reasoner, r.created_at)
            for key, r in records.items()
            if _has_words(r.text)
        }
        if not rows:
            return
        with self._transaction() as database:
            _add_functions(database)
            database.executemany(KEEP, rows.values())
            database.executemany(NOTE_DIGESTS + "key = ?", [(key,) for key in rows])
            self._evict(database)

    def _evict(self, database: sqlite3.Connection) -> None:
        """Forget the oldest tenth once the file is full; their space is used again, so the file stops growing."""
        pages, free, page_bytes = (
            database.execute(f"PRAGMA {name}").fetchone()[0] for name in ("page_count", "freelist_count", "page_size")
        )
        if self.max_bytes is not None and (size := (pages - free) * page_bytes) > self.max_bytes:
            forgotten = database.execute(FORGET_OLDEST, (0.9 * self.max_bytes / size,)).rowcount
            logger.info("%s is full: the oldest %d traces are forgotten", display_name(self.path), forgotten)

    @property
    def size_bytes(self) -> int:
        """Bytes that the traces take on disk, the write-ahead log included."""
        files = (self.path, Path(f"{self.path}-wal"))
        return sum(file.stat().st_size for file in files if file.exists())

    def clear(self) -> int:
        """Delete all traces and return their number."""
        with self._database() as database:
            forgotten = database.execute("DELETE FROM traces").rowcount
            database.execute("VACUUM")
        return forgotten

    def prune(self, *, older_than_days: float | None = None, max_bytes: int | None = None) -> int:
        """Delete old traces, then the oldest ones until the file is small enough.

        Args:
            older_than_days: Forget traces that were written more days ago than this.
            max_bytes: Then forget the oldest traces until the file is at most this. Its write-ahead log, which `close`
                folds in, does not count.

        Returns:
            How many were forgotten.
        """
        forgotten = 0
        with self._database() as database:
            if older_than_days is not None:
                limit = time.time() - older_than_days * 86400
                forgotten += database.execute("DELETE FROM traces WHERE created_at < ?", (limit,)).rowcount
            size = _packed_bytes(database)
            while max_bytes is not None and size > max_bytes:
                oldest = database.execute(FORGET_OLDEST, (max_bytes / size,)).rowcount
                if not oldest:
                    break
                forgotten += oldest
                size = _packed_bytes(database)
        return forgotten

    def close(self) -> None:
        """Merge the write-ahead log into the file, so that a copy of the file is complete. The cache stays usable."""
        with self._database() as database:
            database.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()


class InMemoryTraceCache:
    """Traces of one call without a cache on disk, behind the same two methods as `TraceCache`.

    Args:
        most: Most traces that are kept, >= 1; the least recently used goes first, so that memory does not grow with a
            stream.
    """

    def __init__(self, most: int = REMEMBERED) -> None:
        self._records = OrderedDict[str, TraceRecord]()
        self._most = most

    def get_many(self, keys: Iterable[str]) -> dict[str, TraceRecord]:
        """Return the records of known keys."""
        known = {key: self._records[key] for key in keys if key in self._records}
        for key in known:
            self._records.move_to_end(key)
        return known

    def put_many(self, records: Mapping[str, TraceRecord]) -> None:
        """Keep records."""
        for key, record in records.items():
            self._records[key] = record
            self._records.move_to_end(key)
        while len(self._records) > self._most:
            self._records.popitem(last=False)


def _has_words(text: str) -> bool:
    return is_usable(parse(text))


def _digest(*values: object) -> bytes:
    """Return the digest of a record: its key and its fields, in the types that SQLite returns."""
    fields = [value.encode() if isinstance(value, str) else value for value in values]
    return hashlib.blake2b(repr(fields).encode(), digest_size=16).digest()


def _add_functions(database: sqlite3.Connection) -> None:
    database.create_function("has_words", 1, lambda text: _has_words(text.decode("utf-8", "replace")))
    database.create_function("digest", -1, _digest, deterministic=True)


def _packed_bytes(database: sqlite3.Connection) -> int:
    """Bytes of the file once its free pages are given back.

    The files' sizes would not do: the write-ahead log grows with each VACUUM while another connection is open.
    """
    [free] = database.execute("PRAGMA freelist_count").fetchone()
    if free:
        database.execute("VACUUM")
    [pages] = database.execute("PRAGMA page_count").fetchone()
    [page_bytes] = database.execute("PRAGMA page_size").fetchone()
    return int(pages) * int(page_bytes)
