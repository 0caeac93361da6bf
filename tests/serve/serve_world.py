"""A server in a thread of this process, over real files, with models that need no weights."""

from __future__ import annotations

import contextlib
import random
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import httpx
import PIL.Image
import uvicorn

from ume_qdrant import index, open_store
from ume_retrieval import ReasoningEmbedder
from ume_retrieval.testing import fake_embedder
from ume_serve import Settings, create_app
from ume_training.shapes.draw import write_clip
from ume_training.shapes.levels import LEVELS
from ume_training.shapes.world import sample_clip

HOSTILE = "<img src=x onerror=alert(1)>.txt"


def make_media(folder: Path) -> Path:
    """Pictures of one colour, a clip, and texts, one with a hostile name and content."""
    folder.mkdir(parents=True)
    for colour in ("red", "green", "blue"):
        PIL.Image.new("RGB", (120, 90), colour).save(folder / f"{colour}.png")
    write_clip([sample_clip(random.Random(3), LEVELS["default"])], folder / "clip.mp4")
    (folder / "train.txt").write_text("the last train home")
    (folder / HOSTILE).write_text("<script>document.title = 'owned'</script> the train")
    return folder


def make_index(place: Path) -> Settings:
    media = make_media(place / "media")
    with open_store(place / "vectors", "default") as store:
        index(fake_embedder(), store, media, reasoning="always", strict=True)
    return Settings(store=str(place / "vectors"), media=(media,), isolate=False)


def with_own_store(settings: Settings, folder: Path, **changes: object) -> Settings:
    """The settings with a copy of the store: one process at a time opens a folder."""
    shutil.copytree(settings.store, folder / "vectors")
    return replace(settings, store=str(folder / "vectors"), **changes)  # type: ignore[arg-type]


@contextlib.contextmanager
def served(
    settings: Settings, load: Callable[[], ReasoningEmbedder] = fake_embedder, *, wait: bool = True
) -> Iterator[str]:
    config = uvicorn.Config(create_app(settings, load), port=0, log_level="error", timeout_graceful_shutdown=5)
    listening = config.bind_socket()
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]}, daemon=True)
    thread.start()
    base = f"http://127.0.0.1:{listening.getsockname()[1]}"
    until = time.monotonic() + 30
    while time.monotonic() < until and not server.started:
        time.sleep(0.01)
    while wait and time.monotonic() < until and httpx.get(f"{base}/ready").status_code != 200:
        time.sleep(0.01)
    try:
        yield base
    finally:
        server.should_exit = True
        thread.join(20)
        listening.close()
