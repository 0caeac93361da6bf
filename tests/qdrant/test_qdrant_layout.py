"""Compact forms of vectors: truncated, quantized, rescored; on the real engine, and as a server is asked for them."""

from __future__ import annotations

import uuid
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from qdrant_client import QdrantClient
from qdrant_stub import OK, Stub, info

import ume_qdrant
from ume_qdrant import (
    ClientStore,
    CollectionMeta,
    EdgeStore,
    Filter,
    Layout,
    Point,
    Retry,
    SearchEffort,
    Store,
    open_store,
)
from ume_retrieval import InputError
from ume_retrieval.errors import StoreMismatch, StoreUnsupported

DIMENSION = 64
META = CollectionMeta("model", "rev", "embed-rl", DIMENSION)
COUNT = 400


def uid(n: int) -> str:
    return str(uuid.UUID(int=n))


def rows() -> Any:
    """Vectors whose first half says most, as Matryoshka training makes them."""
    random = np.random.default_rng(5)
    centres = random.normal(size=(20, DIMENSION))
    made = centres[random.integers(0, 20, COUNT)] + 0.7 * random.normal(size=(COUNT, DIMENSION))
    made[:, DIMENSION // 2 :] *= 0.3
    return (made / np.linalg.norm(made, axis=1, keepdims=True)).astype(np.float32)


ROWS = rows()
QUERY = ROWS[7]
COSINES = ROWS @ QUERY


def fill(store: Store, layout: Layout | None) -> Store:
    store.create(META, layout)
    store.upsert([Point(uid(i), {"direct": row}, {"source": f"s{i}", "kind": "image"}) for i, row in enumerate(ROWS)])
    return store


LAYOUTS = [
    Layout(),
    Layout(on_disk=True),
    Layout(matryoshka_dim=32),
    Layout(quantization="scalar"),
    Layout(quantization="binary"),
    Layout(quantization="product"),
    Layout(matryoshka_dim=32, quantization="scalar", on_disk=True),
]


@pytest.mark.parametrize("layout", LAYOUTS, ids=str)
def test_scores_are_cosines_of_full_vectors_in_every_layout(tmp_path: Path, layout: Layout) -> None:
    with EdgeStore(tmp_path, "things") as store:
        fill(store, layout)
        store.optimize()
        assert store.layout() == layout
        for effort in (SearchEffort(), SearchEffort(exact=True), SearchEffort(ef=200)):
            hits = store.search("direct", QUERY, limit=10, effort=effort)
            for hit in hits:
                assert hit.score == pytest.approx(float(COSINES[uuid.UUID(hit.id).int]), abs=1e-5)
            assert hits[0].id == uid(7)
        exact = store.search("direct", QUERY, limit=10, effort=SearchEffort(exact=True))
        assert [hit.id for hit in exact] == [uid(i) for i in np.argsort(-COSINES)[:10]]


def test_binary_codes_are_really_looked_through_and_rescoring_mends_them(tmp_path: Path) -> None:
    """With one candidate a hit, codes of one bit must miss some; with many, all are found again."""
    best = {uid(i) for i in np.argsort(-COSINES)[:10]}
    with EdgeStore(tmp_path, "things") as store:
        fill(store, Layout(quantization="binary"))

        def found(oversampling: float) -> int:
            hits = store.search("direct", QUERY, limit=10, effort=SearchEffort(oversampling=oversampling))
            return len(best & {hit.id for hit in hits})

        assert found(1.0) < 10
        assert found(40.0) == 10


@pytest.mark.parametrize("kind", ["edge", "client"])
def test_truncated_vectors_choose_and_full_ones_score(tmp_path: Path, kind: str) -> None:
    client = QdrantClient(":memory:")
    store: Store = EdgeStore(tmp_path, "things") if kind == "edge" else ClientStore(client, "things")
    with store:
        store.create(META, Layout(matryoshka_dim=1))
        ahead, behind = np.zeros((2, DIMENSION), dtype=np.float32)
        ahead[:2], behind[:2] = (0.1, 0.995), (-0.1, 0.995)
        store.upsert([Point(uid(1), {"direct": ahead}, {}), Point(uid(2), {"direct": behind}, {})])
        query = np.zeros(DIMENSION, dtype=np.float32)
        query[:2] = (0.1, -0.995)
        # By the first value alone uid(1) is nearer; by all of them it is further away.
        [only] = store.search("direct", query, limit=1, effort=SearchEffort(oversampling=1.0))
        assert only.id == uid(1)
        assert only.score == pytest.approx(0.01 - 0.995**2, abs=1e-3)
        inside = Filter(ids=(uid(2),))
        assert [hit.id for hit in store.search("direct", query, limit=5, where=inside)] == [uid(2)]
        assert len(store.search("direct", query, limit=1, effort=SearchEffort(exact=True))) == 1
        store.update([Point(uid(1), {"reasoned": ahead}, {})])
        assert [hit.id for hit in store.search("reasoned", query, limit=5)] == [uid(1)]
        [read] = store.retrieve([uid(1)], vectors=("direct", "reasoned"))
        assert set(read.vectors) == {"direct", "reasoned"}, "truncated vectors are the store's own matter"
    client.close()


def test_a_layout_is_kept_and_another_one_is_refused(open_collection: Any) -> None:
    store = open_collection("things")
    store.create(META, Layout(matryoshka_dim=16))
    assert store.layout() == Layout(matryoshka_dim=16)
    store.create(META)
    store.create(META, Layout(matryoshka_dim=16))
    with pytest.raises(StoreMismatch, match=r"truncated vectors of 16, not truncated vectors of 8") as caught:
        store.create(META, Layout(matryoshka_dim=8))
    assert "alias" in caught.value.hint
    store.set_metadata(CollectionMeta("model", "rev", "embed-rl", DIMENSION, "thinker", "r", "p"))
    assert store.layout() == Layout(matryoshka_dim=16)
    assert store.meta().reasoner == "thinker"


def test_a_wrong_length_is_one_clear_error(open_collection: Any) -> None:
    store = open_collection("things")
    store.create(META)
    wrong = np.ones(3, dtype=np.float32)
    for call in (
        lambda: store.upsert([Point(uid(1), {"direct": wrong}, {})]),
        lambda: store.update([Point(uid(1), {"reasoned": wrong}, {})]),
        lambda: store.search("direct", wrong, limit=1),
    ):
        with pytest.raises(StoreMismatch, match=r"'things' holds vectors of 64 values, not of shape \(3,\)"):
            call()
    assert store.count() == 0


def test_the_simulation_says_that_it_has_no_quantization() -> None:
    client = QdrantClient(":memory:")
    store = ClientStore(client, "things")
    with pytest.raises(StoreUnsupported, match="does not support quantization") as caught:
        store.create(META, Layout(quantization="binary"))
    assert "server" in caught.value.hint
    assert not store.exists()
    client.close()


@pytest.mark.parametrize("short", [0, 64, 65])
def test_a_truncated_vector_is_shorter(tmp_path: Path, short: int) -> None:
    with pytest.raises(InputError, match="truncated"):
        EdgeStore(tmp_path, "things").create(META, Layout(matryoshka_dim=short))


def test_values_are_checked() -> None:
    for wrong in ({"quantization": "ternary"}, {"on_disk": "tape"}):
        with pytest.raises(InputError, match="unknown"):
            Layout(**wrong)  # type: ignore[arg-type]  # the mistakes
    with pytest.warns(DeprecationWarning, match="on_disk"), pytest.raises(InputError, match="unknown place"):
        Layout(full="tape")
    for low in ({"oversampling": 0.5}, {"ef": 0}):
        with pytest.raises(InputError, match="at least 1"):
            SearchEffort(**low)
    with pytest.raises(StoreMismatch, match="does not know"):
        Layout.from_dict({"ume_layout": {"short": 4, "from the future": 1}}, "films")


def test_former_names_work_for_one_release(tmp_path: Path) -> None:
    with pytest.warns(DeprecationWarning, match="matryoshka_dim"):
        assert Layout(short=2, full="disk") == Layout(matryoshka_dim=2, on_disk=True)
    with pytest.warns(DeprecationWarning, match="SearchEffort"):
        assert ume_qdrant.Effort is SearchEffort
    with EdgeStore(tmp_path, "films") as store:
        store.create(META)
        with pytest.warns(DeprecationWarning, match="set_alias"):
            assert store.point_alias("live") is None
        with pytest.warns(DeprecationWarning, match="set_metadata"):
            store.pin(META)
        assert store.aliases() == {"live": "films"}


@given(limit=st.integers(1, 500), oversampling=st.floats(1, 50))
def test_the_first_stage_never_hands_on_too_few(limit: int, oversampling: float) -> None:
    assert limit * oversampling <= SearchEffort(oversampling=oversampling).candidates(limit) < limit * oversampling + 1


FOUND = (200, {"result": {"points": []}, **OK}, {})
FILMS = CollectionMeta("model", "rev", "embed-rl", 4)


def connect(stub: Stub) -> Store:
    return open_store(stub.url, "films", retry=Retry(attempts=1))


def test_what_a_server_is_asked_to_make(stub: Stub) -> None:
    layout = Layout(matryoshka_dim=2, quantization="product", on_disk=True)
    made = (200, {"result": True, **OK}, {})
    written = (200, {"result": {"operation_id": 1, "status": "completed"}, **OK}, {})
    stub.described = info({**FILMS.to_dict(), **layout.to_dict()})
    stub.script = [(200, {"result": {"exists": False}, **OK}, {}), made, written]
    with connect(stub) as store:
        store.create(FILMS, layout)
        assert store.layout() == layout
    [created] = [body for method, path, body, _ in stub.seen if (method, path) == ("PUT", "/collections/films")]
    full, short = created["vectors"]["reasoned"], created["vectors"]["reasoned_short"]
    assert (full["size"], full["on_disk"], full["hnsw_config"]) == (4, True, {"m": 0})
    assert (short["size"], short["quantization_config"]) == (2, {"product": {"compression": "x16", "always_ram": True}})
    assert created["metadata"]["ume_layout"] == {"short": 2, "quantization": "product", "full": "disk"}


@pytest.mark.parametrize("quantization", ["scalar", "binary", "product"])
def test_what_a_server_is_asked_to_find(stub: Stub, quantization: Any) -> None:
    stub.described, stub.script = info({**FILMS.to_dict(), **Layout(quantization=quantization).to_dict()}), [FOUND]
    query = np.array([1, 0, 0, 0], dtype=np.float32)
    with connect(stub) as store:
        store.search("direct", query, limit=3, effort=SearchEffort(oversampling=2.0, ef=99))
        store.search("direct", query, limit=3, effort=SearchEffort(exact=True))
    usual, exact = [body["params"] for _, path, body, _ in stub.seen if path.endswith("/query")]
    assert usual == {"hnsw_ef": 99, "quantization": {"rescore": True, "oversampling": 2.0}}
    assert (exact["exact"], exact["quantization"]["ignore"]) == (True, True)


def test_a_server_prefetches_by_truncated_vectors(stub: Stub) -> None:
    stub.described, stub.script = info({**FILMS.to_dict(), **Layout(matryoshka_dim=2).to_dict()}), [FOUND]
    with connect(stub) as store:
        store.search(
            "reasoned", np.array([1, 2, 3, 4], dtype=np.float32), limit=5, where=Filter(kinds=("page",), pages=(2,))
        )
    body = stub.seen[-1][2]
    first = body["prefetch"]
    assert (first["query"], first["using"], first["limit"]) == ([1.0, 2.0], "reasoned_short", 20)
    assert {one["key"] for one in first["filter"]["must"]} == {"kind", "page"}
    assert (body["query"], body["using"], body["limit"]) == ({"nearest": [1.0, 2.0, 3.0, 4.0]}, "reasoned", 5)
    assert body["params"]["exact"] is True


def test_a_search_sees_that_an_alias_was_pointed_elsewhere(stub: Stub) -> None:
    """The first description has truncated vectors; the collection that the name means by now has none."""
    stub.described, stub.script = info({**FILMS.to_dict(), **Layout(matryoshka_dim=2).to_dict()}), [FOUND]
    query = np.ones(4, dtype=np.float32)
    with connect(stub) as store:
        store.search("direct", query, limit=1)
        stub.described = info(FILMS.to_dict())
        refused = (400, {"status": {"error": "Wrong input: Not existing vector name error: direct_short"}}, {})
        stub.script = [refused, FOUND]
        assert store.search("direct", query, limit=1) == []
    assert "prefetch" not in stub.seen[-1][2]


def test_a_server_that_refuses_a_length_is_understood(stub: Stub) -> None:
    stub.described = info(FILMS.to_dict())
    stub.script = [(400, {"status": {"error": "Wrong input: Vector dimension error: expected dim: 8, got 4"}}, {})]
    with connect(stub) as store, pytest.raises(StoreMismatch, match="expected dim: 8, got 4"):
        store.search("direct", np.ones(4, dtype=np.float32), limit=1)
