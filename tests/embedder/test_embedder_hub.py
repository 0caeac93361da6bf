"""Models of a hub: what is fetched, what is kept, and what is said when nothing answers. A small hub runs here."""

from __future__ import annotations

import hashlib
import json
import socket
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlsplit

import huggingface_hub.constants
import pytest

from ume_retrieval import ModelError, ReasoningEmbedder
from ume_retrieval.engines.checkpoint_files import HUB_TIMEOUT_S, locate

COMMIT = "0123456789abcdef0123456789abcdef01234567"
NAME = "someone/tiny-embed-rl"


@dataclass
class Hub:
    """The three answers of a hub that a download asks for: a model's commit, its files, and each file."""

    files: dict[str, bytes]
    fetched: set[str] = field(default_factory=set)

    def answer(self, path: str) -> tuple[int, dict[str, str], bytes]:
        path = unquote(urlsplit(path).path)
        if path in {f"/api/models/{NAME}", f"/api/models/{NAME}/revision/main"}:
            return 200, {}, json.dumps({"id": NAME, "sha": COMMIT, "siblings": []}).encode()
        if path == f"/api/models/{NAME}/tree/{COMMIT}":
            listed = [
                {"type": "file", "path": name, "size": len(data), "oid": hashlib.sha1(data).hexdigest()}  # noqa: S324
                for name, data in self.files.items()
            ]
            return 200, {}, json.dumps(listed).encode()
        name = path.removeprefix(f"/{NAME}/resolve/{COMMIT}/")
        if name in self.files:
            self.fetched.add(name)
            digest = hashlib.sha1(self.files[name]).hexdigest()  # noqa: S324 - how git names a file
            return 200, {"ETag": f'"{digest}"', "X-Repo-Commit": COMMIT}, self.files[name]
        return 404, {"X-Error-Code": "RepoNotFound"}, b""


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_DISABLE_XET", True)


def use(endpoint: str, monkeypatch: pytest.MonkeyPatch) -> None:
    template = endpoint + "/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", endpoint)
    monkeypatch.setattr(huggingface_hub.constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)


@pytest.fixture
def hub(random_pair: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    folder = random_pair / "embedder"
    files = {path.name: path.read_bytes() for path in folder.iterdir() if path.name != "ume.json"}
    files |= {"pytorch_model.bin": b"a pickle", "code.py": b"raise SystemExit", "onnx/model.json": b"{}"}
    serving = Hub(files)

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            status, headers, body = serving.answer(self.path)
            self.send_response(status)
            for key, value in headers.items():
                self.send_header(key, value)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(body)

        do_HEAD = do_GET  # noqa: N815 - the name that http.server calls

        def log_message(self, *words: object) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    use(f"http://127.0.0.1:{server.server_port}", monkeypatch)
    yield serving
    server.shutdown()
    thread.join()
    server.server_close()


def test_a_model_is_fetched_without_pickles_and_code_and_then_needs_no_hub(
    hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    located = locate(NAME, None)
    assert located.commit == located.folder.name == COMMIT
    assert hub.fetched == set(hub.files) - {"pytorch_model.bin", "code.py", "onnx/model.json"}
    model = ReasoningEmbedder.from_pretrained(NAME, reasoner=None, device="cpu", cache=None)
    assert (model.embedder.info.name, model.embedder.info.revision) == (NAME, COMMIT)
    use("http://127.0.0.1:9", monkeypatch)
    assert locate(NAME, None) == located
    assert locate(NAME, COMMIT) == located


def test_a_model_that_the_hub_does_not_have_is_said(hub: Hub) -> None:
    with pytest.raises(ModelError, match="does not have or show this model") as raised:
        locate("someone/else", None)
    assert "HF_TOKEN" in raised.value.hint


@pytest.mark.parametrize("name", ["embed-rl-2b", "sentence-transformers/all-MiniLM-L6-v2"])
def test_a_hub_that_does_not_answer_is_said_within_seconds(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        use(f"http://127.0.0.1:{silent.getsockname()[1]}", monkeypatch)
        import sentence_transformers  # noqa: F401 - imports take longer than the wait that is measured

        start = time.monotonic()
        with pytest.raises(ModelError, match="does not answer") as raised:
            ReasoningEmbedder.from_pretrained(name, reasoner=None, device="cpu", cache=None)
        assert time.monotonic() - start < HUB_TIMEOUT_S + 3
    assert raised.value.retryable
    assert "HF_ENDPOINT" in raised.value.hint


def test_offline_on_purpose_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    start = time.monotonic()
    with pytest.raises(ModelError, match="not in the cache"):
        locate("someone/else", None)
    assert time.monotonic() - start < 1
