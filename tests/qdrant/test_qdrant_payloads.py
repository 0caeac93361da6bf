"""The same collection, read by a bare client and by LlamaIndex's own store for Qdrant."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from qdrant_client import QdrantClient
from qdrant_client import models as rest
from qdrant_world import models
from small_media import fill

from ume_qdrant import ClientStore, enrich, index, search


@pytest.fixture
def client(tmp_path: Path) -> Iterator[QdrantClient]:
    client = QdrantClient(":memory:")
    index(models(), ClientStore(client, "things"), fill(tmp_path / "things"))
    yield client
    client.close()


def test_a_bare_client_filters_and_reads(client: QdrantClient, tmp_path: Path) -> None:
    vector = models().encode_query("train home", reasoning="never").tolist()
    page_two = rest.Filter(must=[rest.FieldCondition(key="page", match=rest.MatchValue(value=2))])
    [hit] = client.query_points("things", query=vector, using="direct", query_filter=page_two).points
    assert hit.payload is not None
    assert hit.payload["source"] == hit.payload["doc_id"] == str(tmp_path / "things" / "report.pdf")
    assert (hit.payload["kind"], hit.payload["text"]) == ("page", "")
    groups = client.query_points_groups("things", "doc_id", query=vector, using="direct", group_size=9).groups
    assert sum(len(group.hits) for group in groups) == 8


def test_text_is_the_answer_once_it_is_reasoned_over(client: QdrantClient, tmp_path: Path) -> None:
    store = ClientStore(client, "things")
    enrich(models(), store)
    for point in store.scroll():
        assert point.payload["text"] == (
            "the last train home" if point.payload["kind"] == "text" else point.payload["trace"]["answer"]
        )
    texts = {hit.kind: hit.text for hit in search(models(), store, "train").hits}
    assert texts == {"text": "the last train home", "image": None, "page": None, "video": None}
    # A copy of a picture takes the text over with the trace.
    (tmp_path / "things" / "copy.png").write_bytes((tmp_path / "things" / "red.png").read_bytes())
    assert index(models(), store, tmp_path / "things").moved == 1
    copies = [p.payload for p in store.scroll() if p.payload["source"].endswith(("copy.png", "red.png"))]
    assert copies[0]["text"] == copies[1]["text"] != ""


def test_llama_index_reads_and_removes_by_document(client: QdrantClient, tmp_path: Path) -> None:
    qdrant = pytest.importorskip("llama_index.vector_stores.qdrant")
    types = pytest.importorskip("llama_index.core.vector_stores.types")
    stock = qdrant.QdrantVectorStore(client=client, collection_name="things", dense_vector_name="direct")
    vector = models().encode_query("train home", reasoning="never").tolist()
    found = stock.query(types.VectorStoreQuery(query_embedding=vector, similarity_top_k=9))
    assert len(found.nodes) == 8
    assert found.nodes[0].get_content() == "the last train home"
    assert {node.metadata["kind"] for node in found.nodes} == {"text", "image", "video", "page"}
    report = str(tmp_path / "things" / "report.pdf")
    only = stock.query(types.VectorStoreQuery(query_embedding=vector, similarity_top_k=9, doc_ids=[report]))
    assert {node.metadata["page"] for node in only.nodes} == {1, 2}
    stock.delete(report)
    assert ClientStore(client, "things").count() == 6
