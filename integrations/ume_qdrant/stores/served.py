"""Serve an opened collection to other processes of the same user over a Unix socket, and call one that is served."""

from __future__ import annotations

import os
import socket
import struct
import sys
import tempfile
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Final, TypeAlias

from ume_qdrant.stores.wire import error_message, raise_error, receive, send
from ume_retrieval.errors import StoreLocked, UmeError

Call: TypeAlias = Callable[[str, Sequence[Any], Mapping[str, Any]], Any]
"""Calls a method of the opened collection, by name."""

FOLDER_PREFIX: Final = "ume-store-"

ANSWER_S: Final = 60.0
"""Longest wait for an answer; a search or a write of one batch takes far less than a second."""

LONG_CALLS: Final = {"optimize": 3600.0}
"""Longest waits for the calls that may take minutes."""

MOST_ADDRESS: Final = 100
"""Most bytes in the path of a Unix socket, below the 104 of macOS and the 108 of Linux."""


class OwnerGone(Exception):
    """The process that owns the collection has closed it, or has ended."""


class EngineServer:
    """Answers calls from a socket in a private folder, with one thread per connection.

    Args:
        call: Makes a call; raises `OwnerGone` once the collection is closed.

    Raises:
        OSError: If there are no Unix sockets here.
    """

    def __init__(self, call: Call) -> None:
        if not hasattr(socket, "AF_UNIX"):
            raise OSError("no Unix sockets")
        self._call = call
        self._connections: set[socket.socket] = set()
        self._lock = threading.Lock()
        self._folder = _private_folder()
        self.address = str(self._folder / "s")
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            self._socket.bind(self.address)
            self._socket.listen(128)
        except OSError:
            self._socket.close()
            remove_socket(self.address)
            raise

    def start(self) -> None:
        """Begin to answer; processes that have connected before wait until now."""
        threading.Thread(target=self._accept, name="ume-store-server", daemon=True).start()

    def stop(self) -> None:
        """End all connections and remove the socket."""
        with self._lock:
            connections, self._connections = self._connections, set()
        for one in (self._socket, *connections):
            with suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)  # wakes the thread that waits for it
            one.close()
        remove_socket(self.address)

    def abandon(self) -> None:
        """Close this process's copies of the descriptors, after a fork."""
        for one in (self._socket, *self._connections):
            one.close()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._socket.accept()
            except OSError:
                return
            if not _same_user(connection):
                connection.close()
                continue
            with self._lock:
                self._connections.add(connection)
            threading.Thread(target=self._answer, args=(connection,), name="ume-store-answer", daemon=True).start()

    def _answer(self, connection: socket.socket) -> None:
        try:
            while True:
                method, args, kwargs = receive(connection)
                try:
                    answer = {"result": self._call(method, args, kwargs)}
                except UmeError as error:
                    answer = error_message(error)
                send(connection, answer)
        except (OSError, EOFError, OwnerGone, UmeError, ValueError, TypeError):
            pass  # the other side is gone, or sends what is no message
        finally:
            with self._lock:
                self._connections.discard(connection)
            connection.close()


class RemoteEngine:
    """A collection that another process owns. Threads may share it; each call uses a connection of its own.

    Args:
        address: Path of the owner's socket.

    Raises:
        OSError: If nobody listens there.
    """

    def __init__(self, address: str) -> None:
        self._address = address
        self._lock = threading.Lock()
        self._idle = [self._connect()]
        self.closed = False

    def call(self, method: str, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
        """Make a call in the owner's process.

        Raises:
            OwnerGone: If the connection ends before the answer.
            StoreLocked: If the owner does not answer.
            UmeError: As the call itself raises.
        """
        connection: socket.socket | None = None
        try:
            with self._lock:
                connection = self._idle.pop() if self._idle else None
            if connection is None:
                connection = self._connect()
            connection.settimeout(LONG_CALLS.get(method, ANSWER_S))
            send(connection, [method, list(args), dict(kwargs)])
            answer = receive(connection)
        except TimeoutError as error:
            self._end(connection)
            raise StoreLocked(
                "the process that has the collection open does not answer",
                hint="continue or stop that process, then repeat the command",
                retryable=True,
            ) from error
        except (OSError, EOFError) as error:
            self._end(connection)
            raise OwnerGone from error
        except BaseException:
            self._end(connection)  # half an answer may be on its way
            raise
        with self._lock:
            if self.closed:
                connection.close()
            else:
                self._idle.append(connection)
        raise_error(answer)
        return answer["result"]

    def close(self) -> None:
        """Close the connections; those of calls in progress close when they end."""
        with self._lock:
            self.closed = True
            idle, self._idle = self._idle, []
        for one in idle:
            one.close()

    def _connect(self) -> socket.socket:
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            connection.settimeout(ANSWER_S)
            connection.connect(self._address)
        except BaseException:
            connection.close()
            raise
        return connection

    def _end(self, connection: socket.socket | None) -> None:
        self.closed = True
        if connection is not None:
            connection.close()


def remove_socket(address: str) -> None:
    """Remove a server's socket with its folder, also one that a killed process has left."""
    path = Path(address)
    if path.parent.name.startswith(FOLDER_PREFIX):
        with suppress(OSError):
            path.unlink(missing_ok=True)
        with suppress(OSError):
            path.parent.rmdir()


def _private_folder() -> Path:
    for parent in (None, "/tmp"):  # noqa: S108  # mkdtemp makes a folder of our own, for this user alone
        with suppress(OSError):
            folder = Path(tempfile.mkdtemp(prefix=FOLDER_PREFIX, dir=parent))
            if len(os.fsencode(folder)) < MOST_ADDRESS:
                return folder
            folder.rmdir()
    raise OSError("no folder for a Unix socket")


def _same_user(connection: socket.socket) -> bool:
    """Whether the other process is of this user; elsewhere than on Linux, the folder's permissions see to it."""
    if not sys.platform.startswith("linux"):
        return True
    credentials = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
    _, user, _ = struct.unpack("3i", credentials)
    return user in {os.geteuid(), 0}
