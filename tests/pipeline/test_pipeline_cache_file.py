"""The file of traces: records, pruning, and files that are damaged, busy or somebody else's."""

from __future__ import annotations

import os
import sqlite3
import time
from pathlib import Path

import pytest

from ume_retrieval import CacheError, TraceCache
from ume_retrieval.pipeline import default_cache_path
from ume_retrieval.pipeline.trace_cache import TraceRecord


def record(text: str = "<answer>a cat</answer>", created_at: float | None = None) -> TraceRecord:
    return TraceRecord(text, 3, 2, "stop", "owner/model@abc", time.time() if created_at is None else created_at)


@pytest.fixture
def cache(tmp_path: Path) -> TraceCache:
    return TraceCache(tmp_path / "traces.sqlite3")


def test_records_come_back_as_they_were_and_the_first_one_stays(cache: TraceCache) -> None:
    first = TraceRecord('<answer>"caf\xe9" \U0001f600\x00</answer>', 3, 2, "length", "owner/model@abc", 1.5)
    cache.put_many({"key": first})
    cache.put_many({"key": record("another"), "other": record()})
    assert cache.get_many(["key", "key", "unknown"]) == {"key": first}
    assert len(cache) == 2
    assert cache.get_many([]) == {}
    cache.put_many({})


@pytest.mark.parametrize("empty", ["", " \n", "<thinking></thinking><answer> </answer>"])
def test_a_reply_without_words_is_not_kept_and_gives_way(cache: TraceCache, empty: str) -> None:
    cache.put_many({"key": record(empty), "other": record()})
    assert cache.get_many(["key", "other"]).keys() == {"other"}
    assert len(cache) == 1
    with sqlite3.connect(cache.path) as database:  # as an earlier version did
        database.execute("INSERT INTO traces VALUES ('key', ?, 1, 0, 'stop', '', 1.0)", (empty,))
    database.close()
    assert cache.get_many(["key"]) == {}
    good = record("<answer>a dog</answer>", created_at=2.0)
    cache.put_many({"key": good})
    cache.put_many({"key": record("another")})
    assert cache.get_many(["key"]) == {"key": good}
    assert len(cache) == 2


def test_many_keys_at_once(cache: TraceCache) -> None:
    cache.put_many({str(number): record() for number in range(3000)})
    assert len(cache.get_many(str(number) for number in range(-3000, 3000))) == 3000


def test_prune_by_age(cache: TraceCache) -> None:
    now = time.time()
    cache.put_many({"old": record(created_at=now - 10 * 86400), "new": record(created_at=now - 86400)})
    assert cache.prune(older_than_days=5) == 1
    assert cache.get_many(["old", "new"]).keys() == {"new"}


