"""A collection that one process writes and another looks at all the time loses nothing."""

from __future__ import annotations

import subprocess
import sys
import time
import uuid
from pathlib import Path

import numpy as np
import pytest

from ume_qdrant import CollectionMeta, EdgeStore, Point
from ume_qdrant.stores.edge_folder import FileLock
from ume_retrieval.errors import StoreLocked

WRITER = """
import sys, time, uuid
import numpy as np
from ume_qdrant import EdgeStore, Point
vector = np.ones(8, dtype=np.float32) / np.sqrt(8)
for number in range(int(sys.argv[2])):
    with EdgeStore(sys.argv[1], "points") as store:
        while True:
            try:
                store.count()
                break
            except Exception as error:
                assert error.retryable, error
                time.sleep(0.002)
        store.upsert([Point(str(uuid.UUID(int=number)), {"direct": vector}, {"source": "a", "kind": "text"})])
        time.sleep(0.02)
    time.sleep(0.01)
"""


def test_a_reader_between_two_writes_destroys_nothing(tmp_path: Path) -> None:
    """The engine reads segments before it locks: without a hold of ours, a reader writes old ones back."""
    with EdgeStore(tmp_path, "points") as store:
        store.create(CollectionMeta("made", "", "made", 8))
    rounds = 25
    writer = subprocess.Popen([sys.executable, "-c", WRITER, str(tmp_path), str(rounds)])  # noqa: S603 our own code
    seen: list[int] = []
    while writer.poll() is None:
        try:
            with EdgeStore(tmp_path, "points") as store:
                seen.append(store.count())
        except StoreLocked:
            pass
        time.sleep(0.004)
    assert writer.returncode == 0
    with EdgeStore(tmp_path, "points") as store:
        assert store.count() == rounds
    assert seen == sorted(seen)


def test_stores_of_one_process_share_a_collection_and_closed_ones_hold_nothing(tmp_path: Path) -> None:
    vector = np.ones(8, dtype=np.float32) / np.sqrt(8)
    with EdgeStore(tmp_path, "points") as first:
        first.create(CollectionMeta("made", "", "made", 8))
        first.upsert([Point(str(uuid.UUID(int=1)), {"direct": vector}, {"source": "a", "kind": "text"})])
        second = EdgeStore(tmp_path, "points")
        assert second.count() == 1
    assert second.count() == 1, "the last store closes the collection, not the first"
    second.close()
    FileLock(tmp_path / "points").release()
    forgotten = EdgeStore(tmp_path, "points")
    assert forgotten.count() == 1
    del forgotten
    FileLock(tmp_path / "points").release()


def test_a_refused_store_holds_nothing(tmp_path: Path) -> None:
    """Something holds the folder that does not share it, such as a process on a system without Unix sockets."""
    with EdgeStore(tmp_path, "points") as first:
        first.create(CollectionMeta("made", "", "made", 8))
    lock = FileLock(tmp_path / "points")
    lock.record({"state": "private"})
    for _ in range(3):
        with pytest.raises(StoreLocked) as locked:
            first.count()
        assert locked.value.retryable
    lock.release()
    assert first.count() == 0
    first.close()
