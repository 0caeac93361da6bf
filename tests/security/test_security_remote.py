"""Where addresses may lead: named hosts, no private networks, whatever redirects and name servers say."""

from __future__ import annotations

import http.client
import ipaddress
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ume_retrieval import InputError, Item, Limits, MediaError, VisualBudget
from ume_retrieval.errors import RemoteNotAllowed
from ume_retrieval.media import load
from ume_retrieval.media.remote.allowlist import AllowedHosts
from ume_retrieval.media.remote.fetch import fetch
from ume_retrieval.testing import fake_embedder

PRIVATE = [
    *("127.0.0.1", "127.255.0.3", "10.0.0.7", "172.16.3.4", "192.168.1.1", "169.254.169.254", "100.64.0.1"),
    *("224.0.0.1", "255.255.255.255", "::1", "::", "fe80::1", "fc00::1", "fd12:3456::1", "fec0::1", "ff02::1"),
    *("::ffff:127.0.0.1", "::ffff:169.254.169.254", "::127.0.0.1", "64:ff9b::10.0.0.1", "2002:7f00:1::"),
    *("2002:a00:1::", "0.0.0.1", "::ffff:0:10.0.0.1", "::ffff:0:169.254.169.254"),
    # Of a site's own translators (RFC 8215), whatever the embedded address is.
    *("64:ff9b:1::a00:1", "64:ff9b:1::808:808", "64:ff9b:1:ffff::1"),
    # Teredo with a private client (inverted), and with a private server.
    *("2001:0:808:808::f5ff:fffe", "2001:0:a00:1::f7f7:f7f7"),
]


