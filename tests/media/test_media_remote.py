from __future__ import annotations

import io
import threading
from collections.abc import Iterator
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from media_makers import number_of, numbered

from ume_retrieval import Item, Limits, MediaError, VisualBudget
from ume_retrieval.errors import MediaNotFound, MediaTooLarge, RemoteNotAllowed
from ume_retrieval.media import load
from ume_retrieval.media.remote.fetch import fetch

BUDGET = VisualBudget()
HERE = ("127.0.0.1",)


class Handler(BaseHTTPRequestHandler):
    files: dict[str, bytes]

    def do_GET(self) -> None:
        path = self.path.partition("?")[0]
        if path == "/moved":
            self.send_response(302)
            self.send_header("Location", "/cat.png")
        elif path == "/to-ftp":
            self.send_response(302)
            self.send_header("Location", "ftp://127.0.0.1/cat.png")
        elif path == "/busy":
            self.send_response(503)
        elif path == "/slow":
            self.send_response(200)
            self.end_headers()
            with suppress(ConnectionError):
                for _ in range(50):
                    self.wfile.write(b"x")
                    self.server.pause.wait(0.05)  # type: ignore[attr-defined]
            return
        elif path == "/short":
            self.send_response(200)
            self.send_header("Content-Length", "100")
            self.end_headers()
            self.wfile.write(b"half")
            return
        elif path in self.files:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(self.files[path])
            return
        else:
            self.send_response(404)
        self.end_headers()

    def log_message(self, *args: object) -> None:
        pass


@pytest.fixture
def site(films: dict[str, Path]) -> Iterator[str]:
    picture = io.BytesIO()
    numbered(42).save(picture, "PNG")
    Handler.files = {"/cat.png": picture.getvalue(), "/film": films["webm"].read_bytes()}
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.pause = threading.Event()  # type: ignore[attr-defined]
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.pause.set()  # type: ignore[attr-defined]
    server.shutdown()
    thread.join()
    server.server_close()


def test_addresses_are_fetched_when_asked_for(site: str, films: dict[str, Path]) -> None:
    item = Item(images=(f"{site}/cat.png", f"{site}/moved", numbered(7)), videos=(f"{site}/film", films["mp4"]))
    loaded = load(item, BUDGET, allow_remote=HERE)
    assert [number_of(image) for image in loaded.images] == [42, 42, 7]
    assert [number_of(video.images[1]) for video in loaded.videos] == [5, 5]
    local = Item(images=(Handler.files["/cat.png"],) * 2 + (numbered(7),), videos=(films["webm"], films["mp4"]))
    assert loaded.content_id == load(local, BUDGET).content_id


@pytest.mark.parametrize("place", ["images", "videos"])
def test_addresses_are_refused_otherwise(site: str, place: str) -> None:
    with pytest.raises(RemoteNotAllowed, match="http: addresses"):
        load(Item(**{place: (f"{site}/cat.png",)}), BUDGET)


@pytest.mark.parametrize(
    "address", ["ftp://a.org/x.png", "s3://bucket/x.png", "data:image/png;base64,AA", "file:///x.png"]
)
def test_other_schemes_stay_refused(address: str) -> None:
    with pytest.raises(RemoteNotAllowed):
        load(Item(images=(address,)), BUDGET, allow_remote=HERE)


def test_failures_are_typed_and_keep_secrets(site: str) -> None:
    with pytest.raises(MediaNotFound, match="answered 404") as missing:
        fetch(f"{site}/gone?token=hunter2", Limits(), hosts=HERE)
    assert not missing.value.retryable
    with pytest.raises(MediaError, match="answered 503") as busy:
        fetch(f"{site}/busy?token=hunter2", Limits(), hosts=HERE)
    assert busy.value.retryable
    with pytest.raises(MediaError, match="ftp"):
        fetch(f"{site}/to-ftp", Limits(), hosts=HERE)
    with pytest.raises(MediaError) as short:
        fetch(f"{site}/short", Limits(), hosts=HERE)
    assert short.value.retryable
    with pytest.raises(MediaTooLarge, match="more than 100 bytes"):
        fetch(f"{site}/film", Limits(max_bytes=100), hosts=HERE)
    for caught in (missing, busy):
        assert "hunter2" not in caught.value.message + caught.value.hint


def test_a_server_that_drips_is_left(site: str) -> None:
    with pytest.raises(MediaError) as slow:
        fetch(f"{site}/slow", Limits(), hosts=HERE, timeout_s=0.3)
    assert slow.value.retryable


def test_nobody_there_is_retryable() -> None:
    with pytest.raises(MediaError) as nobody:
        fetch("http://127.0.0.1:9/x.png?key=hunter2", Limits(), hosts=HERE, timeout_s=2)
    assert nobody.value.retryable
    assert "hunter2" not in str(nobody.value)
