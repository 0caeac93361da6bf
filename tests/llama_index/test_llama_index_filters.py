"""LlamaIndex's filters: every operator and nesting, compared with the meaning in LlamaIndex's own store."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from typing import Any

import pytest
from llama_index.core.schema import NodeRelationship, RelatedNodeInfo, TextNode
from llama_index.core.vector_stores import (
    FilterCondition,
    FilterOperator,
    MetadataFilter,
    MetadataFilters,
    VectorStoreQuery,
)
from llama_index.core.vector_stores.utils import build_metadata_filter_fn
from llama_world import embedding

from ume_llama_index import UmeRetriever, UmeVectorStore
from ume_qdrant import EdgeStore, Filter, Layout, Point, parse_where
from ume_qdrant.stores.metadata import META_FIELD
from ume_qdrant.stores.schema import meta_of
from ume_retrieval.errors import InputError, StoreMismatch, TenantRequired

OPS = FilterOperator

FILMS: dict[str, dict[str, Any]] = {
    "alien": {"director": "Scott", "year": 1979, "score": 8.5, "themes": ["space", "fear"], "note": "in Space"},
    "heat": {"director": "Mann", "year": 1995, "score": 8.3, "themes": ["crime"], "note": "bank, and a diner"},
    "thelma": {"director": "Scott", "year": 1991, "score": 7.6, "themes": [], "note": ""},
    "blank": {},
}


def nodes(films: dict[str, dict[str, Any]] = FILMS) -> list[TextNode]:
    return [
        TextNode(id_=str(uuid.uuid5(uuid.NAMESPACE_DNS, name)), text=name, metadata=metadata)
        for name, metadata in films.items()
    ]


@pytest.fixture(scope="module")
def films(tmp_path_factory: pytest.TempPathFactory) -> Iterator[UmeVectorStore]:
    made = embedding()
    with UmeVectorStore(EdgeStore(tmp_path_factory.mktemp("films"), "films"), made) as vectors:
        vectors.add(made(nodes()))
        yield vectors


def one(key: str, operator: FilterOperator, value: Any = None) -> MetadataFilter:
    return MetadataFilter(key=key, operator=operator, value=value)


def joined(*filters: Any, by: FilterCondition = FilterCondition.AND) -> MetadataFilters:
    return MetadataFilters(filters=list(filters), condition=by)


def texts(vectors: UmeVectorStore, filters: MetadataFilters) -> set[str]:
    return {node.get_content() for node in vectors.get_nodes(filters=filters)}


@pytest.mark.parametrize(
    "given",
    [
        one("director", OPS.EQ, "Scott"),
        one("year", OPS.EQ, 1995),
        one("score", OPS.EQ, 8.3),
        one("director", OPS.NE, "Scott"),
        one("year", OPS.GT, 1991),
        one("year", OPS.GTE, 1991),
        one("score", OPS.LT, 8.3),
        one("score", OPS.LTE, 8.3),
        one("director", OPS.IN, ["Mann", "Lynch"]),
        one("year", OPS.IN, [1979, 1991]),
        one("director", OPS.NIN, ["Mann", "Lynch"]),
        one("themes", OPS.ANY, ["fear", "crime"]),
        one("themes", OPS.ALL, ["fear", "space"]),
        one("themes", OPS.ALL, ["fear", "crime"]),
        one("themes", OPS.CONTAINS, "space"),
        one("note", OPS.TEXT_MATCH, "in Sp"),
        one("note", OPS.TEXT_MATCH, "in sp"),
        one("note", OPS.TEXT_MATCH_INSENSITIVE, "SPACE"),
        one("note", OPS.IS_EMPTY),
        one("themes", OPS.IS_EMPTY),
        one("director", OPS.IS_EMPTY),
    ],
    ids=lambda given: f"{given.key} {given.operator.value}",
)
@pytest.mark.parametrize("condition", [FilterCondition.AND, FilterCondition.NOT])
def test_every_operator_means_what_it_means_in_llama_index(
    films: UmeVectorStore, given: MetadataFilter, condition: FilterCondition
) -> None:
    filters = joined(given, by=condition)
    meant = build_metadata_filter_fn(lambda name: FILMS[name], filters)
    assert texts(films, filters) == {name for name in FILMS if meant(name)}


def test_nested_conditions(films: UmeVectorStore) -> None:
    scott, mann = one("director", OPS.EQ, "Scott"), one("director", OPS.EQ, "Mann")
    late = one("year", OPS.GT, 1990)
    either = joined(scott, mann, by=FilterCondition.OR)
    assert texts(films, either) == {"alien", "heat", "thelma"}
    assert texts(films, joined(either, late)) == {"heat", "thelma"}
    assert texts(films, joined(joined(scott, late), joined(mann), by=FilterCondition.OR)) == {"heat", "thelma"}
    assert texts(films, joined(joined(late, by=FilterCondition.NOT), scott)) == {"alien"}
    assert texts(films, joined(scott, mann, by=FilterCondition.NOT)) == {"blank"}
    assert texts(films, joined(scott, joined())) == {"alien", "thelma"}
    assert texts(films, joined(scott, one("director", OPS.IN, ["Mann", "Scott"]))) == {"alien", "thelma"}


def test_queries_and_retrievers_filter_too(films: UmeVectorStore) -> None:
    made = embedding()
    late = joined(one("year", OPS.GTE, 1991), one("kind", OPS.EQ, "text"))
    query = VectorStoreQuery(query_embedding=made.get_query_embedding("heat"), similarity_top_k=9, filters=late)
    assert {node.get_content() for node in films.query(query).nodes or []} == {"heat", "thelma"}
    retriever = UmeRetriever(made, films, filters=late, where=Filter(meta=parse_where("director=Mann")))
    assert [node.text for node in retriever.retrieve("heat")] == ["heat"]


def test_dates_and_older_points(tmp_path: Any) -> None:
    made = embedding()
    with UmeVectorStore(EdgeStore(tmp_path, "old"), made) as vectors:
        vectors.add(made(nodes({"may": {"seen": "2024-05-01"}, "june": {"seen": "2024-06-01T10:00:00+02:00"}})))
        [may] = vectors.client.scroll(Filter(meta=parse_where("seen=2024-05-01")), vectors=("direct", "reasoned"))
        assert may.payload["seen"] == "2024-05-01"
        # As former versions wrote it: only at the top level.
        former = {key: value for key, value in may.payload.items() if key != META_FIELD}
        vectors.client.upsert([Point(may.id, may.vectors, former)])
        assert texts(vectors, joined(one("seen", OPS.LTE, "2024-05-01"))) == {"may"}
        assert texts(vectors, joined(one("seen", OPS.GT, "2024-05-01"))) == {"june"}
        assert texts(vectors, joined(one("seen", OPS.NE, "2024-05-01"))) == {"june"}
        assert texts(vectors, joined(one("seen", OPS.IS_EMPTY))) == set()


def test_metadata_that_filters_cannot_compare_stay_with_the_node(tmp_path: Any) -> None:
    made = embedding()
    odd = {"owner": "ann", "matrix": [[1, 2]], "file.name": "a.txt", "meta": "mine", "source": "shelf"}
    with UmeVectorStore(EdgeStore(tmp_path, "odd"), made) as vectors:
        vectors.add(made(nodes({"odd": odd})))
        [node] = vectors.get_nodes(filters=joined(one("owner", OPS.EQ, "ann"), one("meta", OPS.EQ, "mine")))
        assert {key: node.metadata[key] for key in odd} == odd
        [point] = vectors.client.scroll()
        assert point.payload[META_FIELD] == {"owner": "ann", "meta": "mine", "source": "shelf"}
        assert texts(vectors, joined(one("source", OPS.EQ, "shelf"))) == {"odd"}


def test_no_path_leaves_the_tenant(tmp_path: Any) -> None:
    made = embedding()
    store = EdgeStore(tmp_path, "shared")
    store.create(meta_of(made.embedder, reasoned=False), Layout(tenant="customer"))
    source = {NodeRelationship.SOURCE: RelatedNodeInfo(node_id="guide")}
    rows = nodes({f"{name} guide": {"customer": name} for name in ("acme", "globex")})
    for node in rows:
        node.relationships = source
    with UmeVectorStore(store, made) as every:
        every.add(made(rows))
        with pytest.raises(TenantRequired):
            every.add(made(nodes({"nobody": {}})))
        acme = UmeVectorStore(store, made, tenant="acme")
        query = VectorStoreQuery(query_embedding=made.get_query_embedding("guide"), similarity_top_k=5)
        assert [node.get_content() for node in acme.query(query).nodes or []] == ["acme guide"]
        assert [node.get_content() for node in acme.get_nodes()] == ["acme guide"]
        assert [node.text for node in UmeRetriever(made, acme).retrieve("guide")] == ["acme guide"]
        assert acme.get_nodes(node_ids=[rows[1].node_id]) == []
        chosen = joined(one("customer", OPS.EQ, "globex"))
        assert texts(every, chosen) == {"globex guide"}
        with pytest.raises(InputError, match="restricted to tenant"):
            acme.get_nodes(filters=chosen)
        for escape in (
            lambda: every.query(query),
            every.get_nodes,
            every.clear,
            lambda: every.delete("guide"),
            lambda: every.delete_nodes([rows[0].node_id]),
            lambda: every.get_nodes(filters=joined(chosen.filters[0], by=FilterCondition.OR)),
            lambda: every.get_nodes(filters=joined(one("customer", OPS.NE, "acme"))),
            lambda: UmeRetriever(made, every).retrieve("guide"),
        ):
            with pytest.raises(TenantRequired):
                escape()
        acme.delete("guide")
        acme.delete_nodes([rows[1].node_id])
        with pytest.raises(InputError, match="which nodes"):
            acme.delete_nodes()
        assert texts(every, chosen) == {"globex guide"}
        acme.clear()
        assert [node.get_content() for node in UmeVectorStore(store, made, tenant="globex").get_nodes()] == [
            "globex guide"
        ]
    with UmeVectorStore(EdgeStore(tmp_path, "plain"), made, tenant="acme") as plain:
        plain.add(made(nodes({"a": {"customer": "acme"}})))
        with pytest.raises(StoreMismatch, match="no tenants"):
            plain.get_nodes()
