"""Download over HTTP from allowed hosts, within limits on size and time."""

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
"""Most seconds of a download, from the first connection to the last byte, without name resolution."""

_CHUNK_BYTES = 1 << 20


def fetch(address: str, limits: Limits, *, hosts: Sequence[str], timeout_s: float = TIMEOUT_S) -> bytes:
    """Download an http or https address into memory.

    The host must be on the list, and all its addresses must be public or in a network of the list; the same applies to
    each redirect, and none may lead from https to http. Connects to the checked address itself. Ignores proxies of the
    environment, which would resolve names again. Messages name only the host, since addresses may hold secrets.

    Args:
        address: The address.
        limits: Only `max_bytes` applies.
        hosts: Allowed names, patterns (`*.example.org`, `*`), addresses and networks.
        timeout_s: Most seconds.

    Raises:
        RemoteNotAllowed: When the address cannot be read or holds a password, or its scheme, host or network is not
            allowed.
        MediaNotFound: When the server answers 4xx.
        MediaTooLarge: When more than `limits.max_bytes` arrive.
        MediaError: When the server or the network fails; `retryable` is set.
        InputError: When an entry of `hosts` is invalid.
    """
    allowed = AllowedHosts.of(hosts)
    try:
        parts = urllib.parse.urlsplit(address.strip())
        _ = parts.port  # read from the text, and refused, only now
    except ValueError:  # its words may repeat a password
        raise RemoteNotAllowed("an address cannot be read", hint="correct it, or download the file yourself") from None
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
    except (UnicodeError, http.client.InvalidURL) as error:
        raise RemoteNotAllowed(
            "an address has characters that no request can carry", hint="percent-encode them, or download the file"
        ) from error
    except (OSError, HTTPException, ValueError) as error:
        late = isinstance(error, TimeoutError) and str(error)
        reason = late or getattr(error, "reason", None) or type(error).__name__
        raise _failed(parts.hostname, str(reason)) from error


def _download(address: str, limits: Limits, timeout_s: float, host: str, allowed: AllowedHosts) -> bytes:
    connections = _Connections(allowed, timeout_s)
    # The default opener would use proxies, and follow redirects to ftp.
    opener = urllib.request.OpenerDirector()
    for handler in (
        _Handler(connections),
        _Redirects(),
        urllib.request.HTTPDefaultErrorHandler(),
        urllib.request.HTTPErrorProcessor(),
        urllib.request.UnknownHandler(),
    ):
        opener.add_handler(handler)
    received = bytearray()
    request = urllib.request.Request(address, headers={"User-Agent": "ume-retrieval"})  # noqa: S310  # checked above
    with connections.deadline(), opener.open(request, timeout=timeout_s) as reply:
        while chunk := reply.read1(_CHUNK_BYTES):
            received += chunk
            if len(received) > limits.max_bytes:
                raise MediaTooLarge(f"{host} sent more than {limits.max_bytes} bytes", hint="raise Limits.max_bytes")
        if reply.length:
            raise HTTPException("the connection ended early")
    return bytes(received)


class _Connections:
    """The connections of one download, which are closed together at its deadline."""

    def __init__(self, allowed: AllowedHosts, timeout_s: float) -> None:
        self._allowed = allowed
        self._timeout_s = timeout_s
        self._ends_at = time.monotonic() + timeout_s
        self._open: list[socket.socket] = []
        self._lock = threading.Lock()
        self._late = False

    def connect(self, host: str, port: int) -> socket.socket:
        """Connect to an allowed host."""
        connection = self._allowed.connect(host, port, max(0.01, self._ends_at - time.monotonic()))
        with self._lock:
            # A duplicate handle can be shut down from any thread, also under TLS.
            self._open.append(socket.socket(fileno=os.dup(connection.fileno())))
            if self._late:
                self._shut_down()
        return connection

    @contextmanager
    def deadline(self) -> Iterator[None]:
        """Close the connections at the deadline, even if the server keeps sending slowly."""
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
            self._shut_down()

    def _shut_down(self) -> None:
        for handle in self._open:
            with suppress(OSError):
                handle.shutdown(socket.SHUT_RDWR)


class _Handler(urllib.request.AbstractHTTPHandler):
    """Opens http and https over connections to checked addresses."""

    def __init__(self, connections: _Connections) -> None:
        super().__init__()
        self._connections = connections
        self._tls = ssl.create_default_context()

    def http_open(self, request: urllib.request.Request) -> Any:
        return self.do_open(lambda host, **options: _HTTPConnection(host, self._connections, **options), request)

    def https_open(self, request: urllib.request.Request) -> Any:
        return self.do_open(
            lambda host, **options: _HTTPSConnection(host, self._connections, self._tls, **options), request
        )

    http_request = https_request = urllib.request.AbstractHTTPHandler.do_request_


class _HTTPConnection(http.client.HTTPConnection):
    def __init__(self, host: str, connections: _Connections, **options: Any) -> None:
        super().__init__(host, **options)
        self._connections = connections

    def connect(self) -> None:
        self.sock = self._connections.connect(self.host, self.port)


class _HTTPSConnection(http.client.HTTPConnection):
    default_port = http.client.HTTPS_PORT

    def __init__(self, host: str, connections: _Connections, tls: ssl.SSLContext, **options: Any) -> None:
        super().__init__(host, **options)
        self._connections = connections
        self._tls = tls

    def connect(self) -> None:
        connection = self._connections.connect(self.host, self.port)
        try:
            self.sock = self._tls.wrap_socket(connection, server_hostname=self.host)
        except BaseException:
            connection.close()
            raise


class _Redirects(urllib.request.HTTPRedirectHandler):
    """Follows redirects to http and https, never from https to http; the connection checks the host."""

    max_redirections = 5

    def redirect_request(  # noqa: PLR0917  # the base class's own
        self, req: urllib.request.Request, fp: Any, code: int, msg: str, headers: Any, newurl: str
    ) -> urllib.request.Request | None:
        if req.type == "https" and urllib.parse.urlsplit(newurl).scheme.lower() != "https":
            raise RemoteNotAllowed("a redirect out of https is not followed", hint="download it yourself")
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _failed(host: str, reason: str) -> MediaError:
    return MediaError(f"{host} could not be fetched: {reason}", hint="try again later", retryable=True)
