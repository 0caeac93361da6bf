"""Decoding in workers: the same pixels and errors, and who crashes or hangs costs that item alone."""

from __future__ import annotations

import io
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest
from small_media import BLUE, GREEN, RED, clip, document, picture

from ume_retrieval import (
    Clip,
    Failure,
    Frames,
    InputError,
    Item,
    Limits,
    MediaError,
    Page,
    VisualBudget,
)
from ume_retrieval.errors import BrokenMedia, MediaCrashed, MediaNotFound, MediaTimeout, MediaTooLarge
from ume_retrieval.media import Entry, Isolation, discover, load
from ume_retrieval.media.isolation import pool as pools
from ume_retrieval.media.isolation.decoder import IsolatedDecoder, decoder
from ume_retrieval.media.isolation.pool import close_pools, pool_of
from ume_retrieval.testing import fake_embedder

BUDGET = VisualBudget()
APART = Limits(isolation=Isolation(workers=2))
POSIX = pytest.mark.skipif(os.name != "posix", reason="signals and limits of POSIX systems")


@pytest.fixture(autouse=True, scope="module")
def no_worker_is_left() -> Iterator[None]:
    yield
    close_pools()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    picture(tmp_path / "odd\nname\x1b[31m.png", RED)
    clip(tmp_path / "clip.mp4", 20, GREEN, BLUE)
    document(tmp_path / "report.pdf", RED, BLUE)
    (tmp_path / "cut.png").write_bytes((tmp_path / "odd\nname\x1b[31m.png").read_bytes()[:60])
    (tmp_path / "notes.txt").write_text("words", encoding="utf-8")
    return tmp_path


def trouble(monkeypatch: pytest.MonkeyPatch, code: str) -> Limits:
    """Workers that do something terrible before they look at a file."""
    close_pools()  # workers of other tests
    start = pools.START.replace("serve(int", f"exec({code!r});serve(int")
    monkeypatch.setattr(pools, "START", start)
    return Limits(isolation=Isolation(workers=1, seconds=3.0))


def on_image(body: str) -> str:
    """Code that makes the workers' `open_image` do `body` for files named bad*."""
    return (
        "import os, time, ume_retrieval.media.isolation.worker as w\n"
        "true = w.open_image\n"
        "def open_image(source, *a, **k):\n"
        "    if 'bad' in str(source):\n"
        f"        {body}\n"
        "    return true(source, *a, **k)\n"
        "w.open_image = open_image"
    )


def pixels(images: tuple[PIL.Image.Image, ...]) -> list[bytes]:
    return [image.tobytes() for image in images]


def test_workers_see_what_this_process_sees(folder: Path) -> None:
    png = folder / "odd\nname\x1b[31m.png"
    frames = Frames((PIL.Image.new("RGB", (8, 8)),), (0.0,), 1.0)
    item = Item(
        images=(png, png.read_bytes(), Page(folder / "report.pdf", 2), PIL.Image.new("L", (4, 4))),
        videos=(Clip(folder / "clip.mp4", 2.0, 9.0), folder / "clip.mp4", frames),
    )
    here, apart = load(item, BUDGET), load(item, BUDGET, APART)
    assert apart.content_id == here.content_id
    assert pixels(apart.images) == pixels(here.images)
    for one, other in zip(here.videos, apart.videos, strict=True):
        assert (one.timestamps, one.duration_s) == (other.timestamps, other.duration_s)
        assert pixels(one.images) == pixels(other.images)


def test_discovery_finds_the_same_and_says_the_same(folder: Path) -> None:
    here, apart = list(discover([folder])), list(discover([folder], limits=APART))
    assert here == apart
    assert sum(isinstance(found, Entry) for found in apart) == 7
    broken = [load_failure(folder / "cut.png", limits) for limits in (Limits(), APART)]
    assert broken[0] == broken[1]
    assert broken[0][0] is BrokenMedia


def load_failure(path: Path, limits: Limits) -> tuple[type[MediaError], str, str]:
    with pytest.raises(MediaError) as caught:
        load(Item(images=(path,)), BUDGET, limits)
    return type(caught.value), caught.value.message, caught.value.hint


@POSIX
@pytest.mark.parametrize(
    ("body", "message"),
    [("os.kill(os.getpid(), 11)", "SIGSEGV"), ("raise TypeError('x')", "TypeError"), ("os._exit(0)", "it ended")],
)
def test_a_crash_costs_that_item_alone(folder: Path, monkeypatch: pytest.MonkeyPatch, body: str, message: str) -> None:
    limits = trouble(monkeypatch, on_image(body))
    bad, good = picture(folder / "bad.png", RED), picture(folder / "good.png", GREEN)
    embedder = fake_embedder(limits=limits)
    items = [Item(images=(path,)) for path in (bad, good, good)]
    result = embedder.encode_corpus(items, strict=False, return_traces=True)
    [failure] = result.failures
    assert (failure.index, failure.error) == (0, MediaCrashed.code)
    assert message in failure.message
    assert failure.hint
    assert np.isfinite(result.vectors).all(axis=1).tolist() == [False, True, True]


