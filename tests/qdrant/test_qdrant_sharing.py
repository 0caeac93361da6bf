"""Threads, stores and processes use one collection at once; who owns it may change at any time."""

from __future__ import annotations

import os
import pickle
import signal
import statistics
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from ume_qdrant import ANY_TENANT, CollectionMeta, EdgeStore, Filter, Layout, Point, index, parse_where, search
from ume_qdrant.stores.edge_folder import lock_record
from ume_qdrant.stores.wire import pack, unpack
from ume_retrieval import ReasoningEmbedder
from ume_retrieval.errors import StoreError, StoreLocked, StoreMismatch
from ume_retrieval.testing import FakeReasoner, HashEmbedder

META = CollectionMeta("model", "rev", "embed-rl", 4)
VECTOR = np.asarray([1, 0, 0, 0], dtype=np.float32)
ANSWER_S = 30

OWNER = """
import sys, uuid
import numpy as np
from ume_qdrant import EdgeStore, Point
store = EdgeStore(sys.argv[1], "films")
print(store.count(), flush=True)
for line in sys.stdin:
    number = int(line)
    vector = np.asarray([1, 0, 0, 0], dtype=np.float32)
    store.upsert([Point(str(uuid.UUID(int=number)), {"direct": vector}, {"source": "owner", "kind": "text"})])
    print(store.count(), flush=True)
store.close()
"""


def point(number: int, source: str = "a") -> Point:
    return Point(str(uuid.UUID(int=number)), {"direct": VECTOR}, {"source": source, "kind": "text"})


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    with EdgeStore(tmp_path, "films") as store:
        store.create(META)
        store.upsert([point(1)])
    return tmp_path


@contextmanager
def owner(folder: Path) -> Iterator[subprocess.Popen[str]]:
    """A process that has the collection open."""
    process = subprocess.Popen(  # noqa: S603  # our own text
        [sys.executable, "-c", OWNER, str(folder)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        assert process.stdout.readline() == "1\n"
        yield process
    finally:
        process.kill()
        process.wait()
        process.stdin.close()
        process.stdout.close()


def test_every_call_reaches_the_collection_of_another_process(folder: Path) -> None:
    with owner(folder) as process, EdgeStore(folder, "films") as store:
        store.upsert([point(2, "b"), point(3, "c")])
        store.update([Point(point(2).id, {"reasoned": VECTOR}, {"reasoning": "done"}), point(99)])
        store.delete([point(3).id])
        store.set_metadata(CollectionMeta("model", "rev", "embed-rl", 4, reasoner="thinker"))
        store.optimize()
        assert store.count() == 2
        assert store.count(Filter(sources=("b",))) == 1
        assert [hit.id for hit in store.search("reasoned", VECTOR, limit=5)] == [point(2).id]
        [read] = store.retrieve([point(2).id], vectors=("direct", "reasoned"))
        assert read.payload == {"source": "b", "kind": "text", "reasoning": "done"}
        np.testing.assert_array_equal(read.vectors["reasoned"], VECTOR)
        assert [one.id for one in store.scroll(fields=())] == [point(1).id, point(2).id]
        store.create_index("owner", "keyword")
        assert store.indexes() == {"owner": "keyword"}
        store.update([Point(point(1).id, {}, {"meta": {"owner": "ann", "taken": "2024-05-01T00:00:00Z"}})])
        assert store.count(Filter(meta=parse_where("owner=ann and not taken<2024-01-01"), tenant=ANY_TENANT)) == 1
        assert store.count(Filter(raw={"must": [{"key": "meta.owner", "match": {"value": "bob"}}]})) == 0
        assert store.meta().reasoner == "thinker"
        with pytest.raises(StoreMismatch, match="holds vectors of 4 values"):
            store.search("direct", np.ones(3, dtype=np.float32), limit=1)
        with pytest.raises(StoreLocked):
            store.drop()
        assert lock_record(folder / "films")["pid"] == process.pid


def test_tenants_hold_in_another_process(tmp_path: Path) -> None:
    with EdgeStore(tmp_path, "films") as store:
        store.create(META, Layout(tenant="customer"))
        store.upsert([Point(point(1).id, {"direct": VECTOR}, {"source": "a", "meta": {"customer": "acme"}})])
    with EdgeStore(tmp_path, "films") as held:
        held.count(Filter(tenant="acme"))
        script = (
            "import sys; from ume_qdrant import *; s = EdgeStore(sys.argv[1], 'films'); "
            "print(s.count(Filter(tenant='acme')), s.count(Filter(tenant='other'))); s.count()"
        )
        done = subprocess.run(  # noqa: S603  # our own text
            [sys.executable, "-c", script, str(tmp_path)], capture_output=True, text=True, check=False
        )
    assert done.stdout == "1 0\n"
    assert "TenantRequired" in done.stderr.splitlines()[-1]


def test_a_large_scroll_through_another_process(folder: Path) -> None:
    with owner(folder), EdgeStore(folder, "films") as store:
        store.upsert([point(number) for number in range(1, 2501)])
        assert [one.id for one in store.scroll()] == [point(number).id for number in range(1, 2501)]


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT])
def test_the_next_process_takes_over_in_the_middle(folder: Path, how: signal.Signals) -> None:
    with owner(folder) as process, EdgeStore(folder, "films") as store:
        assert store.count() == 1
        threading.Timer(0.3, process.send_signal, [how]).start()
        numbers = range(2, 302)
        for number in numbers:
            store.upsert([point(number)])
            time.sleep(0.002)
        assert lock_record(folder / "films")["pid"] == os.getpid()
        assert store.count() == 301


