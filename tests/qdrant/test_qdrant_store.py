"""One contract for both stores."""

from __future__ import annotations

import uuid
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from qdrant_client import QdrantClient

from ume_qdrant import ClientStore, CollectionMeta, Filter, Point, Store
from ume_qdrant.stores.schema import within
from ume_retrieval import InputError, StoreError
from ume_retrieval.errors import CollectionNotFound, StoreMismatch

META = CollectionMeta("model", "rev", "embed-rl", 4)


def vector(*values: float) -> Any:
    row = np.array([*values, *[0.0] * (4 - len(values))], dtype=np.float32)
    return row / np.linalg.norm(row)


def uid(n: int) -> str:
    return str(uuid.UUID(int=n))


def points(n: int, **payload: Any) -> list[Point]:
    return [Point(uid(i), {"direct": vector(1.0, i)}, {"source": f"s{i}", **payload}) for i in range(n)]


@pytest.fixture
def made(store: Store) -> Store:
    store.create(META)
    return store


def test_missing_collection_is_said_by_every_call(store: Store) -> None:
    calls = [
        store.meta,
        store.count,
        store.optimize,
        lambda: list(store.scroll()),
        lambda: store.upsert(points(1)),
        lambda: store.update(points(1)),
        lambda: store.delete([uid(1)]),
        lambda: store.retrieve([uid(1)]),
        lambda: store.search("direct", vector(1.0), limit=1),
        lambda: store.set_metadata(META),
    ]
    assert not store.exists()
    for call in calls:
        if call == store.optimize and type(store).__name__ == "ClientStore":
            continue  # the server optimises by itself: nothing is asked of it
        with pytest.raises(CollectionNotFound, match="'things'") as caught:
            call()
        assert caught.value.hint


def test_metadata_are_kept_and_pinned(made: Store) -> None:
    assert made.meta() == META
    made.create(CollectionMeta("other", "x", "y", 4))
    assert made.meta() == META, "create keeps what is there"
    pinned = CollectionMeta("model", "rev", "embed-rl", 4, "thinker", "r1", "p1")
    made.set_metadata(pinned)
    assert made.meta() == pinned


def test_a_collection_of_someone_else_is_left_alone() -> None:
    client = QdrantClient(":memory:")
    client.create_collection("things", vectors_config={})
    foreign = ClientStore(client, "things")
    for call in (foreign.meta, lambda: foreign.create(META)):
        with pytest.raises(StoreMismatch, match="does not say"):
            call()
    client.close()


def test_points_are_written_and_read_back(made: Store) -> None:
    payload = {"source": "ä/\\xff.jpg", "start_s": 1.5, "page": 3, "trace": {"boxes": [[1, 2, 3, 4]], "ok": True}}
    made.upsert([Point(uid(1), {"direct": vector(3.0, 4.0), "reasoned": vector(0.0, 1.0)}, payload)])
    [read] = made.retrieve([uid(9), uid(1)], vectors=("direct", "reasoned"))
    assert (read.id, read.payload) == (uid(1), payload)
    np.testing.assert_allclose(read.vectors["direct"], [0.6, 0.8, 0, 0], atol=1e-6)
    np.testing.assert_allclose(read.vectors["reasoned"], [0, 1, 0, 0], atol=1e-6)
    assert read.vectors["direct"].dtype == np.float32
    assert made.retrieve([uid(1)])[0].vectors == {}


def test_retrieve_keeps_the_order_asked_for(made: Store) -> None:
    made.upsert(points(5))
    assert [p.id for p in made.retrieve([uid(4), uid(0), uid(2)])] == [uid(4), uid(0), uid(2)]


def test_upsert_replaces_a_point_whole(made: Store) -> None:
    made.upsert([Point(uid(1), {"direct": vector(1.0), "reasoned": vector(1.0)}, {"source": "a", "page": 1})])
    made.upsert([Point(uid(1), {"direct": vector(0.0, 1.0)}, {"source": "b"})])
    [read] = made.retrieve([uid(1)], vectors=("direct", "reasoned"))
    assert (read.payload, set(read.vectors)) == ({"source": "b"}, {"direct"})
    assert made.count() == 1