@POSIX
def test_a_hang_ends_in_time_and_costs_that_item_alone(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    limits = trouble(monkeypatch, on_image("import signal; signal.pthread_sigmask(0, [2]); time.sleep(600)"))
    bad, good = picture(folder / "bad.png", RED), picture(folder / "good.png", GREEN)
    assert load(Item(images=(good,)), BUDGET, limits).images
    started = time.perf_counter()
    with pytest.raises(MediaTimeout, match=r"bad.png took more than 3 s"):
        load(Item(images=(bad,)), BUDGET, limits)
    assert time.perf_counter() - started < 10
    assert load(Item(images=(good,)), BUDGET, limits).images
    assert limits.isolation is not None
    assert pool_of(limits.isolation).timeouts == 1


@POSIX
def test_a_file_is_not_blamed_for_what_another_did(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # The worker dies at its second picture, whatever that is.
    body = "w.n = getattr(w, 'n', 0) + 1; os._exit(1) if w.n > 1 else None"
    limits = trouble(monkeypatch, on_image(body))
    bad = picture(folder / "bad.png", RED)
    for _ in range(4):
        assert load(Item(images=(bad,)), BUDGET, limits).images


@POSIX
def test_an_error_is_believed_from_a_worker_without_a_past(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # After a first picture that is too large, the worker finds every other one broken.
    body = (
        "w.n = getattr(w, 'n', 0) + 1; worst = 'worst' in str(source)\n"
        "        if worst: raise e.MediaTooLarge('mine')\n"
        "        if w.n > 1: raise e.BrokenMedia('not mine')"
    )
    code = "import ume_retrieval.errors as e\n" + on_image(body)
    limits = trouble(monkeypatch, code)
    worst, bad = picture(folder / "worst-bad.png", RED), picture(folder / "bad.png", RED)
    with pytest.raises(MediaTooLarge, match=r"^mine"):
        load(Item(images=(worst,)), BUDGET, limits)
    assert load(Item(images=(bad,)), BUDGET, limits).images
    with pytest.raises(MediaTooLarge, match=r"^mine"):
        load(Item(images=(worst,)), BUDGET, limits)


@POSIX
@pytest.mark.skipif(sys.platform != "linux", reason="only Linux bounds address space")
def test_memory_is_bounded(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    limits = trouble(monkeypatch, on_image("bytearray(3 * 2**30)"))
    with pytest.raises(MediaTooLarge, match="more memory"):
        load(Item(images=(picture(folder / "bad.png", RED),)), BUDGET, limits)


@POSIX
def test_a_worker_holds_no_keys_and_writes_no_files(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("UME_API_KEY", "QDRANT_API_KEY", "HF_TOKEN", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "hunter2")
    body = f"bad = 'hunter2' in str(os.environ); f = open({str(folder / 'out')!r}, 'wb', 0); f.write(b'x' * (9 + bad))"
    limits = trouble(monkeypatch, on_image(body))
    with pytest.raises(MediaCrashed, match="OSError"):
        load(Item(images=(picture(folder / "bad.png", RED),)), BUDGET, limits)
    assert (folder / "out").stat().st_size == 0
    limits = trouble(monkeypatch, on_image("os._exit('hunter2' in str(os.environ))"))
    assert load_failure(folder / "bad.png", limits)[1].endswith("it ended")


LIES = {
    "too many pixels": {"sizes": [[10**6, 10**6]], "order": [0]},
    "more than it sends": {"sizes": [[100, 100]], "order": [0]},
    "no pixels": {"sizes": [[0, 0]], "order": [0]},
    "negative": {"sizes": [[-1, -1]], "order": [0]},
    "too many pictures": {"sizes": [[1, 1]] * 9, "order": list(range(9))},
    "other place": {"sizes": [[1, 1]], "order": [5]},
    "no answer": {"pages": 3},
    "wrong type": {"sizes": "x", "order": None},
}


@pytest.mark.parametrize("lie", LIES.values(), ids=LIES)
def test_an_answer_that_lies_is_not_believed(folder: Path, lie: dict[str, Any]) -> None:
    class Liar(pools.WorkerPool):
        def ask(self, name: str, request: object, body: bytes, read: Any) -> Any:
            return read(lie, io.BytesIO(b"xxx" * 9))

    png = picture(folder / "bad.png", RED)
    with pytest.raises(
        (ValueError, KeyError, TypeError, IndexError, EOFError)
    ):  # all of which a pool takes for a crash
        IsolatedDecoder(Liar(Isolation())).open_image(png, Limits(), page_pixels=100)


@POSIX
def test_a_worker_that_lies_is_let_go(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    code = (
        "import ume_retrieval.media.isolation.worker as w\nw._answer = lambda *_: w.Answer({'pages': 3}, [b'xxx'] * 9)"
    )
    limits = trouble(monkeypatch, code)
    with pytest.raises(MediaCrashed, match="its answer is malformed"):
        load(Item(images=(picture(folder / "bad.png", RED),)), BUDGET, limits)
    assert limits.isolation is not None
    assert not pool_of(limits.isolation)._idle


def test_threads_share_a_pool(folder: Path) -> None:
    items = [Item(images=(folder / "odd\nname\x1b[31m.png",)), Item(images=(Page(folder / "report.pdf", 1),))] * 8
    with ThreadPoolExecutor(6) as threads:
        loaded = list(threads.map(lambda item: load(item, BUDGET, APART), items))
    assert len({one.content_id for one in loaded}) == 2
    assert APART.isolation is not None
    assert len(pool_of(APART.isolation)._idle) <= APART.isolation.workers


@POSIX
def test_a_worker_that_was_killed_while_it_waited_is_replaced(folder: Path) -> None:
    item = Item(images=(Page(folder / "report.pdf", 1),))
    load(item, BUDGET, APART)
    assert APART.isolation is not None
    for worker in pool_of(APART.isolation)._idle:
        os.kill(worker.process.pid, signal.SIGKILL)
    assert load(item, BUDGET, APART).images


@POSIX
def test_a_fork_has_workers_of_its_own(folder: Path) -> None:
    script = (
        "import os, sys\nfrom pathlib import Path\nfrom ume_retrieval.media import *\n"
        "from ume_retrieval.media.isolation.decoder import decoder\n"
        "limits = Limits(isolation=Isolation(workers=1)); pdf = Path(sys.argv[1])\n"
        "print(decoder(limits).count_pages(pdf, limits), flush=True)\n"
        "child = os.fork()\n"
        "print(decoder(limits).count_pages(pdf, limits), flush=True)\n"
        "sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) if child else 0)\n"
    )
    ran = subprocess.run(  # noqa: S603  # our own interpreter and text
        [sys.executable, "-W", "ignore::DeprecationWarning", "-c", script, str(folder / "report.pdf")],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert ran.stdout.split() == ["2", "2", "2"]


def test_the_parents_death_ends_its_workers(folder: Path) -> None:
    script = (
        "import sys, time\nfrom pathlib import Path\nfrom ume_retrieval.media import *\n"
        "from ume_retrieval.media.isolation.decoder import decoder\n"
        "from ume_retrieval.media.isolation.pool import pool_of\n"
        "limits = Limits(isolation=Isolation(workers=1))\n"
        "decoder(limits).count_pages(Path(sys.argv[1]), limits)\n"
        "print(pool_of(limits.isolation)._idle[0].process.pid, flush=True)\ntime.sleep(60)\n"
    )
    parent = subprocess.Popen(  # noqa: S603  # our own interpreter and text
        [sys.executable, "-c", script, str(folder / "report.pdf")], stdout=subprocess.PIPE, text=True
    )
    assert parent.stdout is not None
    worker = int(parent.stdout.readline())
    parent.kill()
    parent.wait()
    parent.stdout.close()
    gone = threading.Event()
    for _ in range(100):
        if not alive(worker):
            gone.set()
            break
        time.sleep(0.05)
    assert gone.is_set()


def alive(process: int) -> bool:
    try:
        # A process that nobody has waited for yet is a zombie, not alive.
        return "Z" not in Path(f"/proc/{process}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[0]
    except OSError:
        return False


@pytest.mark.parametrize("values", [{"memory_bytes": 1}, {"seconds": 0}, {"seconds": float("nan")}, {"workers": 0}])
def test_limits_that_make_no_sense(values: dict[str, float]) -> None:
    with pytest.raises(InputError):
        Isolation(**values)  # type: ignore[arg-type]  # wrong on purpose


def test_files_that_are_not_there_are_told_as_ever(tmp_path: Path) -> None:
    with pytest.raises(MediaNotFound, match="cannot be opened"):
        decoder(APART).count_pages(tmp_path / "no.pdf", APART)
    assert [type(found) for found in discover([tmp_path / "no.pdf"], limits=APART)] == [Failure]
