"""Answers without an end, too slow, too large or hostile: each is a typed error within its budget."""

from __future__ import annotations

import gzip
import json
import os
import pickle
import socketserver
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from server_stub import (
    EMBED_RL,
    GREEDY,
    INFO,
    KEY,
    SPEC,
    Stub,
    completion,
    connect,
    embedding,
    reasoner_on,
    reply,
    words,
)

from ume_retrieval import ReasoningEmbedder, UmeError
from ume_retrieval.engines.base import Generation
from ume_retrieval.engines.server.client import Server
from ume_retrieval.engines.server.embedder import ServerEmbedder
from ume_retrieval.engines.server.options import ServerOptions
from ume_retrieval.engines.server.reasoner import ServerReasoner
from ume_retrieval.errors import InputError, ServerError
from ume_retrieval.testing import HashEmbedder

MODELS = json.dumps({"data": [{"id": "one", "owned_by": "vllm"}]}).encode()
HEAD = b"HTTP/1.1 200 OK\r\n"
Write = Callable[[bytes], None]


@contextmanager
def raw_server(answer: Callable[[Write], None]) -> Iterator[str]:
    """Serve the models properly, and let a test write the bytes of every other answer itself."""

    class Handler(socketserver.StreamRequestHandler):
        def handle(self) -> None:
            with suppress(ConnectionError):
                first = self.rfile.readline()
                length = 0
                while (line := self.rfile.readline().lower()) not in {b"\r\n", b""}:
                    if line.startswith(b"content-length:"):
                        length = int(line.partition(b":")[2])
                self.rfile.read(length)
                if first.startswith(b"GET"):
                    self.wfile.write(HEAD + b"Connection: close\r\n\r\n" + MODELS)
                else:
                    answer(self.wfile.write)

    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads, server.block_on_close = True, False
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}/v1"
        server.shutdown()


def drip_body(write: Write) -> None:
    write(HEAD + b"Content-Length: 4000\r\n\r\n")
    drip(write, b" ")


def drip_headers(write: Write) -> None:
    write(HEAD)
    drip(write, b"X-More: yes\r\n")


def drip(write: Write, piece: bytes) -> None:
    for _ in range(2000):
        write(piece)
        time.sleep(0.02)


def endless_body(write: Write) -> None:
    write(HEAD + b"\r\n")
    while True:
        write(b" " * 65536)


def endless_headers(write: Write) -> None:
    write(HEAD)
    while True:
        write(b"X-More: " + b"y" * 65536 + b"\r\n")


def ask(url: str, **options: Any) -> Any:
    server = Server([url], None, ServerOptions(**{"attempts": 1, "timeout_s": 5.0, **options}))
    [(_, outcome)] = ServerReasoner(server, info=INFO, spec=SPEC).replies([words("hi")], GREEDY)
    return outcome


@pytest.mark.parametrize("slow", [drip_body, drip_headers])
def test_an_answer_that_drips_ends_at_its_budget(slow: Callable[[Write], None]) -> None:
    with raw_server(slow) as url:
        since = time.perf_counter()
        outcome = ask(url, answer_s=0.4, attempts=6)
        assert time.perf_counter() - since < 4
    assert isinstance(outcome, ServerError)
    assert "more than 0.4 s" in outcome.message
    assert outcome.retryable
    assert outcome.hint


@pytest.mark.parametrize("endless", [endless_body, endless_headers])
def test_an_answer_without_an_end_is_refused(endless: Callable[[Write], None]) -> None:
    with raw_server(endless) as url:
        outcome = ask(url, answer_bytes=1_000_000)
    assert isinstance(outcome, ServerError)
    assert outcome.hint


def test_an_answer_that_grows_when_it_is_unpacked_is_refused(stub: Stub, naps: list[float]) -> None:
    reasoner = reasoner_on(stub, naps, answer_bytes=1_000_000)
    packed = gzip.compress(b" " * 50_000_000)
    assert len(packed) < 100_000
    stub.answer = lambda path, body: (200, packed, {"Content-Encoding": "gzip"})
    with pytest.raises(ServerError, match="more than 1000000 bytes"):
        reasoner.generate([words("hi")], GREEDY)
    stub.answer = lambda path, body: (
        200,
        gzip.compress(json.dumps(completion("fine")).encode()),
        {"Content-Encoding": "gzip"},
    )
    assert reasoner.generate([words("hi")], GREEDY)[0].text == "fine"
    stub.answer = lambda path, body: (200, packed, {"Content-Encoding": "br"})
    with pytest.raises(ServerError, match="incomplete answer"):
        reasoner.generate([words("hi")], GREEDY)


@pytest.mark.parametrize("wrong", [{"answer_s": 0}, {"answer_bytes": 0}, {"answer_s": float("nan")}])
def test_a_budget_has_to_leave_something(wrong: dict[str, Any]) -> None:
    with pytest.raises(InputError):
        ServerOptions(**wrong)


