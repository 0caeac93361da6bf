"""Budgets of a server's answer: bytes and seconds of all of it, headers included.

The time-out of an HTTP client starts again with every byte, so a server that drips would hold a request for days; and
an answer without an end would fill the memory. Both are counted where bytes are read from the socket.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    import ssl

    import httpx

    from ume_retrieval.engines.server.options import ServerOptions

CONNECT_S: Final = 10.0


class AnswerTooLarge(Exception):
    """More bytes arrived than one answer may have."""


class AnswerTooSlow(Exception):
    """The answer was not complete in time."""


class _Budget(threading.local):
    """What is left to the request of this thread; without a request, everything."""

    bytes_left: float = float("inf")
    ends_at: float = float("inf")

    def seconds(self, timeout: float | None) -> float | None:
        """Return how long the next step may wait."""
        if self.ends_at == float("inf"):
            return timeout
        left = self.ends_at - time.monotonic()
        if left <= 0:
            raise AnswerTooSlow
        return left if timeout is None else min(left, timeout)

    def take(self, count: int) -> None:
        """Count bytes that have arrived."""
        self.bytes_left -= count
        if self.bytes_left < 0:
            raise AnswerTooLarge


_BUDGET = _Budget()


@contextmanager
def answer_budget(most_bytes: int, most_s: float) -> Iterator[None]:
    """Limit what this thread reads through clients of `budgeted_client` during the block.

    Raises:
        AnswerTooLarge: When more bytes than that arrive, as sent (compressed, with headers) or as read.
        AnswerTooSlow: When it takes longer.
    """
    _BUDGET.bytes_left, _BUDGET.ends_at = most_bytes, time.monotonic() + most_s
    try:
        yield
    finally:
        del _BUDGET.bytes_left, _BUDGET.ends_at


def budgeted_client(options: ServerOptions, connections: int) -> httpx.Client:
    """Return a client whose reads count for the `answer_budget` of their thread.

    Args:
        options: Key and patience.
        connections: Most connections at a time.
    """
    import httpx

    client = httpx.Client(
        # Brotli and zstd blow a few bytes up to any size in one step.
        headers={"Accept-Encoding": "gzip, deflate"}
        | ({"Authorization": f"Bearer {options.key}"} if options.key else {}),
        timeout=httpx.Timeout(options.timeout_s, connect=min(CONNECT_S, options.timeout_s)),
        limits=httpx.Limits(max_connections=connections),
    )
    # httpx hands no network backend on to httpcore. The mounts are the proxies of the environment.
    for transport in (client._transport, *client._mounts.values()):  # noqa: SLF001
        pool = getattr(transport, "_pool", None)
        if pool is not None:
            pool._network_backend = _Backend(pool._network_backend)  # noqa: SLF001
    return client


@dataclass(frozen=True, slots=True)
class HTTPAnswer:
    """A whole answer.

    Attributes:
        status: HTTP status.
        body: Bytes, decompressed.
        retry_after: Value of that header, or None.
    """

    status: int
    body: bytes
    retry_after: str | None


def ask_within(client: httpx.Client, request: httpx.Request, most_bytes: int, most_s: float) -> HTTPAnswer:
    """Send a request and read its answer within a budget.

    Args:
        client: From `budgeted_client`.
        request: Built by the client.
        most_bytes: Most bytes of the answer, as sent and as decompressed.
        most_s: Most seconds, from the connection to the last byte.

    Raises:
        AnswerTooLarge: When the answer is larger.
        AnswerTooSlow: When it takes longer.
        httpx.HTTPError: When the connection fails, or the answer is not HTTP.
    """
    import httpx

    with answer_budget(most_bytes, most_s):
        response = client.send(request, stream=True)
        try:
            if not {"gzip", "deflate", "identity"}.issuperset(_encodings(response)):
                raise httpx.DecodingError("an encoding that was not asked for")
            body = bytearray()
            for chunk in response.iter_bytes():
                body += chunk
                if len(body) > most_bytes:
                    raise AnswerTooLarge
        finally:
            response.close()
    return HTTPAnswer(response.status_code, bytes(body), response.headers.get("retry-after"))


def _encodings(response: httpx.Response) -> list[str]:
    named = response.headers.get("content-encoding", "").lower().split(",")
    return [name.strip() for name in named if name.strip()]


class _Backend:
    """A network backend of httpcore whose streams keep to the budget of the thread that uses them."""

    def __init__(self, backend: Any) -> None:
        self._backend = backend

    def connect_tcp(self, host: str, port: int, timeout: float | None = None, **options: Any) -> _Stream:
        return _Stream(self._backend.connect_tcp(host, port, _BUDGET.seconds(timeout), **options))

    def connect_unix_socket(self, path: str, timeout: float | None = None, **options: Any) -> _Stream:
        return _Stream(self._backend.connect_unix_socket(path, _BUDGET.seconds(timeout), **options))

    def sleep(self, seconds: float) -> None:
        self._backend.sleep(seconds)


class _Stream:
    """A connection; every read and write waits at most until the end of the budget."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        with _late():
            data: bytes = self._stream.read(max_bytes, _BUDGET.seconds(timeout))
        _BUDGET.take(len(data))
        return data

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        with _late():
            self._stream.write(buffer, _BUDGET.seconds(timeout))

    def close(self) -> None:
        self._stream.close()

    def start_tls(
        self, ssl_context: ssl.SSLContext, server_hostname: str | None = None, timeout: float | None = None
    ) -> _Stream:
        with _late():
            return _Stream(self._stream.start_tls(ssl_context, server_hostname, _BUDGET.seconds(timeout)))

    def get_extra_info(self, info: str) -> Any:
        return self._stream.get_extra_info(info)


@contextmanager
def _late() -> Iterator[None]:
    """Tell a time-out at the end of the budget from one after silence."""
    import httpcore

    try:
        yield
    except httpcore.TimeoutException:
        _BUDGET.seconds(None)
        raise
