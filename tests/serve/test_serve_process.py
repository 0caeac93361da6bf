"""`ume serve` as a process with the bundled pair: ready, asked by many at once, ended in the middle of work."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import numpy as np
import pytest
from serve_world import make_media
from typer.testing import CliRunner

from ume_cli.app import app
from ume_qdrant import index, open_store
from ume_retrieval import ReasoningEmbedder

SERVE = "import sys; from ume_cli import main; sys.argv[0] = 'ume'; main()"


@contextlib.contextmanager
def serving(place: Path, *arguments: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "UME_CACHE_DIR": str(place / "cache")}
    command = [sys.executable, "-c", SERVE, "serve", "--store", str(place / "vectors"), "--port", "0", "--json"]
    with subprocess.Popen(  # noqa: S603  # our own command
        [*command, *arguments], stdout=subprocess.PIPE, text=True, env=environment
    ) as process:
        assert process.stdout is not None
        try:
            yield process, json.loads(process.stdout.readline())["url"]
        finally:
            process.kill()


def wait_until_ready(url: str) -> None:
    until = time.monotonic() + 120
    while httpx.get(f"{url}/ready", timeout=30).status_code != 200:
        assert time.monotonic() < until
        time.sleep(0.1)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("process")
    media = make_media(place / "media")
    with open_store(place / "vectors", "default") as store:
        embedder = ReasoningEmbedder.from_pretrained("ume-tiny", cache=place / "traces.sqlite3")
        index(embedder, store, media, reasoning="always")
    return place


def test_many_at_once_are_answered_and_sigterm_lets_them_finish(place: Path) -> None:
    with serving(place) as (process, url):
        assert httpx.get(f"{url}/health", timeout=30).status_code == 200
        wait_until_ready(url)
        made = httpx.post(
            f"{url}/v1/embeddings", json={"model": "ume-tiny", "input": "a red circle"}, timeout=60
        ).json()
        library = ReasoningEmbedder.from_pretrained("ume-tiny").encode_corpus("a red circle", reasoning="never")
        np.testing.assert_allclose(made["data"][0]["embedding"], library, atol=1e-5)

        async def ask() -> list[int]:
            bounds = httpx.Limits(max_connections=None)
            async with httpx.AsyncClient(base_url=url, timeout=120, limits=bounds) as client:
                calls = (client.post("/api/search", json={"text": f"a red circle {n}", "limit": 3}) for n in range(150))
                return [answer.status_code for answer in await asyncio.gather(*calls)]

        statuses = asyncio.run(ask())
        assert set(statuses) <= {200, 503}
        assert statuses.count(200) >= 64

        answers: list[int] = []

        def search() -> None:
            with contextlib.suppress(httpx.TransportError):  # refused: it came too late
                body = {"text": f"a blue square {threading.get_ident()}"}
                answers.append(httpx.post(f"{url}/api/search", json=body, timeout=60).status_code)

        threads = [threading.Thread(target=search) for _ in range(8)]
        for thread in threads:
            thread.start()
        time.sleep(0.1)
        process.send_signal(signal.SIGTERM)
        for thread in threads:
            thread.join()
        assert process.wait(60) in {0, -signal.SIGTERM}
        assert set(answers) <= {200}


def test_sigterm_while_indexing_leaves_a_whole_store_and_a_restart_goes_on(tmp_path: Path) -> None:
    media = make_media(tmp_path / "media")
    for number in range(40):
        (media / f"{number}.txt").write_text(f"a red circle left of {number} squares")
    arguments = ("--media", str(media))
    with serving(tmp_path, *arguments) as (process, url):
        wait_until_ready(url)
        assert httpx.post(f"{url}/api/index", timeout=60).status_code == 202
        until = time.monotonic() + 60
        while not httpx.get(f"{url}/api/index", timeout=60).json()["done"]:
            assert time.monotonic() < until
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) in {0, -signal.SIGTERM}
    with serving(tmp_path, *arguments) as (process, url):
        wait_until_ready(url)
        httpx.post(f"{url}/api/index", timeout=60)
        with httpx.stream("GET", f"{url}/api/index/events", timeout=120) as stream:
            states = [json.loads(line[6:]) for line in stream.iter_lines() if line.startswith("data: ")]
        assert states[-1]["state"] == "done"
        assert httpx.get(f"{url}/api/collections", timeout=60).json()["points"] == 46


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--host", "0.0.0.0"], "without a key"),  # noqa: S104  # it is refused
        (["--api-key-file", "no-such-file"], "API keys"),
    ],
)
def test_what_is_not_safe_is_refused(arguments: list[str], words: str) -> None:
    result = CliRunner().invoke(app, ["serve", *arguments, "--json"])
    assert result.exit_code == 1
    assert words in json.loads(result.stdout)["message"]