def test_update_keeps_the_rest(made: Store) -> None:
    made.upsert(points(3, reasoning="later", trace={"answer": "old", "raw": "x"}))
    made.update(
        [
            Point(uid(1), {"reasoned": vector(0.0, 1.0)}, {"reasoning": "done", "trace": {"answer": "new"}}),
            Point(uid(2), {}, {"reasoning": "failed"}),
        ]
    )
    one, two = made.retrieve([uid(1), uid(2)], vectors=("direct", "reasoned"))
    assert one.payload == {"source": "s1", "reasoning": "done", "trace": {"answer": "new"}}
    assert set(one.vectors) == {"direct", "reasoned"}
    assert two.payload["reasoning"] == "failed"
    assert set(two.vectors) == {"direct"}


def test_search_ranks_by_cosine_and_skips_points_without_the_vector(made: Store) -> None:
    made.upsert(points(3))
    made.update([Point(uid(2), {"reasoned": vector(1.0)}, {})])
    found = made.search("direct", 7 * vector(1.0), limit=2)
    assert [hit.id for hit in found] == [uid(0), uid(1)]
    assert found[0].score == pytest.approx(1.0, abs=1e-6)
    assert found[1].score == pytest.approx(2**-0.5, abs=1e-6)
    assert found[0].payload == {"source": "s0"}
    assert [hit.id for hit in made.search("reasoned", vector(1.0), limit=9)] == [uid(2)]


def test_search_and_retrieve_give_the_fields_that_are_asked_for(made: Store) -> None:
    made.upsert([Point(uid(1), {"direct": vector(1.0)}, {"source": "s", "kind": "image", "trace": {"answer": "a"}})])
    for fields, payload in [
        ((), {}),
        (("kind", "page"), {"kind": "image"}),
        (("trace",), {"trace": {"answer": "a"}}),
        (None, {"source": "s", "kind": "image", "trace": {"answer": "a"}}),
    ]:
        assert made.search("direct", vector(1.0), limit=1, fields=fields)[0].payload == payload
        assert made.retrieve([uid(1)], fields=fields)[0].payload == payload


def test_an_update_passes_over_points_that_are_gone(made: Store) -> None:
    made.upsert(points(3))
    made.delete([uid(1)])
    made.update([Point(uid(i), {"reasoned": vector(1.0)}, {"reasoning": "done"}) for i in range(4)])
    held = list(made.scroll(vectors=("reasoned",)))
    assert [point.id for point in held] == [uid(0), uid(2)]
    assert all(set(point.vectors) == {"reasoned"} and point.payload["reasoning"] == "done" for point in held)
    made.update([Point(uid(9), {"reasoned": vector(1.0)}, {})])
    assert made.count() == 2


def test_delete_and_delete_again(made: Store) -> None:
    made.upsert(points(3))
    made.delete([uid(0), uid(2)])
    made.delete([uid(0), uid(2)])
    made.delete([])
    assert [p.id for p in made.scroll()] == [uid(1)]


def test_scroll_reads_everything_once_and_only_what_is_asked(made: Store) -> None:
    made.upsert([Point(uid(i), {"direct": vector(1.0)}, {"source": str(i), "kind": "image"}) for i in range(2100)])
    read = list(made.scroll(fields=("source",)))
    assert [p.id for p in read] == [uid(i) for i in range(2100)]
    assert read[7].payload == {"source": "7"}
    assert read[7].vectors == {}
    assert set(next(made.scroll(vectors=("direct",))).vectors) == {"direct"}


def test_writing_twice_changes_nothing(made: Store) -> None:
    made.upsert(points(3))
    before = [(p.id, p.payload) for p in made.scroll()]
    made.upsert(points(3))
    assert [(p.id, p.payload) for p in made.scroll()] == before


def test_a_vector_of_another_length_is_refused(made: Store) -> None:
    with pytest.raises(StoreError):
        made.upsert([Point(uid(1), {"direct": np.ones(3, dtype=np.float32)}, {})])
    assert made.count() == 0


def test_collections_do_not_mix(open_collection: Any) -> None:
    first, second = open_collection("a"), open_collection("b")
    first.create(META)
    second.create(META)
    first.upsert(points(2))
    assert (first.count(), second.count()) == (2, 0)


SOURCES = ["a/b.jpg", "a/bc/d.mp4", "a/bc.pdf", "e.txt", "/abs/f.jpg"]
KINDS = ["image", "video", "page", "text"]


