"""One bounded HTTP download, for callers that asked for it."""

from __future__ import annotations

import time
import urllib.error
import urllib.parse
import urllib.request
from http.client import HTTPException

from ume_retrieval.errors import MediaError, MediaNotFound, MediaTooLarge, RemoteNotAllowed
from ume_retrieval.media.limits import Limits

TIMEOUT_S = 30.0
"""Most seconds of one download, from the first connection to the last byte."""

_CHUNK_BYTES = 1 << 20


def fetch(address: str, limits: Limits, *, timeout_s: float = TIMEOUT_S) -> bytes:
    """Download an http or https address into memory.

    Redirects are followed to http and https only. Messages name the host alone, since addresses may carry secrets.

    Raises:
        RemoteNotAllowed: When the scheme is another one.
        MediaNotFound: When the server says that there is nothing (4xx).
        MediaTooLarge: When more than `limits.max_bytes` arrive.
        MediaError: When the server or the network fails; `retryable` is set.
    """
    parts = urllib.parse.urlsplit(address.strip())
    if parts.scheme.lower() not in ("http", "https") or not parts.hostname:
        raise RemoteNotAllowed(
            f"{parts.scheme.lower()}: addresses are not fetched", hint="only http and https are; download it yourself"
        )
    try:
        return _download(address.strip(), limits, timeout_s, parts.hostname)
    except urllib.error.HTTPError as error:
        with error:
            if error.code in (408, 425, 429) or error.code >= 500:
                raise _failed(parts.hostname, f"it answered {error.code}") from error
            raise MediaNotFound(f"{parts.hostname} answered {error.code}", hint="check the address") from error
    except (OSError, HTTPException, ValueError) as error:
        reason = getattr(error, "reason", None) or type(error).__name__
        raise _failed(parts.hostname, str(reason)) from error


def _download(address: str, limits: Limits, timeout_s: float, host: str) -> bytes:
    # An opener of its own: the default one would follow a redirect to ftp.
    opener = urllib.request.OpenerDirector()
    for handler in (
        urllib.request.ProxyHandler,
        urllib.request.HTTPHandler,
        urllib.request.HTTPSHandler,
        urllib.request.HTTPRedirectHandler,
        urllib.request.HTTPDefaultErrorHandler,
        urllib.request.HTTPErrorProcessor,
        urllib.request.UnknownHandler,
    ):
        opener.add_handler(handler())
    deadline = time.monotonic() + timeout_s
    received = bytearray()
    request = urllib.request.Request(address, headers={"User-Agent": "ume-retrieval"})  # noqa: S310  # checked above
    with opener.open(request, timeout=timeout_s) as reply:
        while chunk := reply.read1(_CHUNK_BYTES):
            received += chunk
            if len(received) > limits.max_bytes:
                raise MediaTooLarge(f"{host} sent more than {limits.max_bytes} bytes", hint="raise Limits.max_bytes")
            if time.monotonic() > deadline:
                raise TimeoutError(f"more than {timeout_s} s")
        if reply.length:
            raise HTTPException("the connection ended early")
    return bytes(received)


def _failed(host: str, reason: str) -> MediaError:
    return MediaError(f"{host} could not be fetched: {reason}", hint="try again later", retryable=True)
