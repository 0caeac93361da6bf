"""Start, query, time out and replace decoding worker processes."""

from __future__ import annotations

import atexit
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from io import FileIO
from typing import Any, TypeVar, cast

from ume_retrieval import errors
from ume_retrieval.errors import MediaCrashed, MediaError, MediaTimeout, MediaTooLarge, UmeError
from ume_retrieval.media.isolation.protocol import PipeReader, receive, send
from ume_retrieval.media.limits import Isolation

T = TypeVar("T")

ReadAnswer = Callable[[Mapping[str, Any], PipeReader], T]
"""Reads the rest of an answer; raises ValueError, KeyError or TypeError if it is malformed."""

START = (
    "import sys; sys.path[:] = sys.argv[3:]; from ume_retrieval.media.isolation.worker import serve;"
    "serve(int(sys.argv[1]), float(sys.argv[2]))"
)

TAINTING = (MediaTooLarge, MediaCrashed)
"""Errors after which a worker may be out of memory, or its decoder in an undefined state."""

PIPE_BYTES = 1024**2

START_S = 120.0
"""Most seconds for the start of a worker; beyond, it counts as broken."""

KEPT_VARIABLES = ("PATH", "LANG", "LC_ALL", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH", "SYSTEMROOT", "TMPDIR", "TEMP")
"""Environment variables that a worker inherits; none may hold a secret."""

# Each thread of a decoder would reserve address space.
LEAN = {"MALLOC_ARENA_MAX": "2", "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "PYTHONDONTWRITEBYTECODE": "1"}

_ERRORS = {kind.code: kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, UmeError)}


class WorkerPool:
    """Up to `isolation.workers` processes, started on demand. Thread-safe.

    Attributes:
        crashes: Number of items whose worker died.
        timeouts: Number of items whose worker was stopped.
    """

    def __init__(self, isolation: Isolation) -> None:
        self.crashes = self.timeouts = 0
        self._isolation = isolation
        self._free = threading.Semaphore(isolation.workers)
        self._lock = threading.Lock()
        self._idle: list[_Worker] = []

    def ask(self, name: str, request: Mapping[str, Any], body: bytes, read: ReadAnswer[T]) -> T:
        """Send a request to a worker and return its answer.

        A previous file may have damaged a worker. A used worker that dies is replaced and the request repeated; so is
        one that fails after an error of `TAINTING`, or, once, with a retryable error. A failure of a fresh worker is
        attributed to the item.

        Args:
            name: Name of the item in messages.
            request: The request; see `worker.OPERATIONS`.
            body: Encoded bytes, if the medium is not a file.
            read: Reads the answer.

        Raises:
            MediaTimeout: When it takes more than `isolation.seconds`.
            MediaCrashed: When the worker dies or its answer is malformed.
            UmeError: The error that the worker reports.
        """
        with self._free:
            worker = self._take()
            patient = True
            while True:
                try:
                    answered = worker.ask({**request, "bytes": len(body)}, body, read)
                except _WorkerDied as death:
                    if death.timed_out:
                        self.timeouts += 1
                        raise MediaTimeout(
                            f"{name} took more than {self._isolation.seconds:g} s to decode",
                            hint="leave the file out or raise Isolation.seconds",
                        ) from death
                    if worker.used:
                        worker = _Worker(self._isolation)
                        continue
                    self.crashes += 1
                    raise MediaCrashed(
                        f"{name} made its decoder fail: {death}", hint="leave the file out; it is damaged or hostile"
                    ) from death
                if isinstance(answered, MediaError) and (worker.tainted or (answered.retryable and patient)):
                    patient = patient and worker.tainted
                    worker.kill()
                    worker = _Worker(self._isolation)
                    continue
                worker.tainted = worker.tainted or isinstance(answered, TAINTING)
                with self._lock:
                    self._idle.append(worker)
                if isinstance(answered, UmeError):
                    raise answered
                return answered

    def close(self) -> None:
        """Stop the idle workers."""
        with self._lock:
            idle, self._idle = self._idle, []
        for worker in idle:
            worker.kill()

    def _take(self) -> _Worker:
        with self._lock:
            while self._idle:
                worker = self._idle.pop()
                if worker.process.poll() is None:
                    return worker
                worker.kill()  # killed from outside while idle
        return _Worker(self._isolation)


class _WorkerDied(Exception):
    """A worker has ended, or must be killed."""

    def __init__(self, reason: str, *, timed_out: bool = False) -> None:
        super().__init__(reason)
        self.timed_out = timed_out


@dataclass(slots=True)
class _Worker:
    isolation: Isolation
    process: subprocess.Popen[bytes] = field(init=False)
    used: bool = False
    tainted: bool = False

    def __post_init__(self) -> None:
        environment = {name: os.environ[name] for name in KEPT_VARIABLES if name in os.environ} | LEAN
        # Not multiprocessing, which imports the caller's main module and uses pickle.
        self.process = subprocess.Popen(  # noqa: S603  # this interpreter and a constant
            [sys.executable, "-c", START, str(self.isolation.memory_bytes), str(self.isolation.seconds), *sys.path],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            bufsize=0,
            env=environment,
            start_new_session=True,  # Ctrl+C reaches only the parent, which stops its workers
        )
        _widen(cast("FileIO", self.process.stdout))
        try:
            self._exchange(None, b"", lambda header, _: header["ready"], START_S)
        except _WorkerDied as death:
            raise MediaError(
                f"no decoding worker could be started: {death}",
                hint="free memory, or decode without Limits.isolation",
                retryable=True,
            ) from death

    def ask(self, request: Mapping[str, Any], body: bytes, read: ReadAnswer[T]) -> T | UmeError:
        answer = self._exchange(request, body, read, self.isolation.seconds)
        self.used = True
        return answer

    def _exchange(
        self, request: Mapping[str, Any] | None, body: bytes, read: ReadAnswer[T], seconds: float
    ) -> T | UmeError:
        # Popen is unbuffered, so its pipes are FileIO.
        pipe_in, pipe_out = cast("FileIO", self.process.stdin), cast("FileIO", self.process.stdout)
        late = threading.Event()

        def stop() -> None:
            late.set()
            self.process.kill()

        timer = threading.Timer(seconds, stop)
        timer.daemon = True
        timer.start()
        try:
            if request is not None:
                send(pipe_in, request, [body])
            header = receive(pipe_out)
            return _error_in(header) or read(header, pipe_out)
        except (OSError, EOFError, ValueError, KeyError, TypeError, IndexError) as error:
            self.kill()
            raise _WorkerDied(_cause(self.process.returncode, error), timed_out=late.is_set()) from error
        except BaseException:
            self.kill()  # its answer is partly read
            raise
        finally:
            timer.cancel()

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()
        for pipe in (self.process.stdin, self.process.stdout):
            if pipe is not None:
                with suppress(OSError):
                    pipe.close()


def _widen(pipe: FileIO) -> None:
    """Enlarge the pipe where the system supports it, for fewer context switches."""
    with suppress(ImportError, AttributeError, OSError):
        import fcntl

        fcntl.fcntl(pipe.fileno(), fcntl.F_SETPIPE_SZ, PIPE_BYTES)


def _error_in(header: Mapping[str, Any]) -> UmeError | None:
    if "unforeseen" in header:
        return MediaCrashed(
            f"a decoder failed with {header['unforeseen'][:50]!r}", hint="leave the file out; it is damaged or hostile"
        )
    if "error" not in header:
        return None
    said = header["error"]
    kind = _ERRORS.get(said["code"], MediaError)
    return kind(str(said["message"]), hint=str(said["hint"]), retryable=bool(said["retryable"]))


def _cause(code: int | None, error: Exception) -> str:
    if code is not None and code < 0 and isinstance(error, (EOFError, OSError)):
        with suppress(ValueError):
            return f"it died of {signal.Signals(-code).name}"
    return "it ended" if isinstance(error, (EOFError, OSError)) else "its answer is malformed"


_POOLS: dict[Isolation, WorkerPool] = {}
_POOLS_LOCK = threading.Lock()
_INHERITED: list[dict[Isolation, WorkerPool]] = []


def pool_of(isolation: Isolation) -> WorkerPool:
    """Return the pool of this process for these limits."""
    with _POOLS_LOCK:
        if isolation not in _POOLS:
            _POOLS[isolation] = WorkerPool(isolation)
        return _POOLS[isolation]


def close_pools() -> None:
    """Stop all idle workers; the next item starts new ones."""
    with _POOLS_LOCK:
        pools = list(_POOLS.values())
        _POOLS.clear()
    for pool in pools:
        pool.close()


def _after_fork() -> None:
    # The parent's workers answer the parent. They are kept referenced, since deleting them would kill them.
    global _POOLS, _POOLS_LOCK  # a fork starts with new pools
    _INHERITED.append(_POOLS)
    _POOLS, _POOLS_LOCK = {}, threading.Lock()


atexit.register(close_pools)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
