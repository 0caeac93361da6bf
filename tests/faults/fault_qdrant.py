"""A Qdrant server in a process of its own: the client's own engine behind HTTP, with faults on request.

The engine keeps points in memory; what dies in the tests is the client that talks to it, or single answers. As a
script it prints its address and serves until its standard input closes.
"""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Literal, TypeAlias

Fault: TypeAlias = Literal["429", "500", "503", "half", "garbage", "nothing", "answer lost", "wrong key"]
FAULTS: tuple[Fault, ...] = ("429", "500", "503", "half", "garbage", "nothing", "answer lost")


class Engine:
    """The endpoints that the library uses, on the engine of qdrant-client."""

    def __init__(self) -> None:
        from qdrant_client import QdrantClient, models

        self._client = QdrantClient(":memory:")
        self._models = models
        self._lock = threading.Lock()

    def answer(self, method: str, path: str, body: Any) -> Any:
        """The result of a request, or a KeyError for what is not there."""
        _, _, name, *rest = path.partition("?")[0].split("/")
        with self._lock:
            if method == "PUT" and not rest:
                settings = self._models.CreateCollection.model_validate(body)
                return self._client.create_collection(name, settings.vectors, metadata=settings.metadata)
            there = self._client.collection_exists(name)
            if rest == ["exists"]:
                return {"exists": there}
            if not there:
                raise KeyError(name)
            return self._of_collection(method, name, "/".join(rest), body)

    def _of_collection(self, method: str, name: str, rest: str, body: Any) -> Any:  # noqa: PLR0911  # one a request
        client, models = self._client, self._models
        match method, rest:
            case "GET", "":
                return client.get_collection(name).model_dump(mode="json")
            case "PATCH", "":
                return client.update_collection(name, metadata=body["metadata"])
            case "PUT", "index":
                return {"operation_id": 0, "status": "completed"}
            case "PUT", "points":
                done: Any = client.upsert(name, models.PointsList.model_validate(body).points)
            case "POST", "points/batch":
                found = client.batch_update_points(name, models.UpdateOperations.model_validate(body).operations)
                return [one.model_dump(mode="json") for one in found]
            case "POST", "points/delete":
                done = client.delete(name, models.PointIdsList.model_validate(body))
            case "POST", "points":
                ids = models.PointRequest.model_validate(body)
                found = client.retrieve(name, ids.ids, with_vectors=ids.with_vector or False)
                return [one.model_dump(mode="json") for one in found]
            case "POST", "points/scroll":
                ask = models.ScrollRequest.model_validate(body)
                records, following = client.scroll(
                    name,
                    ask.filter,
                    limit=ask.limit or 10,
                    offset=ask.offset,
                    with_payload=True if ask.with_payload is None else ask.with_payload,
                    with_vectors=ask.with_vector or False,
                )
                points = [one.model_dump(mode="json") for one in records]
                return {"points": points, "next_page_offset": following}
            case "POST", "points/count":
                return client.count(name, models.CountRequest.model_validate(body).filter).model_dump()
            case _:
                raise LookupError(f"{method} {rest}")
        return done.model_dump(mode="json")


class QdrantServer:
    """A server on this machine; `choose` says what goes wrong with the next request, None for nothing."""

    def __init__(self, choose: Callable[[], Fault | None] = lambda: None, port: int = 0, engine: Any = None) -> None:
        self.engine = engine or Engine()
        self.choose = choose
        self.faults = 0
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def respond(self) -> None:
                length = int(self.headers.get("Content-Length") or 0)
                outer.respond(self, json.loads(self.rfile.read(length) or b"null"))

            do_GET = do_PUT = do_POST = do_PATCH = do_DELETE = respond  # noqa: N815  # names that http.server looks up

            def log_message(self, *_: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
        self.server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        self._thread = threading.Thread(target=self.server.serve_forever, args=(0.01,), daemon=True)
        self._thread.start()

    def respond(self, handler: BaseHTTPRequestHandler, body: Any) -> None:
        """Answer one request, or do to it what was chosen."""
        fault = self.choose()
        self.faults += fault is not None
        match fault:
            case "nothing":
                handler.close_connection = True
            case "429" | "500" | "503":
                _write(handler, int(fault), {"status": {"error": "not now"}})
            case "wrong key":
                _write(handler, 401, {"status": {"error": "Invalid API key: s3cr3t-k3y"}})
            case "garbage":
                _write(handler, 200, b"<html>\x00\xff please log in</html>")
            case _:
                self._work(handler, body, fault)

    def _work(self, handler: BaseHTTPRequestHandler, body: Any, fault: Fault | None) -> None:
        try:
            result = self.engine.answer(handler.command, handler.path, body)
        except KeyError as error:
            message = f"Not found: Collection `{error.args[0]}` doesn't exist!"
            _write(handler, 404, {"status": {"error": message}})
            return
        if fault == "answer lost":
            handler.close_connection = True
            return
        text = json.dumps({"result": result, "status": "ok", "time": 0.0}).encode()
        _write(handler, 200, text[: len(text) // 2] if fault == "half" else text, announced=len(text))

    def stop(self) -> None:
        """Go away; the points stay in `engine`."""
        self.server.shutdown()
        self.server.server_close()
        self._thread.join()


def _write(handler: BaseHTTPRequestHandler, status: int, content: Any, announced: int | None = None) -> None:
    text = content if isinstance(content, bytes) else json.dumps(content).encode()
    with suppress(ConnectionError):
        handler.send_response(status)
        handler.send_header("Content-Length", str(announced or len(text)))
        handler.end_headers()
        handler.wfile.write(text)
    if announced not in (None, len(text)):
        handler.close_connection = True


@contextmanager
def serving_apart() -> Iterator[str]:
    """The address of a server in another process."""
    process = subprocess.Popen(  # noqa: S603  # our own interpreter and script
        [sys.executable, str(Path(__file__))], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    if process.stdin is None or process.stdout is None:
        raise RuntimeError("the server has no pipes")
    try:
        yield process.stdout.readline().strip()
    finally:
        process.stdin.close()
        process.wait()
        process.stdout.close()


def main() -> None:
    server = QdrantServer()
    sys.stdout.write(server.url + "\n")
    sys.stdout.flush()
    sys.stdin.read()
    server.stop()


if __name__ == "__main__":
    main()
