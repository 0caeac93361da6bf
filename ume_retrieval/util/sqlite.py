"""Keep records by key in one SQLite file, safe under threads, processes and `kill -9`."""

from __future__ import annotations

import json
import os
import sqlite3
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, ClassVar, Final

from ume_retrieval.errors import CacheError, reason_of
from ume_retrieval.util.files import display_name

BUSY_TIMEOUT_S: Final = 60.0
KEYS_AT_ONCE: Final = 1000

FORK_WAIT_S: Final = 10.0
"""Longest time that a fork waits for other threads to finish with SQLite."""

_OF_THE_DISK: Final = tuple(
    f"SQLITE_{name}" for name in ("CANTOPEN", "FULL", "IOERR", "NOLFS", "NOMEM", "PERM", "PROTOCOL", "READONLY")
)
"""Names of errors that say nothing about the content of the file."""


class SQLiteStore:
    """A SQLite file with one table, whose primary key is the column `key`.

    Writes are atomic. No connection is held between calls, so an instance may be shared between threads, forked and
    dropped.

    Args:
        path: The SQLite file; created, with its folders, if missing.

    Attributes:
        what: Name of the file's role in messages.
        table: Name of the table.
        schema: Statement that creates the table if missing.
        application_id: Marks the file, so that another program's database is never written to.
        when_damaged: Hint for a damaged file.

    Raises:
        CacheError: When the file is damaged, belongs to another program, or cannot be opened.
    """

    what: ClassVar[str]
    table: ClassVar[str]
    schema: ClassVar[str]
    application_id: ClassVar[int]
    when_damaged: ClassVar[str]

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
        except (OSError, ValueError) as error:  # the latter for a path with a NUL or half a character
            raise CacheError(
                f"cannot make the folder of {self.what} {display_name(self.path)}: {reason_of(error)}",
                hint="choose another path",
            ) from error
        # Before anything is written: the change to WAL would stay in another program's file.
        with self._connection() as database:
            self._refuse_others(database)
        with self._transaction() as database:
            self._refuse_others(database)
            database.execute(self.schema)
            self._upgrade(database)
            database.execute(f"PRAGMA application_id = {self.application_id}")

    def _upgrade(self, database: sqlite3.Connection) -> None:
        """Bring a file of an earlier version up to date, within the transaction that opens it."""

    def __len__(self) -> int:
        with self._database() as database:
            [count] = database.execute(f"SELECT count(*) FROM {self.table}").fetchone()  # noqa: S608  # a constant
        return int(count)

    def _select(self, columns: str, keys: Iterable[str]) -> Iterator[tuple[Any, ...]]:
        """Yield the columns of every row with one of the keys; unknown keys are skipped."""
        wanted = list(dict.fromkeys(keys))
        query = f"SELECT {columns} FROM {self.table} WHERE key IN (SELECT value FROM json_each(?))"  # noqa: S608  # constants
        with self._database() as database:
            for start in range(0, len(wanted), KEYS_AT_ONCE):
                yield from database.execute(query, (json.dumps(wanted[start : start + KEYS_AT_ONCE]),)).fetchall()

    def _refuse_others(self, database: sqlite3.Connection) -> None:
        # In this order: a process that makes the file meanwhile writes both at once.
        [tables] = database.execute("SELECT count(*) FROM sqlite_master").fetchone()
        [owner] = database.execute("PRAGMA application_id").fetchone()
        if tables and owner != self.application_id:
            raise CacheError(f"{self.path} is another program's database", hint=f"choose another path for {self.what}")

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        """A connection whose writes become visible together at the end of the block, or not at all."""
        with self._database() as database:
            database.execute("BEGIN IMMEDIATE")
            yield database
            database.execute("COMMIT")

    @contextmanager
    def _database(self) -> Iterator[sqlite3.Connection]:
        """A connection for one piece of work; an unfinished transaction is undone when it closes."""
        with self._connection() as database:
            # WAL lets readers go on while one process writes; NORMAL loses nothing when a process is killed.
            _use_wal(database)
            database.execute("PRAGMA synchronous = NORMAL")
            yield database

    @contextmanager
    def _connection(self) -> Iterator[sqlite3.Connection]:
        """A connection that has written nothing yet; what goes wrong on it is a CacheError."""
        try:
            # isolation_level=None: transactions begin and end where this file says so.
            with (
                _USES.use(),
                closing(sqlite3.connect(self.path, timeout=BUSY_TIMEOUT_S, isolation_level=None)) as database,
            ):
                # A damaged letter must not cost the rows around it.
                database.text_factory = lambda text: text.decode("utf-8", "replace")
                yield database
        except (sqlite3.Error, OverflowError, TypeError, ValueError) as error:
            raise self._typed(error) from error

    def _typed(self, error: Exception) -> CacheError:
        """Convert what SQLite raises, or Python on values that SQLite cannot hold or should not have held."""
        path = display_name(self.path)
        # Errors of Python's own module, such as a text that is not UTF-8, have no name.
        name = getattr(error, "sqlite_errorname", "")
        if name.startswith(("SQLITE_BUSY", "SQLITE_LOCKED")):
            hint = "another process is writing to it: try again"
            return CacheError(f"cannot use {self.what} {path}: {error}", hint=hint, retryable=True)
        if name.startswith(_OF_THE_DISK) or not isinstance(error, sqlite3.DatabaseError):
            hint = "check the folder's rights and free space"
            return CacheError(f"cannot use {self.what} {path}: {reason_of(error)}", hint=hint)
        return CacheError(f"{self.what} {path} is damaged: {error}", hint=self.when_damaged)


