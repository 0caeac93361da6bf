"""What every request passes first: host, origin, key, rate, size and time of its body; and headers of every reply."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import json
import re
import time
import uuid
from collections import OrderedDict
from typing import Final
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ume_serve.settings import Settings

OPEN_PATHS: Final = frozenset({"/", "/health", "/ready"})
"""Paths that need no key: the page asks for one, and supervisors have none."""

REQUEST_ID: Final = re.compile(r"[A-Za-z0-9._-]{1,64}")

COUNTED: Final = 10_000
"""Clients whose rate is remembered."""

HEADERS: Final = {
    "content-security-policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob:; "
    "media-src 'self' blob:; connect-src 'self'; form-action 'none'; base-uri 'none'; frame-ancestors 'none'",
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-resource-policy": "same-origin",
    "cache-control": "no-store",
}


class Refused(Exception):
    """A request that is answered without being handled.

    Args:
        status: HTTP status.
        code: The error's name.
        message: One line.
    """

    def __init__(self, status: int, code: str, message: str) -> None:
        super().__init__(message)
        self.status, self.code, self.message = status, code, message


class Guard:
    """An ASGI middleware that refuses what the settings do not allow.

    Args:
        app: Handles the other requests.
        settings: Hosts, keys and bounds.
    """

    def __init__(self, app: ASGIApp, settings: Settings) -> None:
        self._app, self._settings = app, settings
        self._keys = [_digest(key) for key in settings.keys]
        self._handled = 0
        self._counts: OrderedDict[tuple[str, int], int] = OrderedDict()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Check a request and pass it on."""
        if scope["type"] == "lifespan":
            return await self._app(scope, receive, send)
        if scope["type"] != "http":
            return None  # no websockets here: the connection is closed
        headers = Headers(scope=scope)
        given = headers.get("x-request-id", "")
        request_id = given if REQUEST_ID.fullmatch(given) else uuid.uuid4().hex
        scope["state"] = {**scope.get("state", {}), "request_id": request_id}
        begun, dropped, body = False, False, _Body(receive, self._settings)

        async def sent(message: Message) -> None:
            nonlocal begun, dropped
            if dropped:
                return
            if message["type"] == "http.response.start":
                # Frameworks take a refusal for a broken body: their answer is replaced.
                if body.refused is not None and not begun:
                    begun = True
                    await _refuse(sent, body.refused)
                    dropped = True
                    return
                begun = True
                added = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    added.setdefault(name, value)
                added["x-request-id"] = request_id
            await send(message)

        self._handled += 1
        try:
            self._check(scope, headers)
            body.check_length(headers)
            await self._app(scope, body.receive, sent)
        except Refused as refused:
            if not begun:
                await _refuse(sent, refused)
        finally:
            self._handled -= 1
        return None

    def _check(self, scope: Scope, headers: Headers) -> None:
        hosts = headers.getlist("host")
        name = _hostname(hosts[0]) if len(hosts) == 1 else None
        if name is None or ("*" not in self._settings.hosts and name not in self._settings.hosts):
            raise Refused(421, "unknown_host", "this server does not answer under that host name; see --allow-host")
        origin = headers.get("origin")
        same = origin is None or urlsplit(origin).netloc.lower() == hosts[0].lower()
        if not same or headers.get("sec-fetch-site") in {"cross-site", "same-site"}:
            raise Refused(403, "foreign_origin", "pages of other origins may not use this server")
        client = self._client(scope, headers)
        if scope["path"] in {"/health", "/ready"}:
            return
        if self._handled > self._settings.max_requests:
            raise Refused(503, "busy", "too many requests at the same time; try again in a moment")
        self._count(client)

    def _client(self, scope: Scope, headers: Headers) -> str:
        if not self._keys:
            return str((scope.get("client") or ("",))[0])
        scheme, _, key = headers.get("authorization", "").partition(" ")
        given = _digest(key.strip() if scheme.lower() == "bearer" else headers.get("x-api-key", ""))
        # Every key is compared, in constant time.
        if sum(hmac.compare_digest(given, one) for one in self._keys):
            return given.hex()
        if scope["path"] in OPEN_PATHS or scope["path"].startswith("/static/"):
            return str((scope.get("client") or ("",))[0])
        raise Refused(401, "key_needed", "give an API key: Authorization: Bearer KEY")

    def _count(self, client: str) -> None:
        most = self._settings.requests_per_minute
        if most is None:
            return
        minute = client, int(time.monotonic() // 60)
        self._counts[minute] = self._counts.get(minute, 0) + 1
        while len(self._counts) > COUNTED:
            self._counts.popitem(last=False)
        if self._counts[minute] > most:
            raise Refused(429, "rate_limited", f"at most {most} requests a minute")


class _Body:
    """Receives a request's body within its bounds of size and time.

    Attributes:
        refused: Why it was refused.
    """

    def __init__(self, receive: Receive, settings: Settings) -> None:
        self._receive = receive
        self._most = self._left = settings.max_body_bytes
        self._until = time.monotonic() + settings.body_timeout_s
        self._complete = False
        self.refused: Refused | None = None

    def check_length(self, headers: Headers) -> None:
        """Refuse a length that is too large before anything is read."""
        length = headers.get("content-length", "0")
        if not length.isdigit() or int(length) > self._most:
            raise self._too_large()

    async def receive(self) -> Message:
        """Receive the next part; after the last one, wait for the client to go."""
        if self._complete:
            return await self._receive()
        if self.refused is not None:
            raise self.refused
        try:
            message = await asyncio.wait_for(self._receive(), max(0.001, self._until - time.monotonic()))
        except TimeoutError:
            self.refused = Refused(408, "body_too_slow", "the request's body took too long")
            raise self.refused from None
        self._left -= len(message.get("body", b""))
        self._complete = not message.get("more_body", False)
        if self._left < 0:
            self.refused = self._too_large()
            raise self.refused
        return message

    def _too_large(self) -> Refused:
        return Refused(413, "body_too_large", f"a request may have {self._most:,} bytes")


def _hostname(host: str) -> str | None:
    found = re.fullmatch(r"(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+)(:\d{1,5})?", host)
    return found[1].lower() if found else None


def _digest(key: str) -> bytes:
    return hashlib.sha256(key.encode("utf-8", "replace")).digest()


async def _refuse(send: Send, refused: Refused) -> None:
    error = {"code": refused.code, "message": refused.message, "type": "invalid_request_error"}
    body = json.dumps({"error": error}).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    if refused.status in {429, 503}:
        headers.append((b"retry-after", b"1"))
    if refused.status in {408, 413}:
        headers.append((b"connection", b"close"))
    await send({"type": "http.response.start", "status": refused.status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
