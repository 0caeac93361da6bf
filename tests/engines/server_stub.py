"""A server that is not there in truth, behind the real HTTP client, and what tests ask of it."""

from __future__ import annotations

import base64
import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import numpy as np
import PIL.Image

from ume_retrieval import EmbedderSpec, Frames, ModelInfo, ReasonerSpec, Sampling
from ume_retrieval.chat import Chat, Message, TextPart
from ume_retrieval.engines.server.client import Server
from ume_retrieval.engines.server.options import ServerOptions
from ume_retrieval.engines.server.reasoner import ServerReasoner
from ume_retrieval.testing import PLAIN_PROMPTS, SMALL_BUDGET
from ume_retrieval.util.retry import Retry

KEY = "s3cr3t-k3y"
SPEC = ReasonerSpec(prompts=PLAIN_PROMPTS, budget=SMALL_BUDGET, max_tokens=64)
EMBED_RL = EmbedderSpec(family="embed-rl", budget=SMALL_BUDGET)
INFO = ModelInfo("stub", "1", "server")
GREEDY = Sampling(max_tokens=8)

Reply = tuple[int, bytes, dict[str, str]]
Answer = Callable[[str, dict[str, Any]], Reply | None]


def reply(data: object, status: int = 200, **headers: str) -> Reply:
    return status, json.dumps(data).encode(), {name.replace("_", "-"): value for name, value in headers.items()}


def completion(text: str, finish: str = "stop") -> dict[str, Any]:
    choice = {"message": {"role": "assistant", "content": text}, "finish_reason": finish}
    return {"choices": [choice], "usage": {"prompt_tokens": 5, "completion_tokens": 2}}


def embedding(*values: float) -> dict[str, Any]:
    packed = base64.b64encode(np.array(values, dtype="<f4").tobytes()).decode()
    return {"data": [{"embedding": packed}], "usage": {"prompt_tokens": 3}}


@dataclass
class Stub:
    """A server that is not there in truth: what it answers to a path and a body is the test's."""

    url: str = ""
    owner: str = "vllm"
    model: str = "one"
    answer: Answer = field(default=lambda path, body: reply(completion("fine")))
    seen: list[tuple[str, dict[str, Any], dict[str, str]]] = field(default_factory=list)
    busy: int = 0
    busiest: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)

    def posted(self) -> list[dict[str, Any]]:
        return [body for path, body, _ in self.seen if path != "/v1/models"]


@contextmanager
def serving() -> Iterator[Stub]:
    """A stub that answers on a port of this machine."""
    state = Stub()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.respond({})

        def do_POST(self) -> None:
            self.respond(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))

        def respond(self, body: dict[str, Any]) -> None:
            with state.lock:
                state.seen.append((self.path, body, dict(self.headers)))
                state.busy += 1
                state.busiest = max(state.busiest, state.busy)
            try:
                answered = state.answer(self.path, body)
                if self.path == "/v1/models" and (answered is None or answered[0] == 200):
                    answered = reply({"data": [{"id": state.model, "owned_by": state.owner}]})
            finally:
                with state.lock:
                    state.busy -= 1
            if answered is None:  # the connection is lost without an answer
                return
            status, content, headers = answered
            try:
                self.send_response(status)
                for name, value in ({"Content-Length": str(len(content))} | headers).items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(content)
            except (BrokenPipeError, ConnectionResetError):
                pass  # the client has given up

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    state.url = f"http://127.0.0.1:{server.server_address[1]}"
    yield state
    server.shutdown()
    server.server_close()
    thread.join()


def connect(stub: Stub, naps: list[float], **options: Any) -> Server:
    chosen = ServerOptions(**{"api_key": KEY, "attempts": 4, "timeout_s": 5.0, **options})
    retry = Retry(chosen.attempts, sleep=naps.append, uniform=lambda: 1.0)
    return Server([f"{stub.url}/v1"], None, chosen, retry=retry)


def reasoner_on(stub: Stub, naps: list[float], **options: Any) -> ServerReasoner:
    return ServerReasoner(connect(stub, naps, **options), info=INFO, spec=SPEC)


def words(text: str) -> Chat:
    return (Message("user", (TextPart(text),)),)


def said(body: dict[str, Any]) -> str:
    return str(body["messages"][0]["content"][-1]["text"])


def clip(*times: float) -> Frames:
    return Frames(tuple(PIL.Image.new("RGB", (32, 32), (n * 40, 0, 0)) for n in range(len(times))), times, 4.0)
