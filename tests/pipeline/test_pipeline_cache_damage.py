"""A trace cache that is damaged, read-only, hostile or full: no wrong trace, no untyped error, at most a warning."""

from __future__ import annotations

import logging
import os
import random
import sqlite3
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from ume_retrieval import CacheError, ReasoningEmbedder, TraceCache, UmeError
from ume_retrieval.pipeline.spare_traces import open_cache
from ume_retrieval.pipeline.trace_cache import TraceRecord
from ume_retrieval.testing import FakeReasoner, HashEmbedder

TEXTS = [f"thing number {n} of a long list" for n in range(40)]
Damage = Callable[[bytes, random.Random], bytes | None]


def flipped(data: bytes, chance: random.Random) -> bytes:
    spoilt = bytearray(data)
    place = chance.randrange(len(spoilt))
    spoilt[place] ^= 1 << chance.randrange(8)
    return bytes(spoilt)


DAMAGES: dict[str, Damage] = {
    "deleted": lambda data, chance: None,
    "emptied": lambda data, chance: b"",
    "halved": lambda data, chance: data[: len(data) // 2],
    "zeroed": lambda data, chance: bytes(len(data)),
    "bit-flipped": flipped,
}


def embedder(path: Path) -> ReasoningEmbedder:
    """An embedder as `from_pretrained` makes it, of fakes."""
    return ReasoningEmbedder(HashEmbedder(), FakeReasoner(), cache=open_cache(path))


def files_of(folder: Path) -> dict[str, bytes]:
    """Files of a cache that was in use when its process was killed: the database, its log and its index."""
    path = folder / "traces.sqlite3"
    embedder(path).encode_corpus(TEXTS[:20])
    held = sqlite3.connect(path)  # the last connection to close would fold the log in
    held.execute("SELECT count(*) FROM traces").fetchone()
    embedder(path).encode_corpus(TEXTS)
    files = {file.name: file.read_bytes() for file in folder.iterdir()}
    held.close()
    for file in folder.iterdir():
        file.unlink()
    assert set(files) == {"traces.sqlite3", "traces.sqlite3-wal", "traces.sqlite3-shm"}
    return files


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    return files_of(tmp_path_factory.mktemp("cache"))


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("name", ["traces.sqlite3", "traces.sqlite3-wal", "traces.sqlite3-shm"])
def test_a_damaged_file_gives_the_same_vectors(
    files: dict[str, bytes], name: str, damage: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    expected = ReasoningEmbedder(HashEmbedder(), FakeReasoner()).encode_corpus(TEXTS, return_traces=True)
    for attempt in range(25 if damage == "bit-flipped" else 1):
        for file, data in files.items():
            spoilt = DAMAGES[damage](data, random.Random(attempt)) if file == name else data
            (tmp_path / file).unlink(missing_ok=True)
            if spoilt is not None:
                (tmp_path / file).write_bytes(spoilt)
        caplog.clear()
        models = embedder(tmp_path / "traces.sqlite3")
        for _ in range(2):
            result = models.encode_corpus(TEXTS, return_traces=True)
            assert np.array_equal(result.vectors, expected.vectors)
            assert [one.tcot if one else None for one in result.traces] == [
                one.tcot if one else None for one in expected.traces
            ]
        assert len(caplog.records) <= 1
        for file in tmp_path.iterdir():
            file.unlink()


def test_a_flipped_bit_in_a_reply_is_noticed(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """SQLite returned the changed text as if it were the Reasoner's."""
    path = tmp_path / "traces.sqlite3"
    with TraceCache(path) as cache:
        cache.put_many({"one": record("<answer>a cat</answer>"), "two": record("<answer>a dog</answer>")})
    path.write_bytes(path.read_bytes().replace(b"a cat", b"a bat"))
    assert TraceCache(path).get_many(["one", "two"]).keys() == {"two"}
    [warning] = caplog.records
    assert "1 damaged traces" in warning.getMessage()
    cache.put_many({"one": record("<answer>a cat</answer>")})
    assert cache.get_many(["one"])["one"].text == "<answer>a cat</answer>"


def record(text: str, created_at: float = 1.5) -> TraceRecord:
    return TraceRecord(text, 3, 2, "stop", "owner/model@abc", created_at)


def test_a_file_of_an_earlier_version_is_read_and_protected(tmp_path: Path) -> None:
    path = tmp_path / "traces.sqlite3"
    database = sqlite3.connect(path)
    database.execute(TraceCache.schema)
    database.execute(f"PRAGMA application_id = {TraceCache.application_id}")
    database.execute("INSERT INTO traces VALUES ('key', '<answer>a cat</answer>', 1, 0, 'stop', '', 1)")
    database.commit()
    database.close()
    assert TraceCache(path).get_many(["key"])["key"].text == "<answer>a cat</answer>"
    database = sqlite3.connect(path)
    assert database.execute("SELECT count(*) FROM digests").fetchone() == (1,)
    database.execute("UPDATE traces SET text = '<answer>a bat</answer>'")
    database.execute("INSERT INTO traces VALUES ('new', '<answer>an owl</answer>', 1, 0, 'stop', '', 1)")
    database.commit()
    database.close()
    assert TraceCache(path).get_many(["key", "new"]) == {}
    assert TraceCache(path).clear() == 2
    database = sqlite3.connect(path)
    assert database.execute("SELECT count(*) FROM digests").fetchone() == (0,)
    database.close()


def test_a_cache_that_fails_during_a_run_is_done_without(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "traces.sqlite3"
    models = embedder(path)
    models.encode_corpus(TEXTS[:5])
    path.write_bytes(b"no database at all" * 400)
    expected = ReasoningEmbedder(HashEmbedder(), FakeReasoner()).encode_corpus(TEXTS)
    assert np.array_equal(models.encode_corpus(TEXTS), expected)
    again = models.encode_corpus(TEXTS, return_traces=True)
    assert again.usage.reasoner_calls == 0, "later calls find in memory what was not kept on disk"
    [warning] = caplog.records
    assert warning.levelno == logging.WARNING
    assert "going on without it" in warning.getMessage()
    assert path.read_bytes().startswith(b"no database"), "the file is left to its owner"


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs another user")
@pytest.mark.parametrize("filled", [False, True])
def test_a_read_only_cache_is_done_without(tmp_path: Path, filled: bool) -> None:
    path = tmp_path / "cache" / "traces.sqlite3"
    path.parent.mkdir()
    if filled:
        embedder(path).encode_corpus(TEXTS)
        path.chmod(0o444)
    path.parent.chmod(0o555)
    tmp_path.chmod(0o755)
    child = os.fork()
    if child == 0:
        if os.geteuid() == 0:
            os.setgid(65534)
            os.setuid(65534)
        try:
            done = np.isfinite(embedder(path).encode_corpus(TEXTS)).all()
        except BaseException:  # noqa: BLE001  # the parent sees the code
            done = False
        os._exit(0 if done else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    path.parent.chmod(0o755)


@given(data=st.binary(max_size=300), header=st.booleans())
@example(data=b"", header=True)
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_file_opens_or_is_a_typed_error(tmp_path: Path, data: bytes, header: bool) -> None:
    path = tmp_path / "traces.sqlite3"
    if header:
        with TraceCache(path) as cache:
            cache.put_many({"key": record("<answer>a cat</answer>")})
        whole = path.read_bytes()
        data = (data + whole[len(data) :]) if len(data) % 2 else whole[: len(whole) - len(data)] + data
    path.write_bytes(data)
    failure, found = None, dict[str, TraceRecord]()
    try:
        cache = TraceCache(path)
        found = cache.get_many(["key", "\ud800", "a\0b"])
        cache.put_many({"key": record("<answer>a cat</answer>")})
        len(cache)
        cache.prune(older_than_days=1e9, max_bytes=10**9)
    except CacheError as error:
        failure = error
    if failure is not None:
        assert failure.hint
    else:
        assert {one.text for one in found.values()} <= {"<answer>a cat</answer>"}
    for file in tmp_path.iterdir():
        file.unlink()


@pytest.mark.parametrize("row", ["x'ff00'", "NULL", "9e999", "char(0)", "zeroblob(10)", "9223372036854775807"])
@pytest.mark.parametrize("column", ["text", "prompt_tokens", "finish", "created_at"])
def test_values_that_were_never_written_are_no_traces(tmp_path: Path, column: str, row: str) -> None:
    path = tmp_path / "traces.sqlite3"
    with TraceCache(path) as cache:
        cache.put_many({"key": record("<answer>a cat</answer>")})
    database = sqlite3.connect(path)
    try:
        database.execute(f"UPDATE traces SET {column} = {row}")  # noqa: S608  # constants
    except sqlite3.IntegrityError:
        return
    finally:
        database.commit()
        database.close()
    assert cache.get_many(["key"]) == {}
    cache.put_many({"key": record("<answer>a dog</answer>")})
    assert cache.get_many(["key"])["key"].text == "<answer>a dog</answer>"


@pytest.mark.parametrize("name", ["a\0b", "half \ud800", "x" * 5000])
def test_a_path_that_no_system_has_is_a_typed_error(tmp_path: Path, name: str) -> None:
    for path in (tmp_path / name, tmp_path / name / "traces.sqlite3"):
        with pytest.raises(CacheError) as caught:
            TraceCache(path)
        assert caught.value.hint
        assert caught.value.message.isprintable()


def test_a_number_that_sqlite_cannot_hold_is_a_typed_error(tmp_path: Path) -> None:
    with pytest.raises(UmeError):
        TraceCache(tmp_path / "t").put_many({"key": TraceRecord("<answer>a</answer>", 2**64, 1, "stop")})


def test_a_full_cache_forgets_the_oldest_and_stops_growing(tmp_path: Path) -> None:
    cache = TraceCache(tmp_path / "traces.sqlite3", max_bytes=400_000)
    for start in range(0, 1500, 50):
        cache.put_many(
            {f"{n:04}": record(f"<answer>{n} {'x' * 900}</answer>", float(n)) for n in range(start, start + 50)}
        )
    cache.close()
    assert cache.size_bytes < 600_000
    kept = sorted(cache.get_many(f"{n:04}" for n in range(1500)))
    assert 200 < len(kept) < 450
    assert kept == [f"{n:04}" for n in range(1500 - len(kept), 1500)]
