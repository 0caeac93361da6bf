"""Indexing addresses of object stores without Ray: fetched only if asked, each object once."""

from __future__ import annotations

import collections
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fsspec
import pytest
from fsspec.implementations.memory import MemoryFileSystem
from qdrant_world import models
from small_media import RED, fill, picture

from ume_qdrant import Filter, Store, enrich, index, search
from ume_qdrant.indexing import objects
from ume_retrieval import InputError, Limits, ReasoningEmbedder


@pytest.fixture
def lake(tmp_path: Path) -> Iterator[MemoryFileSystem]:
    filesystem = fsspec.filesystem("memory")
    filesystem.put(str(fill(tmp_path / "lake")), "/lake", recursive=True)
    yield filesystem
    filesystem.rm("/lake", recursive=True)


@pytest.fixture
def fetched(monkeypatch: pytest.MonkeyPatch) -> collections.Counter[str]:
    counted: collections.Counter[str] = collections.Counter()
    fetch = objects._fetch

    def counting(one: Any, *rest: Any) -> None:
        counted[one.source] += 1
        fetch(one, *rest)

    monkeypatch.setattr(objects, "_fetch", counting)
    return counted


def test_addresses_are_refused_unless_asked_for(store: Store, lake: MemoryFileSystem) -> None:
    report = index(models(), store, "memory://lake")
    assert [failure.error for failure in report.failed] == ["remote_not_allowed"]
    with pytest.raises(InputError, match="key"):
        index(models(), store, "s3://key:secret@bucket/photos", remote=True)
    with pytest.raises(InputError, match="not a store"):
        index(models(), store, "https://example.org/photos", remote=True)


def test_objects_are_fetched_once_and_named_by_their_address(
    store: Store, lake: MemoryFileSystem, fetched: collections.Counter[str]
) -> None:
    report = index(
        models(), store, "memory://lake", remote=True, reasoning="always", metadata=lambda path: {"address": path}
    )
    assert (report.failed, report.indexed, report.points) == ((), 6, 8)
    assert set(fetched.values()) == {1}
    assert store.count(Filter(reasoning=("done",))) == 8
    hit = search(models(), store, "last train home", where=Filter(kinds=("text",))).hits[0]
    assert hit.source.startswith("memory://")
    assert hit.meta == {"address": hit.source}
    assert not any("/tmp" in str(point.payload) for point in store.scroll())
    again = index(models(), store, "memory://lake", remote=True)
    assert (again.unchanged, again.points, again.model_calls) == (6, 0, 0)
    lake.rm("/lake/red.png")
    assert index(models(), store, "memory://lake", remote=True).removed == 1


def test_objects_are_reasoned_over_later_if_asked(
    store: Store, lake: MemoryFileSystem, fetched: collections.Counter[str]
) -> None:
    index(models(), store, "memory://lake", remote=True)
    refused = enrich(models(), store)
    assert {failure.error for failure in refused.failed} == {"remote_not_allowed"}
    assert (refused.enriched, refused.remaining) == (0, 8)
    fetched.clear()
    report = enrich(models(), store, remote=True)
    assert (report.enriched, report.remaining, report.failed) == (8, 0, ())
    assert set(fetched.values()) == {1}


def test_broken_and_large_objects_are_named(store: Store, lake: MemoryFileSystem, tmp_path: Path) -> None:
    lake.pipe("/lake/broken.png", picture(tmp_path / "x.png", RED).read_bytes()[:100])
    plain = models()
    small = ReasoningEmbedder(plain.embedder, plain.reasoner, limits=Limits(max_bytes=2_000))
    report = index(small, store, ["memory://lake", tmp_path / "x.png"], remote=True)
    said = {failure.source.rpartition("/")[2]: failure.message for failure in report.failed}
    assert said.keys() == {"broken.png", "report.pdf"}
    assert not any("/tmp/ume-" in message for message in said.values())
    assert report.indexed == 6