def test_a_closed_owner_hands_over_and_can_come_back(folder: Path) -> None:
    with EdgeStore(folder, "films") as store, EdgeStore(folder, "films") as again:
        assert store.count() == 1
        with subprocess.Popen(  # noqa: S603  # our own text
            [sys.executable, "-c", OWNER, str(folder)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        ) as other:
            assert other.stdout is not None
            assert other.stdin is not None
            assert other.stdout.readline() == "1\n"
            store.close()
            other.stdin.write("2\n")
            other.stdin.flush()
            assert other.stdout.readline() == "2\n"
            assert again.count() == 2
            again.close()
            other.stdin.write("3\n")
            other.stdin.flush()
            assert other.stdout.readline() == "3\n"
            assert lock_record(folder / "films")["pid"] == other.pid
            assert again.count() == 3
            other.stdin.close()
            assert other.wait(ANSWER_S) == 0
        assert again.count() == 3


def test_threads_share_what_another_process_owns(folder: Path) -> None:
    with owner(folder), EdgeStore(folder, "films") as store:
        failed: list[BaseException] = []

        def write(first: int) -> None:
            try:
                for number in range(first, first + 20):
                    store.upsert([point(number)])
                    store.search("direct", VECTOR, limit=3)
            except BaseException as error:  # noqa: BLE001  # shown below
                failed.append(error)

        threads = [threading.Thread(target=write, args=(100 * number,)) for number in range(1, 9)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert failed == []
        assert store.count() == 161


def test_a_stopped_owner_is_a_typed_error(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ume_qdrant.stores.served.ANSWER_S", 0.5)
    with owner(folder) as process, EdgeStore(folder, "films") as store:
        process.send_signal(signal.SIGSTOP)
        with pytest.raises(StoreLocked, match="does not answer") as caught:
            store.count()
        assert caught.value.retryable
        process.send_signal(signal.SIGCONT)
        assert store.count() == 1


def test_no_socket_is_left(folder: Path) -> None:
    with EdgeStore(folder, "films") as store:
        store.count()
        socket = Path(lock_record(folder / "films")["socket"])
        assert socket.is_socket()
        assert socket.parent.stat().st_mode & 0o777 == 0o700
    assert not socket.parent.exists()
    with owner(folder) as process:
        killed = Path(lock_record(folder / "films")["socket"])
        process.kill()
        process.wait()
    with EdgeStore(folder, "films") as store:
        store.count()
    assert not killed.parent.exists()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")
def test_a_forked_process_uses_the_store_of_its_parent(folder: Path) -> None:
    store = EdgeStore(folder, "films")
    assert store.count() == 1
    child = os.fork()
    if child == 0:
        try:
            store.upsert([point(2)])
            os._exit(0 if store.count() == 2 else 1)
        finally:
            os._exit(2)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert store.count() == 2
    store.close()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")
def test_a_forked_process_keeps_nothing_locked(folder: Path) -> None:
    store = EdgeStore(folder, "films")
    store.count()
    child = os.fork()
    if child == 0:
        time.sleep(ANSWER_S)
        os._exit(0)
    try:
        store.close()
        assert store.count() == 1, "the engine's lock is free"
        store.close()
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)


def test_a_pickled_store_is_an_address(folder: Path) -> None:
    with EdgeStore(folder, "films") as store:
        store.count()
        with pickle.loads(pickle.dumps(store)) as again:  # noqa: S301  # our own bytes
            assert repr(again) == repr(store)
            assert again.count() == 1


def test_what_cannot_be_sent_or_called_is_a_typed_error(folder: Path) -> None:
    with EdgeStore(folder, "films") as store, pytest.raises(StoreError, match="no call 'close'"):
        store._call("close")
    with pytest.raises(TypeError, match="cannot be sent"):
        pack(object())
    for data in (b"", b"{", b'{"$":"Popen","value":{}}', b'{"a":1}', b"\xff", b'{"$":"array","value":[[9],"AAAA"]}'):
        with pytest.raises(StoreError, match="cannot be read"):
            unpack(data)


PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner) | st.tuples(inner, inner),
)


