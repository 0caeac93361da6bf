"""One bounded HTTP download, from hosts that the caller has named."""

from __future__ import annotations

import http.client
import os
import socket
import ssl
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from http.client import HTTPException
from typing import Any

from ume_retrieval.errors import MediaError, MediaNotFound, MediaTooLarge, RemoteNotAllowed
from ume_retrieval.media.limits import Limits
from ume_retrieval.media.remote.allowlist import AllowedHosts
from ume_retrieval.util.retry import BUSY_STATUS

TIMEOUT_S = 30.0
"""Most seconds of one download, from the first connection to the last byte; looking up names is not counted."""

_CHUNK_BYTES = 1 << 20


def fetch(address: str, limits: Limits, *, hosts: Sequence[str], timeout_s: float = TIMEOUT_S) -> bytes:
    """Download an http or https address into memory.

    A host is fetched from when it is on the list and all of its addresses are public, or in a network of the list; each
    redirect is held to the same, and none goes from https to http. The connection goes to the very address that was
    checked. Proxies of the environment are not used, since they would look names up again. Messages name the host
    alone, since addresses may carry secrets.

    Args:
        address: Where it is.
        limits: Its `max_bytes` counts.
        hosts: Names, patterns (`*.example.org`, `*`), addresses and networks that are allowed.
        timeout_s: Most seconds.

    Raises:
        RemoteNotAllowed: When scheme, host or network is another one, or the address carries a password.
        MediaNotFound: When the server says that there is nothing (4xx).
        MediaTooLarge: When more than `limits.max_bytes` arrive.
        MediaError: When the server or the network fails; `retryable` is set.
        InputError: When an entry of `hosts` is none.
    """
    allowed = AllowedHosts.of(hosts)
    parts = urllib.parse.urlsplit(address.strip())
    if parts.scheme.lower() not in ("http", "https") or not parts.hostname:
        raise RemoteNotAllowed(
            f"{parts.scheme.lower()}: addresses are not fetched", hint="only http and https are; download it yourself"
        )
    if "@" in parts.netloc:
        raise RemoteNotAllowed("an address with a user or password is not fetched", hint="download it yourself")
    allowed.check_name(parts.hostname)
    try:
        return _download(address.strip(), limits, timeout_s, parts.hostname, allowed)
    except urllib.error.HTTPError as error:
        with error:
            if error.code in BUSY_STATUS or error.code >= 500:
                raise _failed(parts.hostname, f"it answered {error.code}") from error
            raise MediaNotFound(f"{parts.hostname} answered {error.code}", hint="check the address") from error
    except (OSError, HTTPException, ValueError) as error:
        late = isinstance(error, TimeoutError) and str(error)
        reason = late or getattr(error, "reason", None) or type(error).__name__
        raise _failed(parts.hostname, str(reason)) from error


def _download(address: str, limits: Limits, timeout_s: float, host: str, allowed: AllowedHosts) -> bytes:
    line = _Line(allowed, timeout_s)
    # An opener of its own: the default one would use proxies, and follow a redirect to ftp.
    opener = urllib.request.OpenerDirector()
    for handler in (
        _Handler(line),
        _Redirects(),
        urllib.request.HTTPDefaultErrorHandler(),
        urllib.request.HTTPErrorProcessor(),
        urllib.request.UnknownHandler(),
    ):
        opener.add_handler(handler)
    received = bytearray()
    request = urllib.request.Request(address, headers={"User-Agent": "ume-retrieval"})  # noqa: S310  # checked above
    with line.deadline(), opener.open(request, timeout=timeout_s) as reply:
        while chunk := reply.read1(_CHUNK_BYTES):
            received += chunk
            if len(received) > limits.max_bytes:
                raise MediaTooLarge(f"{host} sent more than {limits.max_bytes} bytes", hint="raise Limits.max_bytes")
        if reply.length:
            raise HTTPException("the connection ended early")
    return bytes(received)


class _Line:
    """The connections of one download, which end together when its time is up."""

    def __init__(self, allowed: AllowedHosts, timeout_s: float) -> None:
        self._allowed = allowed
        self._timeout_s = timeout_s
        self._ends_at = time.monotonic() + timeout_s
        self._open: list[socket.socket] = []
        self._lock = threading.Lock()
        self._late = False

    def connect(self, host: str, port: int) -> socket.socket:
        """A connection to an allowed host."""
        connection = self._allowed.connect(host, port, max(0.01, self._ends_at - time.monotonic()))
        with self._lock:
            # A second handle on the same connection: shutting it down works under TLS as well, from any thread.
            self._open.append(socket.socket(fileno=os.dup(connection.fileno())))
            if self._late:
                self._hang_up()
        return connection

    @contextmanager
    def deadline(self) -> Iterator[None]:
        """Hang up when the time is over, whatever a server drips meanwhile."""
        timer = threading.Timer(max(0.0, self._ends_at - time.monotonic()), self._expire)
        timer.daemon = True
        timer.start()
        try:
            yield
            if self._late:
                raise TimeoutError(f"more than {self._timeout_s} s")
        except (OSError, HTTPException, ValueError) as error:
            if self._late:
                raise TimeoutError(f"more than {self._timeout_s} s") from error
            raise
        finally:
            timer.cancel()
            with self._lock:
                for handle in self._open:
                    handle.close()
                self._open.clear()

    def _expire(self) -> None:
        with self._lock:
            self._late = True
            self._hang_up()

    def _hang_up(self) -> None:
        for handle in self._open:
            with suppress(OSError):
                handle.shutdown(socket.SHUT_RDWR)


class _Handler(urllib.request.AbstractHTTPHandler):
    """http and https over connections to checked addresses."""

    def __init__(self, line: _Line) -> None:
        super().__init__()
        self._line = line
        self._tls = ssl.create_default_context()

    def http_open(self, request: urllib.request.Request) -> Any:
        return self.do_open(lambda host, **options: _Plain(host, self._line, **options), request)

    def https_open(self, request: urllib.request.Request) -> Any:
        return self.do_open(lambda host, **options: _Secure(host, self._line, self._tls, **options), request)

    http_request = https_request = urllib.request.AbstractHTTPHandler.do_request_


class _Plain(http.client.HTTPConnection):
    def __init__(self, host: str, line: _Line, **options: Any) -> None:
        super().__init__(host, **options)
        self._line = line

    def connect(self) -> None:
        self.sock = self._line.connect(self.host, self.port)


class _Secure(http.client.HTTPConnection):
    default_port = http.client.HTTPS_PORT

    def __init__(self, host: str, line: _Line, tls: ssl.SSLContext, **options: Any) -> None:
        super().__init__(host, **options)
        self._line = line
        self._tls = tls

    def connect(self) -> None:
        connection = self._line.connect(self.host, self.port)
        try:
            self.sock = self._tls.wrap_socket(connection, server_hostname=self.host)
        except BaseException:
            connection.close()
            raise


class _Redirects(urllib.request.HTTPRedirectHandler):
    """Follows a redirect to http and https, never out of https; the connection checks where it leads."""

    max_redirections = 5

    def redirect_request(  # noqa: PLR0917  # the base class's own
        self, req: urllib.request.Request, fp: Any, code: int, msg: str, headers: Any, newurl: str
    ) -> urllib.request.Request | None:
        if req.type == "https" and urllib.parse.urlsplit(newurl).scheme.lower() != "https":
            raise RemoteNotAllowed("a redirect out of https is not followed", hint="download it yourself")
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _failed(host: str, reason: str) -> MediaError:
    return MediaError(f"{host} could not be fetched: {reason}", hint="try again later", retryable=True)
