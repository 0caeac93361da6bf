"""One opened collection for all threads, stores and processes that use its folder.

The engine can be open in one process only. The first process that uses a collection owns it: it holds the lock of the
folder, opens the engine, and serves other processes of the same user over a Unix socket, whose address it records in
the lock's file. A process that finds the folder locked sends its calls there. When the owner closes the collection or
dies, the others notice that the connection ends, try to lock the folder, and one of them becomes the owner. The call in
the middle is repeated, which is safe because every write is idempotent.

Short locks that processes hand to each other would also be possible, but opening a collection takes 0.2 s at 20,000
points and grows with it: a search would pay for it twice, and an indexing process would stand still meanwhile.

Where Unix sockets do not exist, between users and between machines, a locked folder is a `StoreLocked`.
"""

from __future__ import annotations

import ctypes
import errno
import logging
import os
import tempfile
import threading
import time
import weakref
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path
from typing import Any, Final

from ume_qdrant.stores.edge_engine import READS, EdgeEngine, damaged_files, locked
from ume_qdrant.stores.edge_folder import LOCK_FILE, FileLock, lock_record
from ume_qdrant.stores.seal import Seal, copy_collection
from ume_qdrant.stores.served import EngineServer, OwnerGone, RemoteEngine, remove_socket
from ume_retrieval.errors import StoreError, StoreLocked

logger = logging.getLogger(__name__)

PROTOCOL: Final = 1
"""Version of the calls and messages between processes."""

RETRY_S: Final = 0.02

PATIENCE_S: Final = {"serving": 2.0, "closing": 120.0, "private": 0.0}
"""How long a locked folder is tried again, by what its owner has recorded; 2 s if that is nothing."""


class Lease:
    """A store's use of an opened collection; the last one in a process closes it.

    Args:
        engine: The engine, in this process or another.
    """

    def __init__(self, engine: OwnedEngine | CopiedEngine | RemoteEngine) -> None:
        self._engine = engine
        self.pid = os.getpid()
        # Also when the store is forgotten, and when the interpreter ends.
        self._leave = weakref.finalize(self, _leave, engine, self.pid)

    @property
    def usable(self) -> bool:
        """Whether the collection is still open, and in the process that opened it."""
        return not self._engine.closed and self.pid == os.getpid()

    def call(self, method: str, *args: Any, **kwargs: Any) -> Any:
        """Call a method of `EdgeEngine`.

        Raises:
            OwnerGone: If the owner has closed the collection or has ended; the call may or may not have been made.
            UmeError: As the method raises.
        """
        return self._engine.call(method, args, kwargs)

    def release(self) -> None:
        """End the use; idempotent."""
        self._leave()


class Turnstile:
    """Lets as many calls in at once as there are processors, in the order in which they come.

    Without it, threads that return from the engine wait for Python's lock in no order, 5 ms at a time, and one search
    in a hundred takes ten times as long as the others.

    Args:
        places: Calls at once, >= 1.
    """

    def __init__(self, places: int) -> None:
        self._free = places
        self._lock = threading.Lock()
        self._waiting: deque[threading.Lock] = deque()

    def __enter__(self) -> None:
        with self._lock:
            if self._free:
                self._free -= 1
                return
            turn = threading.Lock()
            turn.acquire()
            self._waiting.append(turn)
        try:
            turn.acquire()
        except BaseException:
            with self._lock:
                has_turn = turn not in self._waiting
                if not has_turn:
                    self._waiting.remove(turn)
            if has_turn:
                self._pass_on()
            raise

    def __exit__(self, *exc: object) -> None:
        self._pass_on()

    def _pass_on(self) -> None:
        with self._lock:
            if self._waiting:
                self._waiting.popleft().release()
            else:
                self._free += 1


class OwnedEngine:
    """The opened collection in the process that owns it.

    Args:
        folder: The collection's folder.
        lock: Its lock; released by `close`, or if the collection cannot be opened.
    """

    def __init__(self, folder: Path, lock: FileLock) -> None:
        self.folder, self._lock = folder, lock
        self._idle = threading.Condition()
        self._searches = Turnstile(os.cpu_count() or 1)
        self._busy = 0
        self.users = 0
        self.closed = False
        self._server: EngineServer | None = None
        try:
            remove_socket(str(lock_record(folder).get("socket", "")))  # of an owner that was killed
            with suppress(OSError):
                self._server = EngineServer(self.call)
            self._record("serving" if self._server else "private")
            self._engine = EdgeEngine(folder)
        except BaseException:
            self._release()
            raise
        with _GUARD:
            _OWNED.add(self)
        if self._server is not None:
            self._server.start()

    def call(self, method: str, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
        """Call a method of the engine unless it is closed."""
        with self._idle:
            if self.closed:
                raise OwnerGone
            self._busy += 1
        try:
            with self._searches if method in READS else nullcontext():
                return self._engine.call(method, args, kwargs)
        finally:
            with self._idle:
                self._busy -= 1
                if self.closed:
                    self._idle.notify_all()

    def close(self) -> None:
        """Wait for calls in progress, close the engine and release the folder."""
        with self._idle:
            if self.closed:
                return
            self.closed = True
            self._record("closing")
            self._idle.wait_for(lambda: self._busy == 0)
        with _GUARD:
            _OWNED.discard(self)
        try:
            self._engine.close()
        finally:
            self._release()

    def abandon(self) -> None:
        """Give up the copy in a forked process, which has none of the engine's threads.

        Copies of descriptors would keep locks and connections after their owner has closed its own. The engine's memory
        is never freed: that would write to the files.
        """
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(self._engine))
        self._lock.release()
        if self._server is not None:
            self._server.abandon()
        _close_descriptors(self.folder)

    def _record(self, state: str) -> None:
        address = self._server.address if self._server else ""
        self._lock.record({"protocol": PROTOCOL, "pid": os.getpid(), "state": state, "socket": address})

    def _release(self) -> None:
        if self._server is not None:
            self._server.stop()
        self._lock.release()


