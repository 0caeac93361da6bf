"""Threads and processes that write to one fresh folder at once lose nothing and leave nothing behind."""

from __future__ import annotations

import subprocess
import sys
import threading
import uuid
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np

from ume_qdrant import CollectionMeta, EdgeStore, Point

META = CollectionMeta("model", "rev", "embed-rl", 4)
VECTOR = np.ones(4, dtype=np.float32) / 2
THREADS, PROCESSES, EACH = 8, 4, 5

WRITER = """
import sys, time, uuid
import numpy as np
from ume_qdrant import CollectionMeta, EdgeStore, Point
from ume_retrieval.errors import StoreError
folder, number, each = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
vector = np.ones(4, dtype=np.float32) / 2
left = [number * each + one for one in range(each)]
while left:
    try:
        with EdgeStore(folder, "films") as store:
            store.create(CollectionMeta("model", "rev", "embed-rl", 4))
            store.upsert([Point(str(uuid.UUID(int=left[0])), {"direct": vector}, {"source": "a", "kind": "text"})])
            store.set_alias("live")
        left.pop(0)
    except StoreError as error:
        assert error.retryable, error
        time.sleep(0.005)
"""


def stray_files(folder: Path) -> list[Path]:
    """Temporary files and folders of a writer."""
    return [path for path in folder.rglob(".*") if path.name not in {".lock", ".seal", ".aliases"}]


def at_once(call: Callable[[int], None]) -> None:
    """Make a call in each of several threads that begin together; raises what one raises."""
    begin = threading.Barrier(THREADS)

    def wait_and_call(number: int) -> None:
        begin.wait()
        call(number)

    with ThreadPoolExecutor(THREADS) as pool:
        list(pool.map(wait_and_call, range(THREADS)))


def test_threads_share_a_store_on_a_fresh_collection(tmp_path: Path) -> None:
    ids = [str(uuid.UUID(int=number)) for number in range(THREADS * EACH)]
    with EdgeStore(tmp_path, "films") as store:

        def write(number: int) -> None:
            store.create(META)
            for key in ids[number * EACH : (number + 1) * EACH]:
                store.upsert([Point(key, {"direct": VECTOR}, {"source": "a", "kind": "text"})])
                store.set_metadata(replace(META, reasoner=f"thinker-{number}"))
                store.set_alias("live")

        at_once(write)
        assert sorted(point.id for point in store.scroll()) == ids
        assert store.aliases() == {"live": "films"}
        assert store.meta().reasoner.startswith("thinker-")
    assert stray_files(tmp_path) == []


def test_processes_take_turns_on_a_fresh_collection(tmp_path: Path) -> None:
    writers = [
        subprocess.Popen([sys.executable, "-c", WRITER, str(tmp_path), str(number), str(EACH)])  # noqa: S603  # our own text
        for number in range(PROCESSES)
    ]
    assert [writer.wait(timeout=300) for writer in writers] == [0] * PROCESSES
    with EdgeStore(tmp_path, "live") as store:
        assert sorted(point.id for point in store.scroll()) == [
            str(uuid.UUID(int=number)) for number in range(PROCESSES * EACH)
        ]
    assert stray_files(tmp_path) == []
