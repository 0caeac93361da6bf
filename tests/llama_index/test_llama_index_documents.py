"""What other people's splitters and metadata make of a collection: chunks of files, and names that are also ours."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from llama_index.core import StorageContext, VectorStoreIndex
from llama_index.core.ingestion import DocstoreStrategy, IngestionPipeline
from llama_index.core.node_parser import SentenceSplitter, TokenTextSplitter
from llama_index.core.schema import MetadataMode, Node, TextNode
from llama_index.core.storage.docstore import SimpleDocumentStore
from llama_index.core.vector_stores import VectorStoreQuery
from llama_world import embedding, fill, models, names

from ume_llama_index import UmeEmbedding, UmeReader, UmeRetriever, UmeVectorStore
from ume_llama_index.payload import node_of_payload
from ume_qdrant import EdgeStore, Filter, index, search

LONG = "The last train home leaves at ten. " * 40


@pytest.fixture
def vectors(tmp_path: Path) -> Iterator[UmeVectorStore]:
    with UmeVectorStore(EdgeStore(tmp_path / "vectors", "docs"), embedding()) as made:
        yield made


def texts(folder: Path, **words: str) -> Path:
    folder.mkdir()
    for name, text in words.items():
        (folder / f"{name}.txt").write_text(text, encoding="utf-8")
    return folder


def split(vectors: UmeVectorStore, folder: Path, made: UmeEmbedding | None = None) -> list[str]:
    chunks = TokenTextSplitter(chunk_size=128, chunk_overlap=0)(UmeReader().load_data(folder))
    return vectors.add((made or embedding())(chunks))


def test_chunks_go_with_their_document(vectors: UmeVectorStore, tmp_path: Path) -> None:
    folder = texts(tmp_path / "things", a="the last train home", b="red shoes")
    pipeline = IngestionPipeline(
        transformations=[SentenceSplitter(), embedding()],
        vector_store=vectors,
        docstore=SimpleDocumentStore(),
        docstore_strategy=DocstoreStrategy.UPSERTS_AND_DELETE,
    )
    pipeline.run(documents=UmeReader().load_data(folder))
    assert vectors.client.count() == 2
    (folder / "b.txt").unlink()
    pipeline.run(documents=UmeReader().load_data(folder))
    assert names(vectors.get_nodes()) == ["a.txt"]

    vectors.clear()
    documents = UmeReader().load_data(texts(tmp_path / "more", a="one", b="two"))
    context = StorageContext.from_defaults(vector_store=vectors)
    made = VectorStoreIndex.from_documents(documents, storage_context=context, embed_model=embedding())
    made.delete_ref_doc(documents[0].id_)
    assert names(vectors.get_nodes()) == ["b.txt"]
    vectors.delete("None")
    assert vectors.client.count() == 1, "no document is called so"


def test_queries_within_documents(vectors: UmeVectorStore, tmp_path: Path) -> None:
    folder = texts(tmp_path / "things", a=LONG, b="red shoes")
    split(vectors, folder)
    vectors.add(embedding()([TextNode(id_="alone", text="blue shoes")]))
    first, second = UmeReader().load_data(folder)
    vector = embedding().get_query_embedding("shoes")

    def found(**wanted: list[str]) -> set[str]:
        query = VectorStoreQuery(query_embedding=vector, similarity_top_k=20, **wanted)  # type: ignore[arg-type]
        return {Path(node.metadata["source"]).name for node in vectors.query(query).nodes or []}

    assert found(doc_ids=[second.id_]) == {"b.txt"}
    assert found(doc_ids=[first.metadata["source"], "alone"]) == {"a.txt", "alone"}
    [chunk] = [node.node_id for node in vectors.get_nodes() if names([node]) == ["b.txt"]]
    assert found(doc_ids=[first.id_, second.id_], node_ids=[chunk]) == {"b.txt"}
    assert found(doc_ids=[first.id_], node_ids=[chunk]) == set()
    assert found(doc_ids=["unknown"]) == set()


def test_chunks_do_not_wait_for_a_reasoning_that_cannot_come(vectors: UmeVectorStore, tmp_path: Path) -> None:
    folder = texts(tmp_path / "things", a=LONG)
    written = split(vectors, folder, embedding(reasoning="never"))
    assert len(written) > 1
    assert vectors.client.count(Filter(reasoning=("never",))) == len(written)
    report = vectors.enrich()
    assert (report.enriched, report.remaining, report.failed) == (0, 0, ())
    assert vectors.client.count(Filter(under=(str(folder),))) == len(written), "they are found below their folder"


def test_chunks_of_former_content_go(vectors: UmeVectorStore, tmp_path: Path) -> None:
    folder = texts(tmp_path / "things", a=LONG)
    split(vectors, folder)
    (folder / "a.txt").write_text("red shoes", encoding="utf-8")
    split(vectors, folder)
    assert [node.get_content() for node in vectors.get_nodes()] == ["red shoes"]


def test_ume_index_puts_the_file_in_place_of_its_chunks(vectors: UmeVectorStore, tmp_path: Path) -> None:
    folder = texts(tmp_path / "things", a=LONG, b="red shoes")
    for path in folder.iterdir():
        os.utime(path, ns=(0, 0))  # the time that a chunk has
    split(vectors, folder)
    report = index(models(), vectors.client, folder, reasoning="always")
    assert (report.indexed, report.unchanged, report.moved, report.failed) == (2, 0, 0, ())
    with EdgeStore(tmp_path / "vectors", "fresh") as fresh:
        index(models(), fresh, folder, reasoning="always")
        both = ("direct", "reasoned")
        mine, theirs = (list(store.scroll(vectors=both)) for store in (vectors.client, fresh))
    assert [(p.id, p.payload) for p in mine] == [(p.id, p.payload) for p in theirs]
    for own, other in zip(mine, theirs, strict=True):
        for name in both:
            np.testing.assert_allclose(own.vectors[name], other.vectors[name], atol=1e-6)


def test_media_survive_a_splitter(vectors: UmeVectorStore, tmp_path: Path) -> None:
    made = embedding()
    pipeline = IngestionPipeline(transformations=[SentenceSplitter(), made], vector_store=vectors)
    pipeline.run(documents=UmeReader().load_data(fill(tmp_path / "things")))
    assert vectors.client.count() == 7
    assert names(UmeRetriever(made, vectors, similarity_top_k=1).retrieve("the last train home")) == ["notes.txt"]
    kinds = sorted(node.metadata["kind"] for node in vectors.get_nodes())
    assert kinds == ["image", "image", "page", "page", "text", "video", "video"]


OWN: dict[str, Any] = {
    "source": "https://example.org/trains",
    "kind": "news",
    "start_s": "at ten",
    "size": "large",
    "answer": "theirs",
    "trace": "req-123",
    "reasoning": "done",
    "cut": "short",
    "split_from": "a book",
}


@pytest.mark.parametrize("reasoning", ["always", "never"])
@pytest.mark.parametrize("node_class", [TextNode, Node])
def test_a_nodes_own_metadata_come_back(vectors: UmeVectorStore, reasoning: Any, node_class: Any) -> None:
    made = embedding(reasoning=reasoning)
    words = (
        {"text_resource": {"text": "the last train home"}} if node_class is Node else {"text": "the last train home"}
    )
    before = node_class(metadata=OWN, **words).get_content(MetadataMode.EMBED)
    vectors.add(made([node_class(id_="n1", metadata=dict(OWN), **words)]))
    [point] = vectors.client.scroll(vectors=("direct", "reasoned"))
    done = reasoning == "always"
    assert point.payload["reasoning"] == ("done" if done else "never")
    assert sorted(point.vectors) == (["direct", "reasoned"] if done else ["direct"])
    [hit] = search(models(), vectors.client, "train").hits
    assert (hit.source, hit.kind, hit.start_s, hit.answer) == ("n1", "text", None, hit.answer if done else None)

    query = VectorStoreQuery(query_embedding=made.get_query_embedding("train"), similarity_top_k=1)
    retrieved = UmeRetriever(made, vectors).retrieve("train")
    for node in (*vectors.get_nodes(), *(vectors.query(query).nodes or []), *(one.node for one in retrieved)):
        assert {key: node.metadata[key] for key in OWN} == OWN
        assert ("tcot" in node.metadata) == done
        assert node.node_id == "n1"
    if not done:
        [node] = vectors.get_nodes()
        assert node.get_content(MetadataMode.EMBED) == before, "and is embedded as it was"
    assert vectors.enrich().remaining == 0
    vectors.delete("n1")
    assert vectors.client.count() == 0


def test_new_evidence_takes_the_place_of_old(vectors: UmeVectorStore) -> None:
    vectors.add(embedding()([TextNode(id_="n1", text="red shoes")]))
    [node] = vectors.get_nodes()
    assert node.metadata["answer"] == "red shoes"
    node.set_content("the last train home")
    vectors.add(embedding()([node]))
    [point] = vectors.client.scroll()
    assert node_of_payload(point.payload, point.id).metadata["answer"] == "the last train home"
