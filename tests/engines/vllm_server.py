"""A real vLLM server on this machine, for as long as a `with` block."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

START_S = 900.0


class Started(NamedTuple):
    """A server that was started, and may not answer yet."""

    process: subprocess.Popen[bytes]
    url: str
    log: Path


def start(model: str, key: str, log: Path, *settings: str) -> Started:
    """Start a server; it is ready when `wait_for` returns."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    address = ["--host", "127.0.0.1", "--port", str(port), "--api-key", key]
    address += ["--trust-request-mm-kwargs", "--trust-request-chat-template"]
    numbers = ["--dtype", "float32", "--enforce-eager", "--kv-cache-memory-bytes", str(2**28)]
    server = [sys.executable, "-m", "vllm.entrypoints.openai.api_server", "--model", model, *address, *numbers]
    environment = os.environ | {"VLLM_NO_USAGE_STATS": "1"}
    with log.open("wb") as file:
        process = subprocess.Popen(  # noqa: S603  # arguments of our own
            [*server, *settings], stdout=file, stderr=subprocess.STDOUT, env=environment
        )
    return Started(process, f"http://127.0.0.1:{port}", log)


def wait_for(server: Started) -> None:
    """Return when the server answers; fail when it ends or takes too long."""
    process, url, log = server
    limit = time.monotonic() + START_S
    while time.monotonic() < limit:
        if process.poll() is not None:
            raise RuntimeError(f"vLLM ended: {log.read_text(errors='replace')[-2000:]}")
        try:
            with urllib.request.urlopen(f"{url}/health", timeout=2):  # noqa: S310  # our own address
                return
        except (urllib.error.URLError, OSError):
            time.sleep(0.5)
    raise RuntimeError(f"vLLM did not start: {log.read_text(errors='replace')[-2000:]}")


@contextmanager
def ended(servers: Collection[Started]) -> Iterator[None]:
    """End the servers after the block."""
    try:
        yield
    finally:
        for server in servers:
            server.process.terminate()
        for server in servers:
            server.process.wait(timeout=60)


@contextmanager
def starting_servers(reasoner: str, embedder: str, key: str, folder: Path) -> Iterator[tuple[Started, Started]]:
    """A Reasoner's and an Embedder's server, which start side by side; `wait_for` each before it is asked."""
    started = (
        start(reasoner, key, folder / "reasoner.log"),
        start(embedder, key, folder / "embedder.log", "--runner", "pooling", "--convert", "embed"),
    )
    with ended(started):
        yield started
