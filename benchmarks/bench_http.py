"""The paper's released way to use a Reasoner: threads of HTTP to a vLLM server, then embedding items one by one."""

from __future__ import annotations

import importlib.util
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import numpy as np

from ume_retrieval.checkpoint import ReasonerSpec
from ume_retrieval.engines.resize import fit_chat
from ume_retrieval.engines.server.messages import media_settings, messages_of
from ume_retrieval.inputs import LoadedItem
from ume_retrieval.tcot.prompts import reasoner_chat

START_S = 600.0
OF_MAKE = Path(".venv-vllm/bin/python")
"""Where `make test-vllm` installs vLLM."""


def python_with_vllm() -> str | None:
    """An interpreter that imports vLLM: this one, or that of `make test-vllm`."""
    if importlib.util.find_spec("vllm"):
        return sys.executable
    return str(OF_MAKE) if OF_MAKE.exists() else None


class Http:
    """A server for the Reasoner, and an Embedder that is given one item at a time.

    Args:
        python: An interpreter that imports vLLM.
        model: Folder of the Reasoner.
        spec: Its prompts and visual budget.
        items: What is reasoned over and embedded.
        embed: Embeds items with their replies.
        most: Tokens of a reply.
    """

    def __init__(
        self,
        python: str,
        model: str,
        *,
        spec: ReasonerSpec,
        items: Sequence[LoadedItem],
        embed: Callable[[Sequence[LoadedItem], Sequence[str]], np.ndarray[Any, Any]],
        most: int,
    ) -> None:
        self.items, self.embed = items, embed
        chats = [fit_chat(reasoner_chat(item, "corpus", spec.prompts), spec.budget) for item in items]
        self.bodies = [
            {"model": model, "messages": messages_of(chat, "vllm"), "max_tokens": most, "temperature": 0.0, "top_k": 0}
            | media_settings(chat)
            for chat in chats
        ]
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        self.url = f"http://127.0.0.1:{port}"
        command = [python, "-m", "vllm.entrypoints.openai.api_server", "--model", model, "--host", "127.0.0.1"]
        command += ["--port", str(port), "--dtype", "float32", "--enforce-eager", "--trust-request-mm-kwargs"]
        command += ["--kv-cache-memory-bytes", str(2**28)]
        self.log = tempfile.NamedTemporaryFile(prefix="bench-vllm-", suffix=".log")  # noqa: SIM115  # as long as the server
        self.server = subprocess.Popen(  # noqa: S603  # arguments of our own
            command, stdout=self.log, stderr=subprocess.STDOUT, env=os.environ | {"VLLM_NO_USAGE_STATS": "1"}
        )
        self._wait()

    def run(self, threads: int) -> tuple[list[str], np.ndarray[Any, Any]]:
        """Replies, and vectors made after all of them."""
        with httpx.Client(timeout=600) as client, ThreadPoolExecutor(threads) as workers:
            replies = list(workers.map(lambda body: self._ask(client, body), self.bodies))
        rows = [self.embed([item], [reply]) for item, reply in zip(self.items, replies, strict=True)]
        return replies, np.concatenate(rows)

    def close(self) -> None:
        """Stop the server."""
        self.server.terminate()
        self.server.wait(timeout=60)

    def _ask(self, client: httpx.Client, body: dict[str, Any]) -> str:
        answer = client.post(f"{self.url}/v1/chat/completions", json=body)
        answer.raise_for_status()
        return str(answer.json()["choices"][0]["message"]["content"])

    def _wait(self) -> None:
        limit = time.monotonic() + START_S
        while time.monotonic() < limit and self.server.poll() is None:
            try:
                if httpx.get(f"{self.url}/health", timeout=2).is_success:
                    return
            except httpx.TransportError:
                time.sleep(0.5)
        self.close()
        raise RuntimeError(f"vLLM did not start: {Path(self.log.name).read_text(errors='replace')[-2000:]}")
