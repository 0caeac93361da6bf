"""Tenants: no search, scroll or count leaves its tenant by accident; indexes on metadata; metadata in hits."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ume_qdrant import (
    ANY_TENANT,
    CollectionMeta,
    EdgeStore,
    Filter,
    Layout,
    Point,
    QueryVectors,
    Store,
    ThreadStore,
    asearch_vectors,
    enrich,
    export,
    list_sources,
    migrate,
    parse_where,
    search,
    search_vectors,
)
from ume_qdrant.searching.search import direct_view
from ume_qdrant.stores.schema import meta_of
from ume_retrieval.errors import InputError, StoreMismatch, TenantRequired
from ume_retrieval.testing import FakeReasoner, fake_embedder

Opener = Callable[[str], Store]

ROWS = (("acme", 2020), ("acme", 2024), ("globex", 2024))
EMBEDDER = fake_embedder(reasoner=FakeReasoner())
RED = EMBEDDER.encode_query("red", reasoning="never").astype(np.float32)


def point(number: int, meta: dict[str, Any]) -> Point:
    payload = {"source": f"{number}.txt", "kind": "text", "text": "red", "reasoning": "never", "meta": meta}
    return Point(str(uuid.UUID(int=number + 1)), {"direct": RED, "reasoned": RED}, payload)


def filled(store: Store, layout: Layout | None = None) -> Store:
    store.create(meta_of(EMBEDDER, reasoned=True), layout or Layout(tenant="customer"))
    store.upsert([point(number, {"customer": name, "year": year}) for number, (name, year) in enumerate(ROWS)])
    return store


def test_reading_needs_a_tenant(open_collection: Opener) -> None:
    store = filled(open_collection("shared"))
    wide = Filter(meta=parse_where("customer=globex or year>0"), kinds=("text",))
    raw = Filter(raw={"must": [{"key": "meta.customer", "match": {"value": "globex"}}]})
    both = QueryVectors(direct=RED, reasoned=RED)
    for where in (None, Filter(), wide, raw):
        for read in (
            lambda where: list(store.scroll(where)),
            store.count,
            lambda where: store.search("direct", RED, limit=3, where=where),
            lambda where: search_vectors(store, both, where=where),
            lambda where: search(EMBEDDER, store, "red", where=where),
            lambda where: list_sources(store, where),
            lambda where: list(export(store, where=where)),
        ):
            with pytest.raises(TenantRequired, match="customer"):
                read(where)
    with pytest.raises(TenantRequired):
        direct_view(store, RED)
    assert store.count(Filter(tenant="acme")) == 2
    assert store.count(Filter(tenant="eve")) == 0
    assert store.count(Filter(tenant=ANY_TENANT)) == 3
    hits = search_vectors(store, both, where=Filter(tenant="acme", meta=parse_where("customer=globex or year>0")))
    assert [hit.meta for hit in hits] == [{"customer": "acme", "year": 2020}, {"customer": "acme", "year": 2024}]
    assert hits[0].to_dict()["meta"] == {"customer": "acme", "year": 2020}
    escape = Filter(tenant="acme", raw={"should": [{"key": "meta.customer", "match": {"value": "globex"}}]})
    assert search(EMBEDDER, store, "red", where=escape).hits == ()


def test_writing_needs_a_tenant(open_collection: Opener) -> None:
    store = filled(open_collection("shared"))
    for meta in ({}, {"customer": ""}, {"customer": 3}, {"customer": ["acme"]}):
        with pytest.raises(TenantRequired, match="customer"):
            store.upsert([point(9, meta)])
        with pytest.raises(TenantRequired, match="customer"):
            store.update([Point(str(uuid.UUID(int=1)), {}, {"meta": meta})])
    store.update([Point(str(uuid.UUID(int=1)), {}, {"reasoning": "later"})])
    assert store.count(Filter(tenant="acme", reasoning=("later",))) == 1
    assert store.count(Filter(tenant=ANY_TENANT)) == 3


def test_collections_without_tenants_know_none(open_collection: Opener) -> None:
    store = filled(open_collection("plain"), Layout())
    with pytest.raises(StoreMismatch, match="no tenants"):
        store.count(Filter(tenant="acme"))
    assert store.count(Filter(tenant=ANY_TENANT)) == store.count() == 3
    for tenant in ("", 3, ("a", "b")):
        with pytest.raises(InputError):
            Filter(tenant=tenant)  # type: ignore[arg-type]  # as a caller without types does


def test_administration_sees_all_tenants(open_collection: Opener, tmp_path: Path) -> None:
    store = filled(open_collection("shared"))
    target = EdgeStore(tmp_path / "copies", "shared")
    assert migrate(store, target).copied == 3
    assert target.layout().tenant == "customer"
    assert store.meta() == target.meta()
    assert enrich(EMBEDDER, store).remaining == 0
    assert list_sources(target, Filter(tenant="globex"))[0].source == "2.txt"
    target.close()


def test_the_tenant_key_is_kept_with_the_collection(open_collection: Opener) -> None:
    filled(open_collection("shared"))
    again = open_collection("shared")
    assert again.layout() == Layout(tenant="customer")
    assert str(again.layout()) == "full vectors, tenants by 'customer'"
    again.create(meta_of(EMBEDDER, reasoned=True))
    with pytest.raises(StoreMismatch, match="tenants"):
        again.create(meta_of(EMBEDDER, reasoned=True), Layout(tenant="team"))
    with pytest.raises(InputError):
        Layout(tenant="a.b")


def test_an_alias_does_not_move_between_tenants(open_collection: Opener) -> None:
    filled(open_collection("plain"), Layout()).set_alias("live")
    shared = filled(open_collection("shared"))
    with pytest.raises(StoreMismatch, match="tenants"):
        shared.set_alias("live")
    shared.drop_alias("live")
    assert shared.set_alias("live") is None
    shared.close()
    with pytest.raises(TenantRequired):
        open_collection("live").count()


async def test_async_reading_needs_a_tenant(tmp_path: Path) -> None:
    filled(EdgeStore(tmp_path, "shared")).close()
    async with ThreadStore(EdgeStore(tmp_path, "shared")) as store:
        with pytest.raises(TenantRequired):
            await asearch_vectors(store, QueryVectors(direct=RED))
        [hit] = await asearch_vectors(store, QueryVectors(direct=RED), where=Filter(tenant="globex"))
        assert hit.meta["customer"] == "globex"
        await store.create_index("year", "integer")
        assert (await store.indexes())["year"] == "integer"


def test_indexes_are_visible_and_change_no_result(tmp_path: Path) -> None:
    with filled(EdgeStore(tmp_path, "shared")) as store:
        assert store.indexes() == {"customer": "keyword"}
        where = Filter(tenant="acme", meta=parse_where("year>=2021 and 'my key' missing"))
        assert store.count(where) == 1
        kinds: dict[str, Any] = {"year": "integer", "camera.maker": "keyword", "my key": "text", "at": "datetime"}
        kinds |= {"score": "float", "flag": "bool"}
        for key, kind in kinds.items():
            store.create_index(key, kind)
        assert store.indexes() == {"customer": "keyword", **kinds}
        assert store.count(where) == 1
        for key, kind in (("a..b", "keyword"), ("a", "number")):
            with pytest.raises(InputError):
                store.create_index(key, kind)  # type: ignore[arg-type]  # as above
    with EdgeStore(tmp_path, "shared") as store:
        assert store.indexes()["camera.maker"] == "keyword"


def test_a_collection_of_a_former_version_has_no_tenants(tmp_path: Path) -> None:
    stored = Layout().to_dict()
    assert "tenant" not in stored["ume_layout"]
    assert CollectionMeta("model", "1", "family", 2).to_dict()["ume"].keys().isdisjoint({"tenant"})
    assert Layout.from_dict({}, "films").tenant is None