def test_prune_by_size_forgets_the_oldest(cache: TraceCache) -> None:
    cache.put_many({f"{n:04}": record("x" * 1000, created_at=float(n)) for n in range(1000)})
    cache.close()
    before = cache.size_bytes
    forgotten = cache.prune(max_bytes=before // 2)
    assert cache.size_bytes <= before // 2
    assert 400 < forgotten < 700
    assert cache.get_many(f"{n:04}" for n in range(1000)).keys() == {f"{n:04}" for n in range(forgotten, 1000)}
    assert cache.prune(max_bytes=0) == 1000 - forgotten
    assert cache.prune(max_bytes=0) == 0


@pytest.mark.parametrize("long", [1000, 4000])
def test_prune_by_size_forgets_no_more_because_others_have_the_file_open(cache: TraceCache, long: int) -> None:
    """Each VACUUM then went to a write-ahead log that counted, so that nearly everything was forgotten."""
    cache.put_many({f"{n:04}": record("x" * (long if n < 500 else 1000), created_at=float(n)) for n in range(1000)})
    other = sqlite3.connect(cache.path)
    other.execute("SELECT count(*) FROM traces").fetchone()
    bytes_kept = [other.execute(f"PRAGMA {name}").fetchone()[0] for name in ("page_count", "page_size")]
    forgotten = cache.prune(max_bytes=int(bytes_kept[0] * bytes_kept[1] * 0.9))
    other.close()
    cache.close()
    assert (90 if long == 1000 else 50) < forgotten < (130 if long == 1000 else 80)
    assert len(cache) == 1000 - forgotten
    assert cache.size_bytes <= bytes_kept[0] * bytes_kept[1] * 0.9


def test_prune_by_size_gives_free_pages_back_before_it_forgets(cache: TraceCache) -> None:
    cache.put_many({str(n): record("x" * 1000) for n in range(100)})
    cache.close()
    small = cache.size_bytes
    cache.put_many({f"more {n}": record("x" * 1000) for n in range(900)})
    with sqlite3.connect(cache.path) as other:
        other.execute("DELETE FROM traces WHERE key LIKE 'more%'")
    other.close()
    assert cache.size_bytes > 5 * small
    assert cache.prune(max_bytes=2 * small) == 0
    assert cache.size_bytes <= 2 * small


def test_clear_forgets_everything_and_gives_the_space_back(cache: TraceCache) -> None:
    cache.put_many({str(n): record("x" * 1000) for n in range(500)})
    cache.close()
    before = cache.size_bytes
    assert cache.clear() == 500
    cache.close()
    assert len(cache) == 0
    assert cache.size_bytes < before / 10


def test_close_leaves_one_whole_file(tmp_path: Path) -> None:
    with TraceCache(tmp_path / "traces.sqlite3") as cache:
        cache.put_many({"key": record()})
    assert [path.name for path in tmp_path.iterdir()] == ["traces.sqlite3"]
    copy = tmp_path / "copy.sqlite3"
    copy.write_bytes((tmp_path / "traces.sqlite3").read_bytes())
    assert len(TraceCache(copy)) == 1


def test_a_file_that_is_no_database_is_refused_and_kept(tmp_path: Path) -> None:
    path = tmp_path / "traces.sqlite3"
    path.write_bytes(b"this is not a database, but somebody's notes" * 50)
    with pytest.raises(CacheError) as raised:
        TraceCache(path)
    assert "damaged" in raised.value.message
    assert raised.value.hint
    assert path.read_bytes().startswith(b"this is not")


def test_a_database_that_breaks_later_is_reported_not_emptied(tmp_path: Path) -> None:
    path = tmp_path / "traces.sqlite3"
    with TraceCache(path) as cache:
        cache.put_many({str(n): record("x" * 3000) for n in range(200)})
    whole = path.read_bytes()
    path.write_bytes(whole[:8192] + os.urandom(len(whole) - 8192))
    with pytest.raises(CacheError) as raised:
        TraceCache(path).get_many([str(n) for n in range(200)])
    assert raised.value.code == "cache_error"
    assert not raised.value.retryable


@pytest.mark.parametrize("mode", ["delete", "wal"])
def test_another_programs_database_is_left_alone(tmp_path: Path, mode: str) -> None:
    path = tmp_path / "bookmarks.sqlite3"
    database = sqlite3.connect(path)
    database.execute(f"PRAGMA journal_mode = {mode}").fetchone()
    database.execute("CREATE TABLE bookmarks (address TEXT)")
    database.close()
    before = path.read_bytes()
    with pytest.raises(CacheError, match="another program"):
        TraceCache(path)
    assert path.read_bytes() == before  # which the change to WAL alone would alter
    assert [file.name for file in tmp_path.iterdir()] == ["bookmarks.sqlite3"]
    database = sqlite3.connect(path)
    assert database.execute("SELECT name FROM sqlite_master").fetchall() == [("bookmarks",)]
    database.close()


def test_a_path_that_cannot_be_used_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for path in (tmp_path / "file" / "traces.sqlite3", tmp_path):
        with pytest.raises(CacheError) as raised:
            TraceCache(path)
        assert raised.value.hint


def test_a_busy_file_is_worth_another_try(cache: TraceCache, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ume_retrieval.util.sqlite.BUSY_TIMEOUT_S", 0.05)
    other = sqlite3.connect(cache.path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(CacheError) as raised:
        cache.put_many({"key": record()})
    assert raised.value.retryable
    assert cache.get_many(["key"]) == {}
    other.execute("ROLLBACK")
    other.close()
    cache.put_many({"key": record()})
    assert len(cache) == 1


def test_where_traces_are_kept(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("UME_CACHE_DIR", str(tmp_path))
    assert default_cache_path() == tmp_path / "traces.sqlite3"
    monkeypatch.delenv("UME_CACHE_DIR")
    assert default_cache_path().name == "traces.sqlite3"
    assert "ume-retrieval" in str(default_cache_path())