class CopiedEngine:
    """A collection that this user cannot write, opened as a copy, because the engine writes to its files even to read.

    The copy takes as much time and space as the collection has data, and does not see what others write later. It lies
    in the temporary folder and is removed by `close`.

    Args:
        folder: The collection's folder.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.users = 0
        self.closed = False
        record = lock_record(folder)
        if record.get("state") in {"serving", "closing"} and _is_held(folder):
            raise locked(folder, by="a process of another user")
        if (seal := Seal.read(folder)) is not None and (damaged := seal.damaged(folder, by_time=True)):
            raise damaged_files(folder, damaged)
        self._copy = tempfile.TemporaryDirectory(prefix="ume-copy-")
        target = Path(self._copy.name) / folder.name
        copy_collection(folder, target)
        logger.warning("collection %r in %s cannot be written: reading a copy of it", folder.name, folder.parent)
        self._engine = EdgeEngine(target)

    def call(self, method: str, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
        """Call a method of the engine that only reads."""
        if method not in READS:
            raise StoreError(
                f"collection {self.folder.name!r} in {self.folder.parent} cannot be written",
                hint="check the permissions of its folder, or copy it with `ume store migrate`",
            )
        return self._engine.call(method, args, kwargs)

    def close(self) -> None:
        """Close and remove the copy."""
        self.closed = True
        try:
            self._engine.close()
        finally:
            self._copy.cleanup()


class _Entry:
    """What this process knows of a folder: its own opened collection, if it has one."""

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self.owned: OwnedEngine | CopiedEngine | None = None


_GUARD = threading.RLock()
"""Held while the two below change, and by a fork, so that no process begins with it locked."""

_ENTRIES: dict[Path, _Entry] = {}
_OWNED: set[OwnedEngine] = set()


def lease(folder: Path) -> Lease:
    """Use a collection: the one that this process has open, that of its owner, or else open it.

    Args:
        folder: The collection's folder.

    Raises:
        CollectionNotFound: If it holds no collection.
        StoreLocked: If another process holds the folder and does not share it.
        StoreError: If it cannot be opened.
    """
    entry = _entry(folder)
    started = time.monotonic()
    while True:
        why: StoreLocked
        try:
            with entry.lock:
                if entry.owned is None or entry.owned.closed:
                    entry.owned = _own(folder)
                entry.owned.users += 1
                return Lease(entry.owned)
        except BlockingIOError:
            why = locked(folder)
        except StoreLocked as error:  # the engine of a process that is about to end, or that does not know of us
            why = error
        record = lock_record(folder)
        if record.get("protocol", PROTOCOL) != PROTOCOL:
            raise locked(folder, by="another version of this library")
        if record.get("state") == "serving":
            with suppress(OSError):
                return Lease(RemoteEngine(record["socket"]))
        if time.monotonic() - started > PATIENCE_S.get(record.get("state", ""), 2.0):
            raise why
        time.sleep(RETRY_S)


def _own(folder: Path) -> OwnedEngine | CopiedEngine:
    try:
        lock = FileLock(folder)
    except OSError as error:
        if error.errno not in {errno.EACCES, errno.EPERM, errno.EROFS}:
            raise
        return CopiedEngine(folder)
    return OwnedEngine(folder, lock)


def _is_held(folder: Path) -> bool:
    """Whether a process holds the lock of a folder that cannot be written."""
    try:
        import fcntl

        with (folder / LOCK_FILE).open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except (ImportError, OSError):
        return False
    return False


@contextmanager
def exclusive(folder: Path) -> Iterator[None]:
    """Hold a collection's folder while nobody has it open.

    Raises:
        StoreLocked: If a process, also this one, has it open.
    """
    entry = _entry(folder)
    with entry.lock:
        if entry.owned is not None and not entry.owned.closed:
            raise locked(folder, by="another store of this process")
        try:
            lock = FileLock(folder)
        except BlockingIOError as error:
            raise locked(folder) from error
        except OSError as error:
            raise StoreError(
                f"collection {folder.name!r} in {folder.parent} cannot be written: {error.strerror}",
                hint="check the permissions of its folder",
            ) from error
        try:
            lock.record({"protocol": PROTOCOL, "pid": os.getpid(), "state": "private"})
            yield
        finally:
            lock.release()


def _entry(folder: Path) -> _Entry:
    with _GUARD:
        return _ENTRIES.setdefault(folder.resolve(), _Entry())


def _leave(engine: OwnedEngine | CopiedEngine | RemoteEngine, pid: int) -> None:
    if pid != os.getpid():
        return
    if isinstance(engine, RemoteEngine):
        engine.close()
        return
    with _entry(engine.folder).lock:
        engine.users -= 1
        if engine.users == 0:
            engine.close()


def _after_fork() -> None:
    for engine in _OWNED:
        engine.abandon()
    _OWNED.clear()
    _ENTRIES.clear()
    _GUARD.release()


def _close_descriptors(folder: Path) -> None:
    prefix = str(folder.resolve()) + os.sep
    with suppress(OSError):
        for name in os.listdir("/proc/self/fd"):  # noqa: PTH208  # names are numbers
            with suppress(OSError):
                if os.readlink(f"/proc/self/fd/{name}").startswith(prefix):  # noqa: PTH115
                    os.close(int(name))


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_GUARD.acquire, after_in_parent=_GUARD.release, after_in_child=_after_fork)
