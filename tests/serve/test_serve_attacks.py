"""What strangers try: nothing gets through, and the server goes on."""

from __future__ import annotations

import asyncio
import contextlib
import io
import json
import socket
import struct
import time
import zlib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import httpx
import pytest
from serve_world import HOSTILE, served, with_own_store

from ume_retrieval import UmeError
from ume_retrieval.testing import fake_embedder
from ume_serve import Settings
from ume_serve.replies import error_body, shown_name, without_paths
from ume_serve.service import limits_of
from ume_serve.settings import read_keys

KEY, OTHER = "k" * 24, "o" * 24


@pytest.fixture(scope="module")
def guarded(settings: Settings, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    own = with_own_store(settings, tmp_path_factory.mktemp("guarded"), keys=(KEY, OTHER))
    with served(replace(own, max_body_bytes=100_000, body_timeout_s=1.0, requests_per_minute=1000)) as base:
        yield base


def asked(base: str, key: str = KEY) -> httpx.Client:
    return httpx.Client(base_url=base, timeout=20, headers={"authorization": f"Bearer {key}"})


def raw(base: str, request: bytes, wait_s: float = 5.0) -> bytes:
    """Send bytes as they are, and return everything that comes back."""
    address = httpx.URL(base)
    with socket.create_connection((address.host, address.port), timeout=wait_s) as connection:
        connection.sendall(request)
        answer = b""
        try:
            while part := connection.recv(65_536):
                answer += part
                if b"\r\n\r\n" in answer and b"}" in answer:
                    break
        except TimeoutError:
            pass
        return answer


@pytest.mark.parametrize(
    "host", ["attacker.example", "127.0.0.1.attacker.example", "localhost@attacker.example", "", "a b"]
)
def test_other_host_names_are_refused(base: str, host: str) -> None:
    answer = raw(base, f"GET /api/collections HTTP/1.1\r\nHost: {host}\r\n\r\n".encode())
    assert answer.split(b" ")[1] in {b"421", b"400"}
    assert b"hash-embedder" not in answer


def test_two_host_headers_are_refused(base: str) -> None:
    answer = raw(base, b"GET /api/collections HTTP/1.1\r\nHost: 127.0.0.1\r\nHost: attacker.example\r\n\r\n")
    assert answer.split(b" ")[1] in {b"421", b"400"}


@pytest.mark.parametrize(
    "headers",
    [{"origin": "https://attacker.example"}, {"origin": "null"}, {"sec-fetch-site": "cross-site"}],
    ids=["origin", "null", "fetch"],
)
def test_pages_of_other_origins_are_refused(client: httpx.Client, headers: dict[str, str]) -> None:
    for answer in (
        client.post("/api/search", json={"text": "red"}, headers=headers),
        client.post("/api/index", headers=headers),
        client.get("/api/collections", headers=headers),
    ):
        assert answer.status_code == 403
        assert "access-control-allow-origin" not in answer.headers


def test_the_own_origin_is_admitted(client: httpx.Client, base: str) -> None:
    headers = {"origin": base, "sec-fetch-site": "same-origin"}
    assert client.post("/api/search", json={"text": "red"}, headers=headers).status_code == 200


@pytest.mark.parametrize(
    "path",
    [
        "/api/points/../../etc/passwd/picture",
        "/api/points/..%2f..%2f..%2fetc%2fpasswd/picture",
        "/api/points/%2e%2e/%2e%2e/video",
        "/api/points//etc/passwd/video",
        "/static/../settings.py",
        "/static/..%2fsettings.py",
        "/static/%2e%2e/settings.py",
        "//etc/passwd",
        "/etc/passwd",
    ],
)
def test_paths_lead_nowhere(base: str, path: str) -> None:
    answer = raw(base, f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n".encode())
    assert answer.split(b" ")[1] in {b"404", b"405", b"422"}
    assert b"root:" not in answer
    assert b"dataclass" not in answer


def test_no_reply_names_an_absolute_path(client: httpx.Client, settings: Settings) -> None:
    root = str(Path(settings.store).parent)
    texts = [
        client.post("/api/search", json={"text": "train"}).text,
        client.get("/api/collections").text,
        client.get("/api/index").text,
        client.get("/openapi.json").text,
        client.post("/api/search/upload", files={"file": ("/etc/x.mp4", b"broken")}).text,
        client.post("/api/search/upload", files={"file": ("../../x.png", b"broken")}).text,
    ]
    assert all(root not in text and "/tmp" not in text and "ume-upload" not in text for text in texts)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("cannot read /srv/data/My Photos/a b.jpg: gone", "cannot read a b.jpg: gone"),
        (r"C:\Users\ann\x.png is broken", "x.png is broken"),
        ("see https://example.org/a/b and 3/4", "see https://example.org/a/b and 3/4"),
    ],
)
def test_messages_lose_their_paths(text: str, shown: str) -> None:
    assert without_paths(text) == shown
    assert error_body(UmeError(text))["error"]["message"] == shown