@given(PLAIN)
def test_values_survive_the_way(value: object) -> None:
    assert unpack(pack(value)) == value


@given(arrays(np.float32, (3, 4)))
def test_arrays_survive_the_way(value: np.ndarray[tuple[int, int], np.dtype[np.float32]]) -> None:
    np.testing.assert_array_equal(unpack(pack(value)), value)


BUSY = """
import sys, time
from pathlib import Path
from ume_qdrant import EdgeStore, enrich, index
from ume_retrieval import ReasoningEmbedder
from ume_retrieval.testing import FakeReasoner, HashEmbedder

class SlowEmbedder(HashEmbedder):
    def embed(self, *arguments, **settings):
        time.sleep(0.1)
        return super().embed(*arguments, **settings)

class SlowReasoner(FakeReasoner):
    def generate(self, *arguments, **settings):
        time.sleep(0.1)
        return super().generate(*arguments, **settings)

embedder = ReasoningEmbedder(SlowEmbedder(), SlowReasoner())
with EdgeStore(sys.argv[1], "notes") as store:
    store.count()
    print("busy", flush=True)
    if sys.argv[3] == "index":
        index(embedder, store, sys.argv[2], batch_size=1)
    else:
        enrich(embedder, store, batch_size=1)
"""


@pytest.mark.parametrize("work", ["index", "enrich"])
def test_search_answers_while_another_process_works(tmp_path: Path, work: str) -> None:
    media = tmp_path / "media"
    media.mkdir()
    (media / "first.txt").write_text("the last train home")
    embedder = ReasoningEmbedder(HashEmbedder(), FakeReasoner())
    with EdgeStore(tmp_path / "vectors", "notes") as store:
        index(embedder, store, media)
    for number in range(40):
        (media / f"{number}.txt").write_text(f"words of note {number}")
    with EdgeStore(tmp_path / "vectors", "notes") as store:
        if work == "enrich":
            index(embedder, store, media)
    answered: list[float] = []
    with subprocess.Popen(  # noqa: S603  # our own text
        [sys.executable, "-c", BUSY, str(tmp_path / "vectors"), str(media), work], stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "busy\n"
        while process.poll() is None:
            started = time.monotonic()
            with EdgeStore(tmp_path / "vectors", "notes") as store:
                result = search(embedder, store, "the last train home", limit=1, mode="direct")
            assert result.hits[0].text == "the last train home"
            if process.poll() is None:
                answered.append(time.monotonic() - started)
        assert process.returncode == 0
    assert len(answered) > 3
    assert statistics.median(answered) < 2, "one may wait for other work of a busy machine"
    with EdgeStore(tmp_path / "vectors", "notes") as store:
        assert store.count() == 41
        assert store.count(Filter(reasoning=("done",))) == (41 if work == "enrich" else 0)
