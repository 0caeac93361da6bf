"""A server that answers by script, in front of the client's real HTTP layer."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

OK = {"status": "ok", "time": 0.0}


def info(metadata: dict[str, Any] | None) -> dict[str, Any]:
    """What a server says of a collection."""
    config = {
        "params": {"vectors": {"direct": {"size": 4, "distance": "Cosine"}}},
        "hnsw_config": {"m": 16, "ef_construct": 100, "full_scan_threshold": 10000},
        "optimizer_config": {
            "deleted_threshold": 0.2,
            "vacuum_min_vector_number": 1000,
            "default_segment_number": 0,
            "flush_interval_sec": 5,
        },
        "metadata": metadata,
    }
    return {"status": "green", "optimizer_status": "ok", "segments_count": 1, "config": config, "payload_schema": {}}


@dataclass
class Stub:
    """Answers with the scripted (status, body, headers) in turn, the last one for ever.

    With `described`, questions for the collection itself are answered with it and take nothing from the script.
    """

    script: list[tuple[int, Any, dict[str, str]]] = field(default_factory=list)
    seen: list[tuple[str, str, Any, dict[str, str]]] = field(default_factory=list)
    described: dict[str, Any] | None = None
    delay_s: float = 0.0
    url: str = ""


class StubServer(ThreadingHTTPServer):
    """Queues as many connections as a real server; the default of 5 resets some of twenty that come at once."""

    request_queue_size = 128


@contextmanager
def serving() -> Iterator[Stub]:
    state = Stub()

    class Handler(BaseHTTPRequestHandler):
        def answer(self) -> None:
            length = int(self.headers.get("Content-Length") or 0)
            body = self.rfile.read(length)
            state.seen.append((self.command, self.path, json.loads(body) if body else None, dict(self.headers)))
            if state.described is not None and self.command == "GET" and self.path == "/collections/films":
                status, reply, headers = 200, {"result": state.described, **OK}, {}
            else:
                status, reply, headers = state.script.pop(0) if len(state.script) > 1 else state.script[0]
            time.sleep(state.delay_s)
            if status == 0:  # the connection is lost without an answer
                self.close_connection = True
                return
            text = reply.encode() if isinstance(reply, str) else json.dumps(reply).encode()
            self.send_response(status)
            for name, value in {"Content-Length": str(len(text)), **headers}.items():
                self.send_header(name, value)
            with suppress(ConnectionError):  # a client that waits no longer
                self.end_headers()
                self.wfile.write(text)

        do_GET = do_PUT = do_POST = do_DELETE = do_PATCH = answer  # noqa: N815  # names that http.server looks up

        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002  # the base class's name
            pass

    server = StubServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    state.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    yield state
    server.shutdown()
    server.server_close()
