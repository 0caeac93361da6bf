"""Embedders, caches and values in other processes: forked children go on or raise, copies work."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest

import ume_retrieval
from ume_retrieval import Clip, Frames, Item, Page, ReasoningEmbedder, TraceCache, UmeError
from ume_retrieval.engines.forks import HomeProcess
from ume_retrieval.errors import Failure, ModelError
from ume_retrieval.testing import FakeReasoner, HashEmbedder

needs_fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")

FORK = """
import io, os, sys, threading, time
import numpy as np
import PIL.Image
from ume_retrieval import Item, ReasoningEmbedder, TraceCache
from ume_retrieval.testing import FakeReasoner, HashEmbedder

{setup}
texts = [f"thing {{n}} " * 20 for n in range(24)]
file = io.BytesIO()
PIL.Image.new("RGB", (600, 600), "red").save(file, format="PNG")
items = [*texts, *(Item(images=(file.getvalue(),)) for _ in range(4))]
expected = embedder.encode_corpus(items, reasoning=reasoning)
over = threading.Event()
def work():
    while not over.is_set():
        embedder.encode_corpus(items, reasoning=reasoning)
threads = [threading.Thread(target=work) for _ in range(2)]
for thread in threads:
    thread.start()
codes = []
for _ in range({forks}):
    time.sleep(0.02)
    child = os.fork()
    if child == 0:
        os._exit(0 if np.allclose(embedder.encode_corpus(items, reasoning=reasoning), expected, atol=1e-5) else 1)
    codes.append(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
over.set()
for thread in threads:
    thread.join()
print(codes)
sys.exit(any(codes))
"""

FAKES = "embedder, reasoning = ReasoningEmbedder(HashEmbedder(), FakeReasoner(), cache=TraceCache({path!r})), 'always'"
TINY = """
import torch
torch.set_num_threads(2)
embedder, reasoning = ReasoningEmbedder.from_pretrained(cache=None), "never"
"""


def forked(setup: str, forks: int) -> None:
    code = FORK.format(setup=setup, forks=forks)
    environment = {**os.environ, "OMP_NUM_THREADS": "2"}
    done = subprocess.run(  # noqa: S603  # our own interpreter
        [sys.executable, "-c", code], timeout=120, capture_output=True, text=True, check=False, env=environment
    )
    assert done.returncode == 0, done.stdout + done.stderr[-3000:]


@needs_fork
def test_a_forked_child_finds_locks_caches_and_decoders_free(tmp_path: Path) -> None:
    """Locks that a thread of the parent held at the fork were held in the child for ever."""
    forked(FAKES.format(path=str(tmp_path / "traces.sqlite3")), forks=12)


@needs_fork
def test_a_forked_child_computes_with_the_models_of_its_parent() -> None:
    """Torch waited in the child for the threads of the parent."""
    forked(TINY, forks=2)


@needs_fork
def test_a_model_that_no_child_can_use_raises_there() -> None:
    home = HomeProcess("a model")
    home.require()
    child = os.fork()
    if child == 0:
        try:
            home.require()
        except ModelError as error:
            os._exit(0 if error.hint else 2)
        os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def copied(value: Any) -> Any:
    return pickle.loads(pickle.dumps(value))  # noqa: S301  # our own bytes


def test_an_embedder_and_its_cache_can_be_pickled(tmp_path: Path) -> None:
    embedder = ReasoningEmbedder(HashEmbedder(), FakeReasoner(), cache=TraceCache(tmp_path / "traces.sqlite3"))
    embedder.encode_corpus(["a red circle"])
    again = copied(embedder).encode_corpus(["a red circle"], return_traces=True)
    assert again.usage.cached_traces == 1
    assert np.array_equal(again.vectors, embedder.encode_corpus(["a red circle"]))
    assert copied(ReasoningEmbedder(HashEmbedder())).encode_query("a", reasoning="never").shape == (64,)


def test_values_can_be_pickled(tmp_path: Path) -> None:
    picture = PIL.Image.new("RGB", (4, 4), "red")
    item = Item("a", (picture, Page(tmp_path / "a.pdf", 2)), (Clip("a.mp4", 1.0), Frames((picture,), (0.0,), 1.0)))
    back = copied(item)
    assert (back.text, back.images[1], back.videos[0]) == ("a", item.images[1], item.videos[0])
    assert back.images[0].tobytes() == picture.tobytes()
    embedder = ReasoningEmbedder(HashEmbedder(), FakeReasoner())
    result = embedder.encode_corpus(["a red circle", Item(images=("no.png",))], strict=False, return_traces=True)
    again = copied(result)
    assert again.traces == result.traces
    assert again.failures == result.failures
    for value in (embedder.info, ume_retrieval.Limits(), ume_retrieval.Sampling(), Failure(0, "", "e", "m")):
        assert copied(value) == value


ERRORS = [one for one in vars(ume_retrieval.errors).values() if isinstance(one, type) and issubclass(one, UmeError)]


@pytest.mark.parametrize("kind", ERRORS)
def test_errors_can_be_pickled(kind: type[UmeError]) -> None:
    back = copied(kind("what", hint="then", retryable=True))
    assert (type(back), back.message, back.hint, back.retryable) == (kind, "what", "then", True)