def test_names_lose_their_folders() -> None:
    assert shown_name("/a/b/c/d.png") == "c/d.png"


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"authorization": "Bearer wrong"},
        {"authorization": f"Basic {KEY}"},
        {"x-api-key": KEY[:-1]},
        {"x-api-key": ""},
    ],
    ids=["none", "wrong", "basic", "short", "empty"],
)
def test_without_a_key_nothing_is_answered(guarded: str, headers: dict[str, str]) -> None:
    for method, path in (
        ("GET", "/api/collections"),
        ("POST", "/api/search"),
        ("POST", "/v1/embeddings"),
        ("GET", "/openapi.json"),
    ):
        assert httpx.request(method, guarded + path, headers=headers).status_code == 401
    assert httpx.get(f"{guarded}/health").status_code == 200


def test_every_key_is_admitted(guarded: str) -> None:
    for headers in ({"authorization": f"Bearer {KEY}"}, {"authorization": f"bearer {OTHER}"}, {"x-api-key": OTHER}):
        assert httpx.get(f"{guarded}/api/collections", headers=headers).status_code == 200


def test_the_rate_is_bounded_for_each_key(settings: Settings, tmp_path: Path) -> None:
    with served(with_own_store(settings, tmp_path, keys=(KEY, OTHER), requests_per_minute=5)) as base:
        with asked(base) as client:
            statuses = [client.get("/api/collections").status_code for _ in range(12)]
            refused = client.get("/api/collections")
        # A minute may end meanwhile, and begin a new count.
        assert statuses.count(200) in {5, 10}
        assert 429 in statuses or refused.status_code == 429
        with asked(base, OTHER) as client:
            assert client.get("/api/collections").status_code == 200


def test_large_bodies_are_refused_whatever_their_headers_say(guarded: str) -> None:
    with asked(guarded) as client:
        assert client.post("/api/search", content=b"x" * 200_000).status_code == 413

        def endless() -> Iterator[bytes]:
            for _ in range(1000):
                yield b" " * 10_000

        with contextlib.suppress(httpx.TransportError):  # the server may close while the client is still sending
            assert client.post("/api/search", content=endless()).status_code == 413
        assert client.post("/api/search", json={"text": "red"}).status_code == 200


def test_slow_bodies_are_ended_and_others_go_on(guarded: str) -> None:
    address = httpx.URL(guarded)
    head = (
        f"POST /api/search HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: Bearer {KEY}\r\nContent-Length: 1000\r\n\r\n{{"
    )
    slow = [socket.create_connection((address.host, address.port), timeout=10) for _ in range(40)]
    for connection in slow:
        connection.sendall(head.encode())
    began = time.monotonic()
    with asked(guarded) as client:
        assert client.post("/api/search", json={"text": "red"}).status_code == 200
    assert time.monotonic() - began < 5
    for connection in slow:
        assert connection.recv(4096).startswith(b"HTTP/1.1 408")
        connection.close()