def rows() -> list[dict[str, Any]]:
    random = np.random.default_rng(3)
    made = []
    for _ in range(40):
        source, kind = str(random.choice(SOURCES)), str(random.choice(KINDS))
        row: dict[str, Any] = {"source": source, "doc_id": source[-5:], "within": within(source), "kind": kind}
        row["reasoning"] = str(random.choice(["done", "later", "never", "failed"]))
        if kind == "video":
            start = float(random.integers(0, 6))
            row |= {"start_s": start, "end_s": start + 2.0}
        if kind == "page":
            row["page"] = int(random.integers(1, 4))
        made.append(row)
    return made


ROWS = rows()


def expected(where: Filter) -> list[str]:
    """The filter's meaning, spelled out."""

    def holds(i: int, row: dict[str, Any]) -> bool:
        return (
            (where.kinds is None or row["kind"] in where.kinds)
            and (where.sources is None or row["source"] in where.sources)
            and (where.doc_ids is None or row["doc_id"] in where.doc_ids)
            and (where.under is None or any((row["source"] + "/").startswith(u.rstrip("/") + "/") for u in where.under))
            and (where.pages is None or row.get("page") in where.pages)
            and (where.reasoning is None or row["reasoning"] in where.reasoning)
            and (where.ids is None or uid(i) in where.ids)
            and (
                where.time is None
                or ("start_s" in row and row["start_s"] < where.time[1] and row["end_s"] > where.time[0])
            )
        )

    return [uid(i) for i, row in enumerate(ROWS) if holds(i, row)]


def some(values: Any) -> Any:
    return st.none() | st.lists(values, max_size=3).map(tuple)


FILTERS = st.builds(
    Filter,
    kinds=some(st.sampled_from(KINDS)),
    sources=some(st.sampled_from([*SOURCES, "nowhere"])),
    doc_ids=some(st.sampled_from([*(source[-5:] for source in SOURCES), "nowhere"])),
    under=some(st.sampled_from(["a", "a/", "a/bc", "/", "/abs", "e.txt", "b"])),
    pages=some(st.integers(0, 4)),
    time=st.none() | st.tuples(st.integers(0, 4), st.integers(5, 9)).map(lambda t: (float(t[0]), float(t[1]))),
    reasoning=some(st.sampled_from(["done", "later", "never", "failed"])),
    ids=st.none() | st.lists(st.integers(0, 50).map(uid), max_size=30).map(tuple),
)


# The collection is only read, so examples may share it.
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=150)
@given(where=FILTERS)
def test_filters_mean_the_same_everywhere(made: Store, where: Filter) -> None:
    if made.count() == 0:
        made.upsert([Point(uid(i), {"direct": vector(1.0, i)}, row) for i, row in enumerate(ROWS)])
    wanted = expected(where)
    assert [p.id for p in made.scroll(where)] == wanted
    assert made.count(where) == len(wanted)
    assert sorted(hit.id for hit in made.search("direct", vector(1.0), limit=99, where=where)) == wanted


def test_a_filter_that_is_a_mistake_is_refused() -> None:
    with pytest.raises(InputError, match="tuple"):
        Filter(sources="a.jpg")  # type: ignore[arg-type]  # the mistake
    with pytest.raises(InputError, match="must end after"):
        Filter(time=(5.0, 5.0))


def test_mismatch_names_both_sides_and_what_to_do() -> None:
    held = CollectionMeta("model", "rev", "embed-rl", 4, "thinker", "r1", "p1")
    with pytest.raises(StoreMismatch) as caught:
        held.check(CollectionMeta("other", "rev", "embed-rl", 8, "thinker", "r2", "p1"), "films")
    for said in ("films", "'model'", "'other'", "4", "8", "'r1'", "'r2'"):
        assert said in caught.value.message
    assert "prompt_version" not in caught.value.message
    assert "another name" in caught.value.hint
    held.check(CollectionMeta("model", "rev", "embed-rl", 4), "films")
    with pytest.raises(StoreMismatch, match="does not say"):
        CollectionMeta.from_dict({"someone": "else"}, "films")
    with pytest.raises(StoreMismatch, match="does not say"):
        CollectionMeta.from_dict({"ume": {"model": "a", "from the future": 1}}, "films")
