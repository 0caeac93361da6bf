"""One SQLite file of records by key, safe under several threads, several processes and `kill -9`."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Final

from ume_retrieval.errors import CacheError

BUSY_TIMEOUT_S: Final = 60.0


class SQLiteStore:
    """A file with one table of ours.

    A write is there entirely or not at all. No connection is held between calls, so an instance may be shared, forked
    and dropped.

    Args:
        path: The SQLite file; made, with its folders, when it is not there.
        what: What messages call it.
        table: Name of the table.
        schema: Makes the table when it is not there.
        application_id: Marks the file as ours, so that another program's database is never written to.
        when_damaged: What to do about a damaged file.

    Raises:
        CacheError: When the file is damaged, belongs to another program, or cannot be opened.
    """

    def __init__(
        self, path: str | Path, *, what: str, table: str, schema: str, application_id: int, when_damaged: str
    ) -> None:
        self.path = Path(path)
        self._what, self._table, self._when_damaged = what, table, when_damaged
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise CacheError(
                f"cannot make the folder of {what} {self.path}: {error.strerror}", hint="choose another path"
            ) from error
        # Before anything is written: the change to WAL would stay in another program's file.
        with self._connection() as database:
            self._refuse_others(database, application_id)
        with self._transaction() as database:
            self._refuse_others(database, application_id)
            database.execute(schema)
            database.execute(f"PRAGMA application_id = {application_id}")

    def __len__(self) -> int:
        with self._database() as database:
            # The table's name is the subclass' own word.
            [count] = database.execute(f"SELECT count(*) FROM {self._table}").fetchone()  # noqa: S608
        return int(count)

    def _refuse_others(self, database: sqlite3.Connection, application_id: int) -> None:
        # In this order: a process that makes the file meanwhile writes both at once.
        [tables] = database.execute("SELECT count(*) FROM sqlite_master").fetchone()
        [owner] = database.execute("PRAGMA application_id").fetchone()
        if tables and owner != application_id:
            raise CacheError(f"{self.path} is another program's database", hint=f"choose another path for {self._what}")

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
            with closing(sqlite3.connect(self.path, timeout=BUSY_TIMEOUT_S, isolation_level=None)) as database:
                yield database
        except sqlite3.OperationalError as error:
            busy = error.sqlite_errorname in {"SQLITE_BUSY", "SQLITE_LOCKED"}
            hint = "another process is writing to it: try again" if busy else "check the folder's rights and free space"
            raise CacheError(f"cannot use {self._what} {self.path}: {error}", hint=hint, retryable=busy) from error
        except sqlite3.DatabaseError as error:
            raise CacheError(f"{self._what} {self.path} is damaged: {error}", hint=self._when_damaged) from error


def _use_wal(database: sqlite3.Connection) -> None:
    """Change to a write-ahead log; where processes make the file at once, SQLite itself does not wait for its turn."""
    deadline = time.monotonic() + BUSY_TIMEOUT_S
    while True:
        try:
            database.execute("PRAGMA journal_mode = WAL").fetchall()
        except sqlite3.OperationalError as error:
            if not error.sqlite_errorname.startswith("SQLITE_BUSY") or time.monotonic() > deadline:
                raise
            time.sleep(0.01)
        else:
            return
