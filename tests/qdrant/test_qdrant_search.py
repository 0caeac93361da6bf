"""Search over both stores: ranking, fusion, filters, grouping, diversity, reasons."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from qdrant_client import QdrantClient
from qdrant_world import models
from small_media import BLUE, GREEN, RED, YELLOW, clip, fill, picture

from ume_qdrant import (
    CollectionMeta,
    Filter,
    Point,
    QueryVectors,
    Store,
    asearch,
    delete_sources,
    enrich,
    index,
    list_sources,
    open_async_store,
    open_store,
    search,
    search_vectors,
)
from ume_qdrant.stores.base import VectorName
from ume_qdrant.stores.schema import point_id, within
from ume_retrieval import Clip, InputError, Item, ReasoningEmbedder
from ume_retrieval.errors import CollectionNotFound, StoreMismatch
from ume_retrieval.testing import FakeReasoner, HashEmbedder, fake_embedder

META = CollectionMeta("m", "r", "f", 4)


@pytest.fixture
def indexed(store: Store, tmp_path: Path) -> Store:
    index(models(), store, fill(tmp_path / "things"), reasoning="always")
    return store


def names(hits: Any) -> list[str]:
    return [Path(hit.source).name for hit in hits]


def unit(*values: float) -> Any:
    row = np.array([*values, *[0.0] * (4 - len(values))], dtype=np.float32)
    return row / np.linalg.norm(row)


def put(store: Store, name: str, vectors: dict[VectorName, Any], **payload: Any) -> str:
    key = point_id(name, "00", start_s=payload.get("start_s"), end_s=payload.get("end_s"))
    fields = {"source": name, "within": within(name), "kind": "image", "reasoning": "later", "file_digest": "00"}
    store.upsert([Point(key, vectors, {**fields, **payload})])
    return key


def test_the_right_thing_comes_first_with_its_reason(indexed: Store, tmp_path: Path) -> None:
    for mode in ("fused", "direct", "reasoned"):
        result = search(models(), indexed, "train home", mode=mode, limit=3)
        assert names(result.hits)[0] == "notes.txt", mode
        assert len(result.hits) == 3
        assert [hit.score for hit in result.hits] == sorted((hit.score for hit in result.hits), reverse=True)
    best = result.hits[0]
    assert best.text == best.answer == "the last train home"
    assert best.trace is not None
    assert best.evidence.keywords == ("the", "last", "train", "home")
    assert result.query_trace is not None
    assert result.query_trace.tcot.keywords == ("train", "home")


def test_pictures_and_clips_are_found_by_likeness(indexed: Store, tmp_path: Path) -> None:
    like = picture(tmp_path / "query.png", GREEN)
    assert names(search(models(), indexed, Item(images=(like,)), limit=2).hits)[0] == "green.png"
    film = clip(tmp_path / "query.mp4", 4, BLUE)
    [hit] = search(models(), indexed, Item(videos=(film,)), limit=1, where=Filter(kinds=("video",))).hits
    assert hit.start_s == pytest.approx(4.0, abs=0.6), "the second segment is bluer"


def test_a_hit_is_json_as_agreed(indexed: Store) -> None:
    [hit] = search(models(), indexed, "blue", limit=1, where=Filter(kinds=("video",), time=(17.0, 18.0))).hits
    said = json.loads(json.dumps(hit.to_dict()))
    assert list(said) == ["source", "score", "start_s", "end_s", "page", "answer", "evidence", "meta"]
    assert list(said["evidence"]) == ["keywords", "boxes", "key_frames"]
    [frame] = said["evidence"]["key_frames"]
    assert said["start_s"] <= frame["time_s"] < said["end_s"]
    assert said["page"] is None
    [video] = hit.item.videos
    assert isinstance(video, Clip)
    assert (str(video.path), video.start_s) == (hit.source, hit.start_s)
    [page] = search(models(), indexed, "yellow", limit=1, where=Filter(pages=(2,))).hits
    assert (page.kind, page.to_dict()["page"]) == ("page", 2)
    assert [len(box) for box in page.to_dict()["evidence"]["boxes"]] == [4]


def test_what_the_query_costs(indexed: Store) -> None:
    costs = {
        (mode, reasoning): search(models(), indexed, "red", mode=mode, reasoning=reasoning).usage
        for mode in ("fused", "direct", "reasoned")
        for reasoning in ("always", "never")
    }
    assert {key: (use.reasoner_calls, use.embedder_calls) for key, use in costs.items()} == {
        ("fused", "always"): (1, 2),
        ("fused", "never"): (0, 1),
        ("direct", "always"): (0, 1),
        ("direct", "never"): (0, 1),
        ("reasoned", "always"): (1, 1),
        ("reasoned", "never"): (0, 1),
    }


def test_no_reasoning_where_it_could_change_nothing(store: Store, tmp_path: Path) -> None:
    index(models(), store, fill(tmp_path / "things"))
    result = search(models(), store, "train home")
    assert (names(result.hits)[0], result.usage.reasoner_calls, result.query_trace) == ("notes.txt", 0, None)
    assert search(models(), store, "train home", mode="reasoned").hits == ()


def test_an_embedder_without_a_reasoner_can_search_directly(indexed: Store) -> None:
    plain = fake_embedder(reasoner=None)
    assert names(search(plain, indexed, "train", reasoning="never").hits)[0] == "notes.txt"
    with pytest.raises(InputError):
        search(plain, indexed, "train")


def test_other_models_are_refused(indexed: Store) -> None:
    with pytest.raises(StoreMismatch, match="model 'hash-embedder', not 'other'"):
        search(ReasoningEmbedder(HashEmbedder(name="other"), FakeReasoner()), indexed, "red")
    thinker = fake_embedder(reasoner=FakeReasoner(name="other"))
    with pytest.raises(StoreMismatch, match="reasoner 'fake-reasoner', not 'other'"):
        search(thinker, indexed, "red")
    assert search(thinker, indexed, "red", reasoning="never").hits


def test_nothing_to_search(store: Store, tmp_path: Path) -> None:
    with pytest.raises(CollectionNotFound):
        search(models(), store, "red")
    (tmp_path / "empty").mkdir()
    index(models(), store, tmp_path / "empty")
    assert search(models(), store, "red").hits == ()


def test_a_half_enriched_collection_is_found_whole(store: Store, tmp_path: Path) -> None:
    folder = fill(tmp_path / "things")
    index(models(), store, folder)
    enrich(models(), store, where=Filter(kinds=("image", "video", "page")))
    assert names(search(models(), store, "train home", limit=1).hits) == ["notes.txt"]
    assert len(search(models(), store, "train home", limit=99).hits) == 8
    assert "notes.txt" not in names(search(models(), store, "train home", mode="reasoned", limit=99).hits)


def test_fusion_knows_both_scores_of_every_candidate(store: Store) -> None:
    store.create(META)
    # Each is first in one ranking and last in the other; "both" is second in both and must win.
    left = put(store, "left", {"direct": unit(1.0), "reasoned": unit(0.0, 1.0)})
    right = put(store, "right", {"direct": unit(0.0, 1.0), "reasoned": unit(1.0)})
    both = put(store, "both", {"direct": unit(1.0, 0.5), "reasoned": unit(1.0, 0.5)})
    query = QueryVectors(unit(1.0), unit(1.0))
    hits = search_vectors(store, query, limit=1, candidates=1)
    assert {hit.point_id for hit in hits} < {left, right, both}
    hits = search_vectors(store, query, limit=3, candidates=2)
    assert hits[0].point_id == both
    assert {hit.point_id: round(hit.score, 4) for hit in hits} == {both: 0.8944, left: 0.5, right: 0.5}
    assert search_vectors(store, query, weight=1.0)[0].point_id == right
    assert search_vectors(store, query, weight=0.0)[0].point_id == left
    assert search_vectors(store, QueryVectors(reasoned=unit(0.0, 1.0)))[0].point_id == left


def test_equal_scores_have_one_order(open_collection: Any) -> None:
    orders = []
    for n in (1, -1):
        store = open_collection(f"order{n + 1}")
        store.create(META)
        for name in "abcdef"[::n]:
            put(store, name, {"direct": unit(1.0)})
        orders.append(
            [[hit.source for hit in search_vectors(store, QueryVectors(unit(1.0)), limit=k)] for k in (10, 2)]
        )
    assert orders[0] == orders[1]
    assert orders[0][1] == orders[0][0][:2]


def test_a_plain_ranking_asks_for_little_more_than_the_hits(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    store.create(META)
    for n in range(40):
        put(store, f"{n}.png", {"direct": unit(1.0, n / 100)})
    asked: list[int] = []
    search = type(store).search
    monkeypatch.setattr(
        type(store),
        "search",
        lambda self, *args, limit, **kw: asked.append(limit) or search(self, *args, limit=limit, **kw),
    )
    hits = search_vectors(store, QueryVectors(unit(1.0)), limit=3)
    assert ([hit.source for hit in hits], asked) == (["0.png", "1.png", "2.png"], [4])
    search_vectors(store, QueryVectors(unit(1.0)), limit=3, group_by="source")
    search_vectors(store, QueryVectors(unit(1.0)), limit=3, diversity=0.5)
    assert asked == [4, 100, 100]


@pytest.mark.parametrize("options", [{}, {"candidates": 40}, {"group_by": "source"}, {"diversity": 0.5}])
def test_traces_of_candidates_stay_in_the_store(
    store: Store, monkeypatch: pytest.MonkeyPatch, options: dict[str, Any]
) -> None:
    store.create(META)
    for n in range(40):
        put(store, f"{n}.png", {"direct": unit(1.0, n / 100), "reasoned": unit(1.0, n / 100)})
    read: list[int] = []

    def counting(own: Any) -> Any:
        def counted(*args: Any, fields: Any, **kw: Any) -> Any:
            found = own(*args, fields=fields, **kw)
            read.append(len(found) if "trace" in fields else 0)
            return found

        return counted

    for method in ("search", "retrieve"):
        monkeypatch.setattr(type(store), method, counting(getattr(type(store), method)))
    for query in (QueryVectors(unit(1.0)), QueryVectors(unit(1.0), unit(1.0))):
        read.clear()
        hits = search_vectors(store, query, limit=3, **options)
        assert len(hits) == 3
        assert 3 <= sum(read) <= 4


def test_a_point_that_is_removed_while_it_is_found_is_no_hit(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    store.create(META)
    gone = put(store, "gone", {"direct": unit(1.0)})
    put(store, "kept", {"direct": unit(1.0, 0.1)})
    put(store, "far", {"direct": unit(1.0, 0.9)})
    own = type(store).retrieve

    def late(self: Store, *args: Any, **kw: Any) -> Any:
        self.delete([gone])
        return own(self, *args, **kw)

    monkeypatch.setattr(type(store), "retrieve", late)
    hits = search_vectors(store, QueryVectors(unit(1.0)), group_by="source", limit=1)
    assert [hit.source for hit in hits] == ["kept"]


def test_groups_are_filled_up_from_further_down(store: Store) -> None:
    store.create(META)
    for n in range(150):  # one long video outranks everything else
        put(store, "long.mp4", {"direct": unit(1.0, n / 1000)}, kind="video", start_s=float(n), end_s=n + 2.0)
    for n in range(3):
        put(store, f"{n}.png", {"direct": unit(1.0, 1.0 + n)})
    query = QueryVectors(unit(1.0))
    by_source = search_vectors(store, query, limit=4, group_by="source")
    assert [hit.source for hit in by_source] == ["long.mp4", "0.png", "1.png", "2.png"]
    assert by_source[0].start_s == 0.0
    moments = search_vectors(store, query, limit=3, group_by="moment")
    assert [hit.start_s for hit in moments] == [0.0, 2.0, 4.0]
    assert [hit.start_s for hit in search_vectors(store, query, limit=3)] == [0.0, 1.0, 2.0]


def test_diversity_passes_over_twins(store: Store) -> None:
    store.create(META)
    put(store, "a", {"direct": unit(1.0, 0.1)})
    put(store, "twin", {"direct": unit(1.0, 0.11)})
    put(store, "other", {"direct": unit(1.0, -0.9)})
    query = QueryVectors(unit(1.0))
    assert [hit.source for hit in search_vectors(store, query, limit=2)] == ["a", "twin"]
    assert [hit.source for hit in search_vectors(store, query, limit=2, diversity=0.6)] == ["a", "other"]


def test_filters_restrict_the_search(indexed: Store, tmp_path: Path) -> None:
    inside = Filter(under=(str(tmp_path / "things" / "deep"),))
    assert names(search(models(), indexed, "train", where=inside).hits) == ["blue.png"]
    assert search(models(), indexed, "train", where=Filter(kinds=())).hits == ()


def test_arguments_are_checked(indexed: Store) -> None:
    for wrong in ({"mode": "best"}, {"reasoning": "auto"}, {"limit": 0}, {"weight": 2.0}, {"diversity": -1.0}):
        with pytest.raises(InputError):
            search(models(), indexed, "red", **wrong)  # type: ignore[arg-type]  # the mistakes
    with pytest.raises(InputError, match="group_by"):
        search(models(), indexed, "red", group_by="folder")  # type: ignore[arg-type]  # the mistake
    with pytest.raises(InputError, match="vector"):
        QueryVectors()


def test_yellow_is_no_red(indexed: Store, tmp_path: Path) -> None:
    query = Item(images=(picture(tmp_path / "query.png", YELLOW),))
    [hit] = search(models(), indexed, query, limit=1).hits
    assert (hit.kind, hit.page) == ("page", 2)
    query = Item(images=(picture(tmp_path / "query.png", RED),))
    assert set(names(search(models(), indexed, query, limit=2).hits)) == {"red.png", "report.pdf"}


def test_what_cannot_be_searched_is_said(tmp_path: Path) -> None:
    vectors = QueryVectors(direct=unit(1))
    with pytest.raises(InputError, match="arrays"):
        QueryVectors(direct=[1.0, 0.0])  # type: ignore[arg-type]
    for store, message in ((QdrantClient(":memory:"), "is not a store"), (open_async_store(tmp_path, "x"), "asearch")):
        with pytest.raises(InputError, match=message):
            search(models(), store, "red")  # type: ignore[arg-type]
        with pytest.raises(InputError, match=message):
            search_vectors(store, vectors)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="needs an async store"):
        asyncio.run(asearch(models(), open_store(tmp_path, "x"), "red"))  # type: ignore[arg-type]
    with pytest.raises(InputError, match="Filter"):
        search(models(), open_store(tmp_path, "x"), "red", where={"kind": "image"})  # type: ignore[arg-type]


def test_one_source_is_not_taken_for_several(indexed: Store) -> None:
    [one, *rest] = list_sources(indexed)
    with pytest.raises(InputError, match="several"):
        delete_sources(indexed, one.source)
    assert delete_sources(indexed, [one.source]) == one.points
    assert list_sources(indexed) == rest