HUGE = "9" * 400
NESTED = b"[" * 3_000
HOSTILE = st.one_of(
    st.binary(max_size=60),
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(
                st.sampled_from(
                    ["choices", "message", "content", "usage", "data", "embedding", "prompt_tokens", "error"]
                ),
                inner,
                max_size=4,
            )
        ),
        max_leaves=12,
    ).map(lambda data: json.dumps(data).encode()),
)
USAGE = [f"{HUGE}", "Infinity", "NaN", "-1", '"x"', "1e999", "[]", "null", f"{2**63}"]


@given(body=HOSTILE, status=st.sampled_from([200, 200, 400, 401, 429, 500]))
@example(body=NESTED, status=200)
@example(body=NESTED, status=400)
@example(body=b'{"a":' * 3_000, status=429)
@example(body=HUGE.encode() * 20, status=200)
@example(body=b'{"choices": [{"message": {"content": "\\ud800\\u0000"}, "finish_reason": 3}], "usage": {}}', status=200)
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_hostile_answer_is_a_failure_of_its_item(stub: Stub, body: bytes, status: int) -> None:
    stub.answer = lambda path, asked: None if path == "/v1/models" else (status, body, {})
    reasoner = reasoner_on(stub, [], attempts=1)
    result = ReasoningEmbedder(HashEmbedder(), reasoner).encode_query(["hi"], strict=False, return_traces=True)
    [failure] = result.failures
    assert failure.message.isprintable()
    assert KEY not in failure.message
    with pytest.raises(UmeError):
        ServerEmbedder(connect(stub, [], attempts=1), info=INFO, spec=EMBED_RL)


@pytest.mark.parametrize("count", USAGE)
def test_a_count_that_no_server_counted_is_no_answer(stub: Stub, naps: list[float], count: str) -> None:
    """A huge number of tokens went as far as the trace cache, which cannot hold it."""
    reasoner = reasoner_on(stub, naps, attempts=1)
    whole = json.dumps(completion("<answer>fine</answer>")).replace('"prompt_tokens": 5', f'"prompt_tokens": {count}')
    stub.answer = lambda path, body: (200, whole.encode(), {})
    with pytest.raises(ServerError, match="incomplete answer"):
        reasoner.generate([words("hi")], GREEDY)


def test_a_lone_half_of_a_character_goes_through(stub: Stub, naps: list[float]) -> None:
    stub.answer = lambda path, body: (200, json.dumps(completion("a \ud800 b")).encode(), {})
    [generation] = reasoner_on(stub, naps).generate([words("hi \ud800")], GREEDY)
    assert isinstance(generation, Generation)


def test_a_copy_connects_by_itself(stub: Stub, naps: list[float]) -> None:
    server = Server([f"{stub.url}/v1"], None, ServerOptions(api_key=KEY))
    reasoner = pickle.loads(pickle.dumps(ServerReasoner(server, info=INFO, spec=SPEC)))  # noqa: S301  # our own bytes
    assert reasoner.generate([words("hi")], GREEDY)[0].text == "fine"
    stub.answer = lambda path, body: reply(embedding(0.6, 0.8))
    embedder = ServerEmbedder(server, info=INFO, spec=EMBED_RL)
    assert pickle.loads(pickle.dumps(embedder)).dimension == 2  # noqa: S301


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_child_process_asks_over_its_own_connections(stub: Stub) -> None:
    """The child shared the parent's sockets: each read parts of the other's answers."""
    code = f"""
import os, sys, threading, time
from ume_retrieval import ModelInfo, ReasonerSpec, Sampling, UmeError
from ume_retrieval.chat import Message, TextPart
from ume_retrieval.engines.server.client import Server
from ume_retrieval.engines.server.options import ServerOptions
from ume_retrieval.engines.server.reasoner import ServerReasoner
from ume_retrieval.testing import PLAIN_PROMPTS

server = Server(["{stub.url}/v1"], None, ServerOptions(timeout_s=5.0, attempts=2))
reasoner = ServerReasoner(server, info=ModelInfo("a", "b", "server"), spec=ReasonerSpec(prompts=PLAIN_PROMPTS))
chats = [(Message("user", (TextPart(str(n)),)),) for n in range(8)]
ask = lambda: [one.text for one in reasoner.generate(chats, Sampling(max_tokens=8))]
assert ask() == ["fine"] * 8
busy = threading.Thread(target=lambda: [ask() for _ in range(20)])  # holds locks at the time of the fork
busy.start()
child = os.fork()
if child == 0:
    os._exit(0 if ask() == ["fine"] * 8 else 1)
busy.join()
sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""
    done = subprocess.run([sys.executable, "-c", code], timeout=60, capture_output=True, text=True, check=False)  # noqa: S603
    assert done.returncode == 0, done.stderr