class _Uses:
    """Uses of SQLite in this process, which a fork waits for.

    SQLite holds locks of the whole process while it works. If another thread holds one at the time of a fork, nobody
    ever releases it in the child, and the child's first use of any database hangs.
    """

    def __init__(self) -> None:
        self.renew()
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(
                before=self.before_fork, after_in_parent=self.after_fork_in_parent, after_in_child=self.renew
            )

    def renew(self) -> None:
        """Begin without uses: a child has none of the threads that made them."""
        self._changed = threading.Condition()
        self._forking = False
        self._count = 0
        self._own = threading.local()

    @contextmanager
    def use(self) -> Iterator[None]:
        """Count a use; while another thread forks, wait for it."""
        changed, own = self._changed, self._own
        depth = getattr(own, "depth", 0)
        with changed:
            changed.wait_for(lambda: depth or not self._forking)
            self._count += 1
            own.depth = depth + 1
        try:
            yield
        finally:
            own.depth = depth
            if changed is self._changed:  # else this is a child that was forked in the block
                with changed:
                    self._count -= 1
                    changed.notify_all()

    def before_fork(self) -> None:
        """Wait until no other thread is in SQLite, `FORK_WAIT_S` at most, and let none in."""
        self._changed.acquire()
        self._forking = True
        self._changed.wait_for(lambda: self._count <= getattr(self._own, "depth", 0), FORK_WAIT_S)

    def after_fork_in_parent(self) -> None:
        """Let the others in again."""
        self._forking = False
        self._changed.notify_all()
        self._changed.release()


_USES: Final = _Uses()


def _use_wal(database: sqlite3.Connection) -> None:
    """Change to a write-ahead log; where processes make the file at once, SQLite itself does not wait for its turn."""
    deadline = time.monotonic() + BUSY_TIMEOUT_S
    while True:
        try:
            database.execute("PRAGMA journal_mode = WAL").fetchall()
        except sqlite3.OperationalError as error:
            if not getattr(error, "sqlite_errorname", "").startswith("SQLITE_BUSY") or time.monotonic() > deadline:
                raise
            time.sleep(0.01)
        else:
            return
