"""A folder of small real files, and models that need no weights."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np

from ume_qdrant import Store, export
from ume_retrieval import ReasoningEmbedder, TraceCache
from ume_retrieval.testing import FakeReasoner, fake_embedder


def models(cache: Path | None = None, **kwargs: Any) -> ReasoningEmbedder:
    return fake_embedder(reasoner=FakeReasoner(**kwargs), cache=TraceCache(cache) if cache else None)


def dump(store: Store) -> dict[str, dict[str, Any]]:
    return {record["id"]: record for record in export(store, vectors=True)}


def same(one: dict[str, dict[str, Any]], other: dict[str, dict[str, Any]]) -> None:
    """The same points: equal ids and payloads, vectors equal up to float32 rounding."""
    assert one.keys() == other.keys()
    for key, record in one.items():
        ours, theirs = record["vectors"], other[key]["vectors"]
        assert {**record, "vectors": 0} == {**other[key], "vectors": 0}
        assert ours.keys() == theirs.keys()
        for name in ours:
            np.testing.assert_allclose(ours[name], theirs[name], atol=1e-5)


def age(*paths: Path, seconds: int = 100) -> None:
    """Move the files' times into the past."""
    for path in paths:
        status = path.stat()
        os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns - seconds * 10**9))