def bomb(width: int, height: int) -> bytes:
    """A valid PNG of one colour: few bytes, many pixels."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    rows = zlib.compressobj(9)
    line = b"\0" * (1 + width // 8)
    data = b"".join(rows.compress(line) for _ in range(height)) + rows.flush()
    head = struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", data) + chunk(b"IEND", b"")


def test_decompression_bombs_in_parallel_cost_no_memory(base: str) -> None:
    import resource

    data = bomb(20_000, 20_000)
    assert len(data) < 100_000

    async def throw() -> list[httpx.Response]:
        async with httpx.AsyncClient(base_url=base, timeout=60) as client:
            files = {"file": ("x.png", data, "image/png")}
            return await asyncio.gather(*(client.post("/api/search/upload", files=files) for _ in range(20)))

    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    answers = asyncio.run(throw())
    assert {answer.status_code for answer in answers} == {413}
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 300 * 1024  # KiB


def test_uploads_are_decoded_in_workers(settings: Settings, tmp_path: Path) -> None:
    own = with_own_store(settings, tmp_path, isolate=True)
    with served(own, lambda: fake_embedder(limits=limits_of(own))) as base:
        import PIL.Image

        encoded = io.BytesIO()
        PIL.Image.new("RGB", (40, 40), "red").save(encoded, "PNG")
        answer = httpx.post(f"{base}/api/search/upload", files={"file": ("x.png", encoded.getvalue())}, timeout=60)
        assert answer.json()["hits"][0]["name"] == "media/red.png"
    assert limits_of(Settings()).isolation is not None


def test_words_of_files_are_data_in_every_reply(client: httpx.Client) -> None:
    answer = client.post("/api/search", json={"text": "script document title owned train", "kinds": ["text"]})
    assert any(HOSTILE in hit["name"] for hit in answer.json()["hits"])
    assert answer.headers["content-type"] == "application/json"
    for name, value in {
        "x-content-type-options": "nosniff",
        "referrer-policy": "no-referrer",
        "cross-origin-resource-policy": "same-origin",
    }.items():
        assert answer.headers[name] == value
    policy = answer.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy


@pytest.mark.parametrize("given", ["fine-1", "a\tb", "x" * 65, "<script>", "a: b"])
def test_request_ids_are_repeated_only_if_they_are_plain(client: httpx.Client, given: str) -> None:
    answer = client.get("/health", headers={"x-request-id": given})
    assert (answer.headers["x-request-id"] == given) == (given == "fine-1")


def test_headers_cannot_be_injected(base: str) -> None:
    request = b"GET /health HTTP/1.1\r\nHost: 127.0.0.1\r\nX-Request-Id: a\r\n Set-Cookie: x=1\r\n\r\n"
    assert b"set-cookie" not in raw(base, request).lower().split(b"\r\n\r\n")[0]
    assert (
        b"\r\nset-cookie" not in raw(base, b"GET /%0d%0aSet-Cookie:%20x=1 HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n").lower()
    )


def test_deep_and_odd_json(client: httpx.Client) -> None:
    for body in (b"[" * 50_000, b'{"text": "\\ud800"}', b'{"time": [1e999, 2]}', b'{"text": 1}', b"\xff", b"null"):
        answer = client.post("/api/search", content=body, headers={"content-type": "application/json"})
        assert answer.status_code in {400, 422}
    answer = client.post("/api/search", json={"text": "secret words", "limit": "x"})
    assert "secret" not in answer.text
    assert json.loads(answer.text)["error"]["message"].startswith("limit:")


def test_keys_are_read_with_care(tmp_path: Path) -> None:
    from ume_retrieval import InputError

    file = tmp_path / "keys"
    file.write_text(f"# ours\n{KEY}\n\n{OTHER}\n")
    assert read_keys(file) == (KEY, OTHER)
    assert KEY not in repr(Settings(keys=(KEY,)))
    for content in ("", "short\n", f"{KEY}é\n"):
        file.write_text(content)
        with pytest.raises(InputError) as raised:
            read_keys(file)
        assert KEY not in str(raised.value)
    with pytest.raises(InputError):
        read_keys(tmp_path / "missing")