class Site:
    """A web server on this machine; `answer` writes what it sends."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.answer: Callable[[BaseHTTPRequestHandler], None] = lambda handler: None
        site = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                site.asked.append(f"{self.headers['Host']} {self.path}")
                with suppress(ConnectionError):
                    site.answer(self)

            def log_message(self, *_: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.port = self.server.server_address[1]
        self.thread = threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        self.thread.start()


@pytest.fixture
def site() -> Iterator[Site]:
    one = Site()
    yield one
    one.server.shutdown()
    one.server.server_close()
    one.thread.join()


def names(monkeypatch: pytest.MonkeyPatch, answers: Callable[[str], list[str]]) -> list[str]:
    """Let a name server say what the test wants; returns the names that were looked up."""
    asked: list[str] = []

    def look_up(host: str, port: int, **_: Any) -> list[Any]:
        asked.append(host)
        return [
            (socket.AF_INET6, socket.SOCK_STREAM, 6, "", (one, port, 0, 0))
            if ":" in one
            else (socket.AF_INET, socket.SOCK_STREAM, 6, "", (one, port))
            for one in answers(host)
        ]

    monkeypatch.setattr(socket, "getaddrinfo", look_up)
    return asked


def redirect_to(place: str) -> Callable[[BaseHTTPRequestHandler], None]:
    def answer(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(302)
        handler.send_header("Location", place)
        handler.end_headers()

    return answer


def body(text: bytes) -> Callable[[BaseHTTPRequestHandler], None]:
    def answer(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(200)
        handler.end_headers()
        handler.wfile.write(text)

    return answer


@pytest.mark.parametrize("address", PRIVATE)
def test_a_name_that_leads_into_a_private_network_is_refused(monkeypatch: pytest.MonkeyPatch, address: str) -> None:
    names(monkeypatch, lambda host: ["93.184.216.34", address])
    with pytest.raises(RemoteNotAllowed, match="private network"):
        fetch("http://pictures.example.org/x.png", Limits(), hosts=["*"])


@pytest.mark.parametrize("address", PRIVATE)
def test_a_private_address_itself_is_refused(address: str) -> None:
    literal = f"[{address}]" if ":" in address else address
    with pytest.raises(RemoteNotAllowed):
        fetch(f"http://{literal}/x.png", Limits(), hosts=["*", "8.8.8.8"])


@pytest.mark.parametrize("spelling", ["2130706433", "0x7f000001", "127.1", "0177.0.0.1", "localhost", "LOCALHOST."])
def test_other_spellings_of_this_machine_are_refused(site: Site, spelling: str) -> None:
    with pytest.raises(MediaError):
        fetch(f"http://{spelling}:{site.port}/x.png", Limits(), hosts=["*"])
    assert not site.asked


@given(st.integers(0, 2**32 - 1).map(ipaddress.IPv4Address))
def test_wrapping_an_address_changes_nothing(address: ipaddress.IPv4Address) -> None:
    allowed = AllowedHosts.of(["*"])

    def verdict(text: str) -> bool:
        try:
            allowed._check_address("x", ipaddress.ip_address(text))
        except RemoteNotAllowed:
            return False
        return True

    plain = verdict(str(address))
    assert plain == (address.is_global and not address.is_multicast)
    assert verdict(f"::ffff:{address}") == plain
    assert verdict(f"64:ff9b::{address}") == plain
    assert verdict(f"::ffff:0:{address}") == plain
    assert verdict(str(ipaddress.IPv6Address(0x2002 << 112 | int(address) << 80))) == plain
    assert not verdict(str(ipaddress.IPv6Address((0x64FF9B0001 << 80) | int(address))))


@pytest.mark.parametrize(
    ("host", "entries", "good"),
    [
        ("images.example.org", ["images.example.org"], True),
        ("IMAGES.example.org", ["images.Example.org"], True),
        ("a.b.example.org", ["*.example.org"], True),
        ("example.org", ["*.example.org"], False),
        ("example.org.evil.net", ["*.example.org", "example.org"], False),
        ("evilexample.org", ["*.example.org", "example.org"], False),
        ("example.org", [], False),
    ],
)
def test_the_list_names_hosts(host: str, entries: list[str], good: bool) -> None:
    allowed = AllowedHosts.of(entries)
    if good:
        allowed.check_name(host)
    else:
        with pytest.raises(RemoteNotAllowed, match="not among the allowed hosts"):
            allowed.check_name(host)


@pytest.mark.parametrize("entries", [True, "example.org", ["http://example.org"], ["exa mple"], ["**"], ["10.0.0.1/8"]])
def test_a_list_that_is_none_shows_at_once(entries: Any) -> None:
    with pytest.raises(InputError):
        fake_embedder(reasoner=None, allow_remote=entries)


def test_a_named_network_of_ones_own_is_fetched_from(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    site.answer = body(b"here")
    names(monkeypatch, lambda host: ["127.0.0.1"])
    for hosts in (["nas.home", "127.0.0.0/8"], ["*", "127.0.0.1"]):
        assert fetch(f"http://nas.home:{site.port}/x", Limits(), hosts=hosts) == b"here"
    assert site.asked[0] == f"nas.home:{site.port} /x"


@pytest.mark.parametrize("place", ["http://169.254.169.254/latest/meta-data", "http://10.0.0.1/", "http://evil.net/"])
def test_redirects_are_held_to_the_same(site: Site, place: str) -> None:
    site.answer = redirect_to(place)
    with pytest.raises(RemoteNotAllowed):
        fetch(f"http://127.0.0.1:{site.port}/x", Limits(), hosts=["127.0.0.1"])
    assert len(site.asked) == 1


def test_redirects_in_a_circle_end(site: Site) -> None:
    site.answer = redirect_to(f"http://127.0.0.1:{site.port}/again")
    with pytest.raises(MediaError):
        fetch(f"http://127.0.0.1:{site.port}/x", Limits(), hosts=["127.0.0.1"])
    assert len(site.asked) < 10


def test_a_name_is_looked_up_once(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """DNS rebinding: a public address for the check, a private one for the connection."""
    answers = iter([["93.184.216.34"], ["127.0.0.1"]])
    asked = names(monkeypatch, lambda host: next(answers))
    tried: list[Any] = []

    def refuse(self: socket.socket, place: Any) -> None:
        tried.append(place)
        raise ConnectionRefusedError

    monkeypatch.setattr(socket.socket, "connect", refuse)
    with pytest.raises(MediaError):
        fetch(f"http://rebind.example.org:{site.port}/x", Limits(), hosts=["*"])
    assert asked == ["rebind.example.org"]
    assert tried == [("93.184.216.34", site.port)]


def test_the_proxies_of_the_environment_are_not_used(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{site.port}")
    monkeypatch.delenv("no_proxy", raising=False)
    names(monkeypatch, lambda host: ["10.0.0.1"])
    with pytest.raises(RemoteNotAllowed):
        fetch("http://pictures.example.org/x.png", Limits(), hosts=["*"])
    assert not site.asked


@pytest.mark.parametrize(
    "address",
    [
        "http://images.example.org@127.0.0.1/x.png",
        "http://user:hunter2@images.example.org/x.png",
        "http://127.0.0.1\\@images.example.org/x.png",
        "file:///etc/passwd",
        "gopher://images.example.org/x",
        "http:///x.png",
    ],
)
def test_addresses_that_mislead_are_refused(address: str) -> None:
    with pytest.raises(RemoteNotAllowed) as caught:
        load(Item(images=(address,)), VisualBudget(), allow_remote=["images.example.org"])
    assert "hunter2" not in f"{caught.value} {caught.value.hint}"


def test_headers_that_drip_do_not_hold_the_line(site: Site) -> None:
    release = threading.Event()

    def drip(handler: BaseHTTPRequestHandler) -> None:
        handler.wfile.write(b"HTTP/1.0 200 OK\r\n")
        for _ in range(200):
            handler.wfile.write(b"X-More: yes\r\n")
            if release.wait(0.05):
                return

    site.answer = drip
    started = time.perf_counter()
    with pytest.raises(MediaError, match=r"more than 0\.4 s") as caught:
        fetch(f"http://127.0.0.1:{site.port}/x", Limits(), hosts=["127.0.0.1"], timeout_s=0.4)
    assert caught.value.retryable
    assert time.perf_counter() - started < 4
    release.set()


def test_https_is_checked_against_the_name(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    site.answer = body(b"plain")
    with pytest.raises(MediaError) as caught:  # this server speaks no TLS: nothing is read without it
        fetch(f"https://127.0.0.1:{site.port}/x", Limits(), hosts=["127.0.0.1"], timeout_s=5)
    assert not isinstance(caught.value, RemoteNotAllowed)
    assert http.client.HTTPS_PORT == 443
