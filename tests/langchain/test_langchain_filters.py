"""LangChain's filters select the right points of a real collection."""

from __future__ import annotations

import datetime as dt
import uuid
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from qdrant_client import models

from ume_langchain import filter_of
from ume_qdrant import AnyOf, CollectionMeta, EdgeStore, Filter, Layout, Point
from ume_qdrant.stores.metadata import clean_metadata
from ume_retrieval.errors import InputError, TenantRequired

BOOKS: dict[str, dict[str, Any]] = {
    "emma": {"owner": "ann", "year": 1815, "tags": ["novel", "love"], "lent": dt.date(2024, 5, 1)},
    "dune": {"owner": "bob", "year": 1965, "tags": ["novel", "sand"], "lent": dt.date(2024, 6, 1)},
    "cook": {"owner": "ann", "year": 2001, "tags": [], "signed": True},
    "blank": {"camera": {"maker": "x"}},
}


def store_of(folder: Any, layout: Layout | None = None) -> EdgeStore:
    store = EdgeStore(folder, "books")
    store.create(CollectionMeta("model", "1", "family", 2), layout)
    return store


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EdgeStore]:
    with store_of(tmp_path_factory.mktemp("books")) as made:
        made.upsert([point(name, meta) for name, meta in BOOKS.items()])
        yield made


def point(name: str, meta: dict[str, Any]) -> Point:
    vector = np.array([1, 0], dtype=np.float32)
    key = str(uuid.uuid5(uuid.NAMESPACE_DNS, name))
    return Point(key, {"direct": vector}, {"source": name, "meta": clean_metadata(meta)})


def found(store: EdgeStore, where: Filter | None) -> set[str]:
    return {one.payload["source"] for one in store.scroll(where)}


@pytest.mark.parametrize(
    ("given", "names"),
    [
        (None, {"emma", "dune", "cook", "blank"}),
        ({}, {"emma", "dune", "cook", "blank"}),
        ({"owner": "ann"}, {"emma", "cook"}),
        ({"owner": {"$eq": "ann"}, "year": {"$gt": 1900}}, {"cook"}),
        ({"owner": {"$ne": "ann"}}, {"dune", "blank"}),
        ({"year": {"$gte": 1815, "$lt": 1965}}, {"emma"}),
        ({"year": {"$lte": 1965}}, {"emma", "dune"}),
        ({"owner": {"$in": ["bob", "eve"]}}, {"dune"}),
        ({"owner": {"$nin": ["bob", "eve"]}}, {"emma", "cook", "blank"}),
        ({"owner": {"$in": []}}, set()),
        ({"tags": "novel"}, {"emma", "dune"}),
        ({"tags": {"$exists": True}}, {"emma", "dune"}),
        ({"owner": {"$exists": False}}, {"blank"}),
        ({"owner": None}, {"blank"}),
        ({"signed": True}, {"cook"}),
        ({"camera.maker": "x"}, {"blank"}),
        ({"lent": {"$gte": "2024-05-02"}}, {"dune"}),
        ({"lent": {"$lte": dt.date(2024, 5, 1)}}, {"emma"}),
        ({"$or": [{"owner": "bob"}, {"year": 2001}]}, {"dune", "cook"}),
        ({"$and": [{"owner": "ann"}, {"year": {"$lt": 1900}}]}, {"emma"}),
        ({"$not": {"owner": "ann"}}, {"dune", "blank"}),
        ({"year": {"$not": {"$gt": 1900}}}, {"emma", "blank"}),
        ({"$and": [{"$or": [{"tags": "sand"}, {"tags": "love"}]}, {"$not": {"owner": "bob"}}]}, {"emma"}),
        (Filter(meta=AnyOf("owner", ("bob",))), {"dune"}),
        ({"must": [{"key": "meta.owner", "match": {"except": ["ann"]}}]}, {"dune"}),
        (
            models.Filter(must_not=[models.FieldCondition(key="meta.year", range=models.Range(gt=1900))]),
            {"emma", "blank"},
        ),
        (
            models.Filter(
                must=[models.FieldCondition(key="meta.owner", match=models.MatchExcept(**{"except": ["ann"]}))]
            ),
            {"dune"},
        ),
    ],
)
def test_filters_select_points(store: EdgeStore, given: Any, names: set[str]) -> None:
    assert found(store, filter_of(given)) == names


def nested(depth: int) -> dict[str, Any]:
    given: dict[str, Any] = {"owner": "ann"}
    for _ in range(depth):
        given = {"$not": given}
    return given


@pytest.mark.parametrize(
    "given",
    [
        lambda document: True,
        [("owner", "ann")],
        {"owner": ["ann", "bob"]},
        {"owner": {}},
        {"owner": {"maker": "x"}},
        {"year": {"$gte": "new"}},
        {"year": {"$in": 3}},
        {"year": {"$exists": 1}},
        {"owner": {"$regex": "a"}},
        {"$nor": [{"owner": "ann"}]},
        {"$and": []},
        {"$or": [{}]},
        {"$not": "ann"},
        {1: "ann"},
        {"a[0]": "ann"},
        {"owner": b"ann"},
        nested(5_000),
        {"owner": {"$not": {"$not": nested(0)}}},
    ],
)
def test_anything_else_is_a_typed_error(given: Any) -> None:
    with pytest.raises(InputError):
        filter_of(given)


def test_a_filter_chooses_the_tenant(tmp_path: Any) -> None:
    with store_of(tmp_path, Layout(tenant="owner")) as made:
        made.upsert([point(name, meta) for name, meta in BOOKS.items() if "owner" in meta])
        chosen = filter_of({"$and": [{"owner": "ann"}, {"year": {"$gt": 1900}}]}, tenant_key="owner")
        assert chosen is not None
        assert chosen.tenant == "ann"
        assert found(made, chosen) == {"cook"}
        assert found(made, filter_of({"owner": {"$eq": "ann"}}, tenant_key="owner")) == {"emma", "cook"}
        for left in (None, {"year": 2001}, {"$or": [{"owner": "ann"}, {"owner": "bob"}]}, {"owner": {"$ne": "ann"}}):
            with pytest.raises(TenantRequired):
                found(made, filter_of(left, tenant_key="owner"))
        with pytest.raises(InputError, match="two tenants"):
            filter_of({"owner": "ann", "$and": [{"owner": "bob"}]}, tenant_key="owner")
