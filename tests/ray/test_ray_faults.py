"""Minutes on a real Ray: the driver is killed, readers are killed from outside, the server fails, several write."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path

import pytest
from fault_qdrant import QdrantServer
from qdrant_world import dump, same
from ray_mortals import Hazard, MortalEmbedder
from small_media import fill, picture
from test_ray_index import cluster, one_process

from ume_qdrant import open_store
from ume_ray import Models, StoreAddress, WorkerPools
from ume_ray import index as ray_index
from ume_retrieval.testing import FakeReasoner

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings(r"ignore::DeprecationWarning:ray\..*"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
]

__all__ = ["cluster"]

DRIVER = Path(__file__).with_name("ray_kill_driver.py")


@contextmanager
def killing(name: bytes, often: int) -> Iterator[list[int]]:
    """Kill our own workers of that name from outside, some seconds apart."""
    killed: list[int] = []
    done = threading.Event()

    def hunt() -> None:
        while not done.wait(0.05) and len(killed) < often:
            for pid in descendants():
                with suppress(OSError):
                    if Path(f"/proc/{pid}/cmdline").read_bytes().startswith(name):
                        os.kill(pid, signal.SIGKILL)
                        killed.append(pid)
                        time.sleep(2)
                        break

    thread = threading.Thread(target=hunt, daemon=True)
    thread.start()
    yield killed
    done.set()
    thread.join()


def descendants() -> set[int]:
    """Processes that this one has started, and those that they have."""
    parents: dict[int, int] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with suppress(OSError):
                parents[int(entry.name)] = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
    family = {os.getpid()}
    while more := {pid for pid, parent in parents.items() if parent in family and pid not in family}:
        family |= more
    return family - {os.getpid()}


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="looks for workers in /proc")
def test_readers_killed_from_outside_and_a_server_that_fails(cluster: None, tmp_path: Path) -> None:
    """Four writers write to one server, every tenth of whose answers fails; an Embedder and readers die meanwhile."""
    folder = fill(tmp_path / "in")
    for number in range(60):
        picture(folder / f"{number:02}.png", (number, 4 * number, 250 - number))
    dice = random.Random(5)
    server = QdrantServer(lambda: dice.choice(["503", "nothing", "answer lost"]) if dice.random() < 0.1 else None)
    hazard = Hazard(tmp_path / "calls", (2, 6))
    pair = Models(partial(MortalEmbedder, hazard), FakeReasoner, cache=tmp_path / "traces.sqlite3")
    pools = WorkerPools(files_a_task=4, items_a_call=4, writers=4)
    address = StoreAddress(server.url, "things")
    try:
        with killing(b"ray::MapBatches(Decode)", 2) as killed:
            made = ray_index(pair, address, folder, reasoning="always", workers=pools)
        assert killed
        assert server.faults
        assert len(list(hazard.folder.iterdir())) > 6
        assert (made.indexed, made.points, made.failed) == (66, 68, ())
        with open_store(server.url, "things") as store:
            found = dump(store)
        same(one_process(tmp_path, folder), found)
        again = ray_index(pair, address, folder, reasoning="always", workers=pools)
        assert (again.unchanged, again.points, again.model_calls) == (66, 0, 0)
    finally:
        server.stop()


def test_a_killed_run_goes_on_where_it_was(tmp_path: Path) -> None:
    folder, store = fill(tmp_path / "in"), tmp_path / "many"
    environment = {**os.environ, "RAY_USAGE_STATS_ENABLED": "0", "RAY_worker_niceness": "0"}

    def drive(*more: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, str(DRIVER), str(folder), str(store), *more]
        return subprocess.run(command, capture_output=True, text=True, check=False, env=environment, timeout=600)  # noqa: S603

    assert drive("3").returncode == -signal.SIGKILL
    for _ in range(100):  # the actor that holds the directory ends with its cluster
        with suppress(Exception), open_store(store, "things") as opened:
            before = opened.count()
            break
        time.sleep(0.5)
    assert 0 < before < 8
    finished = drive()
    assert finished.returncode == 0, finished.stderr
    assert json.loads(finished.stdout)["points"] == 8 - before
    with open_store(store, "things") as opened:
        same(one_process(tmp_path, folder), dump(opened))


def test_the_command_line_on_ray(tmp_path: Path) -> None:
    """`ume index --workers ray` on a Ray that it starts itself, with the bundled pair."""
    folder, store = fill(tmp_path / "in"), tmp_path / "many"
    environment = {**os.environ, "RAY_worker_niceness": "0", "UME_CACHE_DIR": str(tmp_path / "cache")}
    command = [str(Path(sys.executable).with_name("ume")), "index", str(folder), "--workers", "ray", "--store"]
    done = subprocess.run(  # noqa: S603
        [*command, str(store), "--json"], capture_output=True, text=True, check=False, env=environment, timeout=600
    )
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert (report["indexed"], report["failed"]) == (6, [])
    with open_store(store, "default") as opened:
        assert opened.count() == 8
        assert opened.meta().dimension == 128
