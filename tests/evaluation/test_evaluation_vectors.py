"""Stored vectors: what decides their keys, what is kept, and what is embedded once."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from evaluation_world import QUERIES, fakes

from ume_eval import (
    Options,
    Stored,
    VectorStore,
    choose,
    evaluate,
    read_task,
)
from ume_eval.encoding import SampleSet, StoredEncoder, identity, vector_key
from ume_eval.run import VECTORS_FILE
from ume_retrieval import CacheError, ReasoningEmbedder, Sampling
from ume_retrieval.testing import FakeReasoner, HashEmbedder, fake_embedder


def test_keys_change_with_what_decides_a_vector(mmeb: Path) -> None:
    base = fakes()
    assert identity(base, "query", "direct", "text") == identity(base, "corpus", "direct", None)
    assert identity(base, "query", "reasoned", "text") != identity(base, "query", "reasoned", "video")
    assert identity(base, "query", "reasoned", None) != identity(base, "corpus", "reasoned", None)
    others = [
        ReasoningEmbedder(HashEmbedder(revision="2"), FakeReasoner()),
        fake_embedder(reasoner=FakeReasoner(revision="2")),
        fake_embedder(sampling=Sampling(max_tokens=7)),
    ]
    keys = {identity(one, "query", "reasoned", "text") for one in (base, *others)}
    assert len(keys) == 4
    assert identity(base, "query", "direct", None) == identity(others[1], "query", "direct", None)
    assert vector_key(b"a", "00") != vector_key(b"a", "01")


def test_a_store_of_another_program_is_left_alone(tmp_path: Path) -> None:
    import sqlite3
    from contextlib import closing

    path = tmp_path / "other.sqlite3"
    with closing(sqlite3.connect(path)) as database:
        database.execute("CREATE TABLE theirs (x)")
    with pytest.raises(CacheError, match="another program"):
        VectorStore(path)
    (tmp_path / "noise").write_bytes(b"no database" * 100)
    with pytest.raises(CacheError):
        VectorStore(tmp_path / "noise")
    with pytest.raises(CacheError):
        VectorStore(tmp_path / "noise" / "below" / "vectors.sqlite3")


def test_a_stored_vector_is_never_replaced(tmp_path: Path) -> None:
    store = VectorStore(tmp_path / "vectors.sqlite3")
    assert store.put_many({"a": Stored(np.ones(3, np.float32), 5, 1, 2, "t")}) == 1
    assert store.put_many({"a": Stored(np.zeros(3, np.float32)), "b": Stored(np.zeros(3, np.float32))}) == 1
    kept = store.get_many(["a", "c"])["a"]
    assert (kept.vector.tolist(), kept.tokens, kept.evidence, kept.keywords, kept.trace) == ([1.0] * 3, 5, 1, 2, "t")
    assert store.known(str(n) for n in range(5000)) == set()


def test_what_is_missing_is_counted_once(mmeb: Path, tmp_path: Path) -> None:
    [task] = choose("mmeb-v2", ["CIRR"])
    read = read_task(task, mmeb)
    encoder = StoredEncoder(fakes(), VectorStore(tmp_path / "vectors.sqlite3"))
    samples = SampleSet.of("corpus", None, [("one", read.candidates[0].sample), ("same", read.candidates[0].sample)])
    wanted = encoder.missing(samples, "direct")
    assert list(wanted.values()) == [0]
    assert encoder.embed(samples, "direct", wanted, lambda _: None) == []
    rows = encoder.gather(samples, "direct").rows
    assert rows[0].tolist() == rows[1].tolist()
    assert encoder.missing(samples, "direct") == {}


def test_equal_samples_are_embedded_once(mmeb: Path, tmp_path: Path) -> None:
    """The 700 classes of K700 are the candidates of every query, and yes and no those of every question."""
    embedder = fakes(tmp_path)
    tasks = choose("mmeb-v2", ["ActivityNetQA", "SmthSmthV2"])
    evaluate(embedder, tasks, mmeb, tmp_path, options=Options("never"))
    assert len(embedder.embedder.chats) == len(VectorStore(tmp_path / VECTORS_FILE)) == QUERIES + 2 + QUERIES + 5
