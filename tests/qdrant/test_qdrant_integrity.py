"""A collection on disk knows when it is damaged: seals, verify, repair, snapshots."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import uuid
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from qdrant_client import QdrantClient
from qdrant_world import dump, models, same

from ume_qdrant import (
    ClientStore,
    CollectionMeta,
    EdgeStore,
    Point,
    enrich,
    index,
    repair,
    restore,
    snapshot,
    verify,
)
from ume_qdrant.stores.seal import SEAL_FILE, Seal, blocks, copy_sparse
from ume_retrieval.errors import (
    CollectionNotFound,
    InputError,
    StoreDamaged,
    StoreError,
    StoreLocked,
    StoreMismatch,
    StoreUnsupported,
)

META = CollectionMeta("model", "rev", "embed-rl", 4)
ROW = np.asarray([1, 0, 0, 0], dtype=np.float32)

KILLED = """
import os, sys, uuid
import numpy as np
from ume_qdrant import EdgeStore, Point
store = EdgeStore(sys.argv[1], "films")
row = np.asarray([1, 0, 0, 0], dtype=np.float32)
store.upsert([Point(str(uuid.UUID(int=7)), {"direct": row}, {"source": "late", "kind": "text"})])
os.kill(os.getpid(), 9)
"""


def point(number: int, **payload: object) -> Point:
    return Point(str(uuid.UUID(int=number)), {"direct": ROW}, {"source": "a", "kind": "text", **payload})


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    with EdgeStore(tmp_path / "vectors", "films") as store:
        store.create(META)
        store.upsert([point(1), point(2)])
    return tmp_path / "vectors"


def spoil(path: Path) -> None:
    data = bytearray(path.read_bytes())
    place = next(at for at, byte in enumerate(data) if byte)
    data[place] ^= 1
    path.write_bytes(data)


def test_a_closed_collection_is_sealed_and_an_open_one_is_not(folder: Path) -> None:
    seal = Seal.read(folder / "films")
    assert seal is not None
    assert (seal.points, seal.vectors) == (2, {"direct": 2, "reasoned": 0})
    with EdgeStore(folder, "films") as store:
        assert store.count() == 2
        assert Seal.read(folder / "films") is None
    assert Seal.read(folder / "films") is not None


def test_a_damaged_file_is_a_typed_error_until_it_is_repaired(folder: Path) -> None:
    [path] = folder.rglob("payload_storage/page_0.dat")
    spoil(path)
    store = EdgeStore(folder, "films")
    for _ in range(2):
        with pytest.raises(StoreDamaged, match=r"payload_storage.page_0\.dat changed while it was closed") as caught:
            store.count()
        assert "ume store repair" in caught.value.hint
    report = verify(store)
    assert not report.intact
    assert len(report.damaged) == 1
    repaired = repair(store)
    assert (repaired.kept, repaired.requeued) == (0, [])
    assert len(repaired.lost) + (repaired.unnamed or 0) == 2, "nothing is lost without a word"
    assert store.count() == 0
    store.close()
    assert verify(store).intact


def test_a_changed_bit_that_keeps_size_and_time_is_found_by_verify(folder: Path) -> None:
    path = folder / "films" / "shard" / "edge_config.json"
    stat = path.stat()
    spoil(path)
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    store = EdgeStore(folder, "films")
    assert verify(store).damaged == (str(Path("shard", "edge_config.json")),)
    assert repair(store).restored == [str(Path("shard", "edge_config.json"))]
    assert verify(store).intact
    assert store.count() == 2
    store.close()


def test_lost_vectors_are_made_again_from_files_and_the_trace_cache(tmp_path: Path) -> None:
    media, cache = tmp_path / "media", tmp_path / "traces.db"
    media.mkdir()
    for number in range(3):
        (media / f"{number}.txt").write_text(f"the last train home at {number}")
    store = EdgeStore(tmp_path / "vectors", "films")
    with store:
        index(models(cache), store, media, reasoning="always")
        whole = dump(store)
        foreign = Point(point(1).id, {"direct": np.eye(64, dtype=np.float32)[0]}, {"source": "node", "kind": "text"})
        store.upsert([foreign])
    for name, requeued in (("direct", True), ("reasoned", False)):
        [chunk] = tmp_path.rglob(f"vector_storage-{name}/vectors/chunk_0.mmap")
        spoil(chunk)
        report = repair(store)
        assert (len(report.requeued), len(report.reasoning)) == ((3, 0) if requeued else (0, 3))
        assert report.lost == ([foreign.id] if requeued else [])
        assert report.unnamed == 0
        embedder = models(cache)
        with store:
            index(embedder, store, media)
            enrich(embedder, store)
            same(dump(store), whole)
        assert embedder.reasoner.calls == 0  # type: ignore[union-attr]  # a fake counts


def test_metadata_are_restored_from_the_seal(folder: Path) -> None:
    store = EdgeStore(folder, "films")
    path = folder / "films" / "collection.json"
    for content in (None, b"", b"{", b"[]", b"\xff", path.read_bytes().replace(b'"rev"', b'"rew"')):
        path.unlink() if content is None else path.write_bytes(content)
        assert store.exists()
        with pytest.raises(StoreDamaged, match=r"collection\.json"):
            store.meta()
        assert repair(store).restored == ["collection.json"]
        assert store.meta() == META
    (folder / "films" / SEAL_FILE).unlink()
    path.unlink()
    with pytest.raises(StoreDamaged, match="nothing says which models"):
        repair(store)


def test_metadata_of_former_versions_have_no_checksum(folder: Path) -> None:
    path = folder / "films" / "collection.json"
    data = json.loads(path.read_text())
    del data["check"]
    path.write_text(json.dumps(data))
    (folder / "films" / SEAL_FILE).unlink()
    with EdgeStore(folder, "films") as store:
        assert store.meta() == META
        assert store.count() == 2


@pytest.mark.parametrize("content", [b"", b"fil", b"films\n0123", b"../films", b"\0\0", b"\xff"])
def test_a_damaged_alias_is_a_typed_error(folder: Path, content: bytes) -> None:
    with EdgeStore(folder, "films") as store:
        store.set_alias("live")
        (folder / ".aliases" / "live").write_bytes(content)
        with pytest.raises((StoreDamaged, CollectionNotFound)) as caught:
            EdgeStore(folder, "live").count()
        assert caught.value.hint
        store.set_alias("live")
        (folder / ".aliases" / "old").write_text("films")  # as former versions wrote it
        for alias in ("live", "old"):
            with EdgeStore(folder, alias) as other:
                assert other.count() == 2


def test_a_killed_process_leaves_no_seal_and_loses_nothing(folder: Path) -> None:
    killed = subprocess.run([sys.executable, "-c", KILLED, str(folder)], check=False)  # noqa: S603  # our own text
    assert killed.returncode == -9
    store = EdgeStore(folder, "films")
    report = verify(store)
    assert (report.sealed, report.points, report.intact) == (False, 3, True)
    assert repair(store).kept == 3
    with store:
        assert store.count() == 3


def test_points_that_cannot_be_used_are_named(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    with EdgeStore(folder, "films") as store:
        store.upsert([Point(point(3).id, {}, {"source": "b", "kind": "text"}), Point(point(4).id, {"direct": ROW}, {})])
        store.upsert([point(5, parts=2, source="c"), point(6, reasoning="done")])
    (folder / "films" / SEAL_FILE).unlink()
    store.count()
    assert "1 points without their direct vector" in caplog.text
    store.close()
    report = verify(store)
    assert report.faulty.keys() == {point(3).id, point(4).id, point(6).id}
    assert report.incomplete == ("c",)
    assert not report.intact
    assert set(repair(store).lost) <= {point(3).id, point(4).id}


def test_a_snapshot_can_be_restored_elsewhere(folder: Path, tmp_path: Path) -> None:
    store = EdgeStore(folder, "films")
    archive = tmp_path / "films.tar.gz"
    assert snapshot(store, archive) == 2
    whole = dump(store)
    store.close()
    other = EdgeStore(tmp_path / "other", "again")
    assert restore(other, archive) == 2
    same(dump(other), whole)
    other.close()
    with pytest.raises(InputError, match="exists"):
        restore(other, archive)
    for damage in (archive.read_bytes()[:-200], b"", b"no archive"):
        (tmp_path / "bad").write_bytes(damage)
        with pytest.raises(StoreDamaged, match=r"cannot be restored|is damaged"):
            restore(EdgeStore(tmp_path / "third", "films"), tmp_path / "bad")
    assert not EdgeStore(tmp_path / "third", "films").exists()
    with pytest.raises(InputError, match="does not exist"):
        restore(EdgeStore(tmp_path / "third", "films"), tmp_path / "nothing")


def test_files_are_looked_after_where_they_are(folder: Path, tmp_path: Path) -> None:
    server = ClientStore(QdrantClient(":memory:"), "films")
    for call in (verify, repair, lambda store: snapshot(store, tmp_path / "a"), lambda store: restore(store, "a")):
        with pytest.raises(StoreUnsupported):
            call(server)
    with pytest.raises(CollectionNotFound):
        verify(EdgeStore(folder, "flims"))
    with EdgeStore(folder, "films") as store:
        store.count()
        for call in (verify, repair):
            with pytest.raises(StoreLocked):
                call(store)


def test_panics_of_the_engine_are_typed_and_interrupts_pass(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class PanicException(BaseException):
        pass

    with EdgeStore(folder, "films") as store:
        for raised, expected in (
            (PanicException("index out of bounds"), StoreDamaged),
            (ValueError("no number"), StoreError),
            (StoreMismatch("ours"), StoreMismatch),
            (KeyboardInterrupt(), KeyboardInterrupt),
        ):

            def fail(*_: object, error: BaseException = raised) -> int:
                raise error

            monkeypatch.setattr("ume_qdrant.stores.edge_engine.EdgeEngine.count", fail)
            with pytest.raises(expected):
                store.count()
        monkeypatch.undo()
        assert store.count() == 2


def test_holes_are_neither_read_nor_copied(tmp_path: Path) -> None:
    source, target = tmp_path / "a", tmp_path / "b"
    with source.open("wb") as file:
        file.truncate(10_000_001)
        file.seek(5_000_000)
        file.write(b"here")
    copy_sparse(source, target)
    assert target.read_bytes() == source.read_bytes()
    assert len(list(blocks(source))) == 1
    assert target.stat().st_blocks * 512 < 1_000_000


def read_only(target: Path) -> str:
    with EdgeStore(target, "films") as store:
        assert (store.count(), len(store.search("direct", ROW, limit=5))) == (2, 2)
        with pytest.raises(StoreError, match="cannot be written") as caught:
            store.delete([point(1).id])
        assert caught.value.hint
    with pytest.raises(StoreError, match="cannot be written"):
        verify(store)
    return "read"


def as_nobody(call: Callable[[], str]) -> str:
    """Make a call in a forked process without the superuser's rights."""
    back, there = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            if os.geteuid() == 0:
                os.setuid(65534)
            tempfile.tempdir = "/tmp"  # that of the superuser is closed
            os.write(there, call().encode())
        except BaseException as error:  # noqa: BLE001  # shown by the parent
            os.write(there, repr(error).encode())
        finally:
            os._exit(0)
    os.close(there)
    os.waitpid(child, 0)
    with os.fdopen(back) as pipe:
        return pipe.read()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="permissions of POSIX systems")
@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")
def test_a_collection_that_cannot_be_written_can_be_searched(folder: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    with tempfile.TemporaryDirectory() as place:
        Path(place).chmod(0o755)
        target = Path(place) / "vectors"
        shutil.copytree(folder, target, symlinks=True)
        for path in (target, *target.rglob("*")):
            path.chmod(0o555 if path.is_dir() else 0o444)
        assert as_nobody(lambda: read_only(target)) == "read"
        target.chmod(0o755)
        for path in target.rglob("*"):
            path.chmod(0o755)
    assert before == {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
