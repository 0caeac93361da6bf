"""`UmeVectorStore` and the one collection that everybody reads."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from llama_index.core import VectorStoreIndex
from llama_index.core.ingestion import DocstoreStrategy, IngestionPipeline
from llama_index.core.node_parser import TokenTextSplitter
from llama_index.core.schema import Document, ImageNode, Node, TextNode
from llama_index.core.storage.docstore import SimpleDocumentStore
from llama_index.core.vector_stores import MetadataFilter, MetadataFilters, VectorStoreQuery
from llama_index.core.vector_stores.types import VectorStoreQueryMode
from llama_index.vector_stores.qdrant import QdrantVectorStore
from llama_world import embedding, fill, models, names
from qdrant_client import QdrantClient
from small_media import BLUE, RED, YELLOW, picture

from ume_llama_index import MediaQuery, UmeEmbedding, UmeReader, UmeRetriever, UmeVectorStore
from ume_qdrant import ClientStore, EdgeStore, Filter, Store, index, search
from ume_retrieval import InputError, ReasoningEmbedder
from ume_retrieval.errors import StoreMismatch
from ume_retrieval.testing import FakeReasoner, HashEmbedder

Opener = Callable[[str], Store]


@pytest.fixture(params=["edge", "client"])
def opener(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Opener]:
    client = QdrantClient(":memory:")
    opened: list[Store] = []

    def open_(name: str) -> Store:
        opened.append(EdgeStore(tmp_path / "vectors", name) if request.param == "edge" else ClientStore(client, name))
        return opened[-1]

    yield open_
    for store in opened:
        store.close()
    client.close()


def ingest(store: Store, folder: Path, made: UmeEmbedding | None = None) -> UmeVectorStore:
    made = made or embedding()
    vectors = UmeVectorStore(store, made)
    IngestionPipeline(transformations=[made], vector_store=vectors).run(documents=UmeReader().load_data(folder))
    return vectors


def test_a_pipeline_writes_what_ume_index_writes(opener: Opener, tmp_path: Path) -> None:
    folder = fill(tmp_path / "things")
    ours, theirs = opener("ours"), opener("theirs")
    ingest(ours, folder)
    index(models(), theirs, folder, reasoning="always")
    assert ours.meta() == theirs.meta()
    both = ("direct", "reasoned")
    mine = {point.id: point for point in ours.scroll(vectors=both)}
    for point in theirs.scroll(vectors=both):
        own = mine.pop(point.id)
        for name in both:
            np.testing.assert_allclose(own.vectors[name], point.vectors[name], atol=1e-5)
        node_keys = {"_node_content", "_node_type", "document_id", "ref_doc_id"}
        assert {k: v for k, v in own.payload.items() if k not in node_keys} == {
            k: v for k, v in point.payload.items() if k not in node_keys
        }
    assert not mine
    report = index(models(), ours, folder, reasoning="always")
    assert (report.unchanged, report.indexed, report.model_calls) == (5, 0, 0), "ume index takes it over as it is"


def test_one_collection_read_by_ume_search_the_retriever_and_llama_index(opener: Opener, tmp_path: Path) -> None:
    store = opener("things")
    made = embedding()
    vectors = ingest(store, fill(tmp_path / "things"), made)
    question = "train home"
    hits = search(models(), store, question, limit=5, group_by="source").hits
    nodes = UmeRetriever(made, vectors, similarity_top_k=5, group_by="source").retrieve(question)
    assert [(n.node.metadata["source"], pytest.approx(n.score)) for n in nodes] == [(h.source, h.score) for h in hits]
    by_index = VectorStoreIndex.from_vector_store(vectors, embed_model=made).as_retriever(similarity_top_k=3)
    assert names(by_index.retrieve(question))[0] == "notes.txt"


def test_a_collection_on_a_client_is_read_by_all_of_them(tmp_path: Path) -> None:
    client = QdrantClient(":memory:")
    made = embedding()
    ingest(ClientStore(client, "things"), fill(tmp_path / "things"), made)
    plain = QdrantVectorStore("things", client=client, dense_vector_name="reasoned")
    for direct in ("when does the train leave home", "yellow"):
        vector = made.get_query_embedding(direct)
        bare = client.query_points("things", vector, using="reasoned", limit=3, with_payload=True).points
        theirs = plain.query(VectorStoreQuery(query_embedding=vector, similarity_top_k=3))
        retriever = UmeRetriever(made, plain, similarity_top_k=3, mode="reasoned", group_by="point")
        ours = retriever.retrieve(direct)
        found = search(models(), ClientStore(client, "things"), direct, mode="reasoned", limit=3).hits
        sources = [hit.source for hit in found]
        assert [point.payload["source"] for point in bare] == sources
        assert [node.metadata["source"] for node in theirs.nodes] == sources
        assert [node.metadata["source"] for node in ours] == sources
    [first] = [node for node in theirs.nodes if node.metadata["kind"] == "page"][:1]
    assert isinstance(first, Node)
    client.close()


def test_direct_first_then_enriched(opener: Opener, tmp_path: Path) -> None:
    made = embedding(reasoning="never")
    vectors = ingest(opener("things"), fill(tmp_path / "things"), made)
    thinking = UmeEmbedding(embedder=made.embedder)
    [before] = UmeRetriever(thinking, vectors, similarity_top_k=1).retrieve("train")
    assert "answer" not in before.metadata
    assert vectors.enrich().enriched == 7
    [after] = UmeRetriever(thinking, vectors, similarity_top_k=1).retrieve("train")
    assert after.metadata["answer"] == "the last train home"
    ingest(vectors.client, tmp_path / "things", made)
    assert vectors.client.count(Filter(reasoning=("done",))) == 7, "reasoning survives a second direct run"
    assert next(iter(vectors.client.search("reasoned", np.ones(64, dtype=np.float32), limit=1))).payload["trace"]


def test_changed_and_removed_files(opener: Opener, tmp_path: Path) -> None:
    folder = fill(tmp_path / "things")
    made = embedding()
    vectors = UmeVectorStore(opener("things"), made)
    pipeline = IngestionPipeline(
        transformations=[made],
        vector_store=vectors,
        docstore=SimpleDocumentStore(),
        docstore_strategy=DocstoreStrategy.UPSERTS_AND_DELETE,
        disable_cache=True,
    )
    assert len(pipeline.run(documents=UmeReader().load_data(folder))) == 7
    assert len(pipeline.run(documents=UmeReader().load_data(folder))) == 0, "what is known is not embedded again"
    picture(folder / "red.png", YELLOW)
    (folder / "report.pdf").unlink()
    assert len(pipeline.run(documents=UmeReader().load_data(folder))) == 1
    kept = sorted(Path(node.metadata["source"]).name for node in vectors.get_nodes())
    assert kept == ["clip.mp4", "clip.mp4", "green.png", "notes.txt", "red.png"]


def test_a_changed_file_replaces_its_nodes_without_a_document_store(opener: Opener, tmp_path: Path) -> None:
    folder = fill(tmp_path / "things")
    vectors = ingest(opener("things"), folder)
    picture(folder / "red.png", BLUE)
    ingest(vectors.client, folder)
    assert vectors.client.count() == 7


def test_text_chunks_of_other_readers(opener: Opener) -> None:
    made = embedding()
    vectors = UmeVectorStore(opener("docs"), made)
    documents = [Document(text="Red shoes. " * 30 + "The last train home.", id_="guide", metadata={"topic": "misc"})]
    pipeline = IngestionPipeline(
        transformations=[TokenTextSplitter(chunk_size=64, chunk_overlap=0), made], vector_store=vectors
    )
    written = pipeline.run(documents=documents)
    assert vectors.client.count() == len(written) > 1
    [best] = UmeRetriever(made, vectors, similarity_top_k=1).retrieve("the last train home")
    assert "train" in best.text
    assert best.node.ref_doc_id == "guide"
    assert best.metadata["topic"] == "misc"
    assert vectors.enrich().remaining == 0
    vectors.delete("guide")
    assert vectors.client.count() == 0


def test_nodes_are_fetched_and_deleted_by_id_and_filter(opener: Opener, tmp_path: Path) -> None:
    vectors = ingest(opener("things"), fill(tmp_path / "things"))
    videos = MetadataFilters(filters=[MetadataFilter(key="kind", value="video")])
    [one, two] = vectors.get_nodes(filters=videos)
    assert isinstance(one, Node)
    assert one.video_resource is not None
    assert [node.node_id for node in vectors.get_nodes(node_ids=[two.node_id])] == [two.node_id]
    vectors.delete_nodes([])
    vectors.delete_nodes([], filters=videos)
    assert vectors.get_nodes([]) == []
    assert vectors.client.count() == 7
    vectors.delete_nodes([one.node_id])
    vectors.delete_nodes(filters=videos)
    assert vectors.client.count() == 5
    with pytest.raises(InputError, match="which nodes"):
        vectors.delete_nodes()
    with pytest.raises(InputError, match="which nodes"):
        vectors.delete_nodes(filters=MetadataFilters(filters=[]))
    assert vectors.client.count() == 5
    vectors.clear()
    assert vectors.client.count() == 0


async def test_async_does_the_same(opener: Opener, tmp_path: Path) -> None:
    made = embedding()
    vectors = UmeVectorStore(opener("things"), made)
    pipeline = IngestionPipeline(transformations=[made], vector_store=vectors)
    await pipeline.arun(documents=UmeReader().load_data(fill(tmp_path / "things")))
    query = VectorStoreQuery(query_embedding=await made.aget_query_embedding("train"), similarity_top_k=2)
    assert (await vectors.aquery(query)).ids == vectors.query(query).ids
    ids = [node.node_id for node in await vectors.aget_nodes()]
    await vectors.adelete_nodes(ids[:1])
    await vectors.adelete(ids[1])
    assert vectors.client.count() == 5
    await vectors.aclear()
    assert vectors.client.count() == 0


def test_diversity_and_what_is_not_possible(opener: Opener, tmp_path: Path) -> None:
    made = embedding()
    vectors = ingest(opener("things"), fill(tmp_path / "things"), made)
    vector = made.get_query_embedding("red")

    def ask(**settings: object) -> list[str]:
        result = vectors.query(VectorStoreQuery(query_embedding=vector, similarity_top_k=4, **settings))  # type: ignore[arg-type]
        return [node.metadata["source"] for node in result.nodes]

    assert ask(mode=VectorStoreQueryMode.MMR, mmr_threshold=1.0) == ask()
    assert ask(mode=VectorStoreQueryMode.MMR, mmr_threshold=0.1) != ask()
    with pytest.raises(InputError, match="hybrid"):
        ask(mode=VectorStoreQueryMode.HYBRID)
    with pytest.raises(InputError, match="embedding"):
        vectors.query(VectorStoreQuery())
    with pytest.raises(InputError, match="not base64"):
        vectors.add([ImageNode(image="§", embedding=vector)])
    with pytest.raises(InputError, match="length 16"):
        vectors.add(embedding(truncate_dim=16, reasoning="never")([TextNode(text="x")]))
    other = UmeEmbedding(embedder=ReasoningEmbedder(HashEmbedder(revision="2"), FakeReasoner()))
    with pytest.raises(StoreMismatch):
        UmeVectorStore(vectors.client, other).add(other([TextNode(text="x")]))
    with pytest.raises(StoreMismatch):
        UmeVectorStore(vectors.client, other).query(VectorStoreQuery(query_embedding=vector))


def test_the_adapter_says_what_is_missing(tmp_path: Path) -> None:
    (tmp_path / "llama_index").mkdir()
    (tmp_path / "llama_index" / "__init__.py").write_text("raise ImportError('not here')")
    code = (
        "import json\ntry:\n    import ume_llama_index\nexcept Exception as e:\n    print(json.dumps([e.code, e.hint]))"
    )
    path = [str(tmp_path), *sys.path]
    done = subprocess.run(  # noqa: S603  # this interpreter
        [sys.executable, "-c", f"import sys; sys.path = {path!r}\n{code}"], capture_output=True, text=True, check=True
    )
    assert json.loads(done.stdout) == ["missing_extra", "pip install 'ume-retrieval[llama-index]'"]


def test_a_query_of_media_serves_an_index_too(opener: Opener, tmp_path: Path) -> None:
    made = embedding()
    vectors = ingest(opener("things"), fill(tmp_path / "things"), made)
    like = picture(tmp_path / "query.png", RED)
    found = UmeRetriever(made, vectors).retrieve(MediaQuery(images=[like]))
    assert names(found)[0] == "red.png"


def test_metadata_that_change_are_written(opener: Opener, tmp_path: Path) -> None:
    made = embedding()
    vectors = UmeVectorStore(opener("things"), made)
    pipeline = IngestionPipeline(
        transformations=[made],
        vector_store=vectors,
        docstore=SimpleDocumentStore(),
        docstore_strategy=DocstoreStrategy.UPSERTS,
    )
    folder = fill(tmp_path / "things")
    for owner in (None, "ann", "bob", "bob"):
        documents = UmeReader().load_data(folder)
        for document in documents:
            document.metadata |= {"owner": owner} if owner else {}
        unchanged = vectors.client.exists() and owner in vectors_say(vectors, "owner")
        assert len(pipeline.run(documents=documents)) == (0 if unchanged else 7)
        assert vectors_say(vectors, "owner") == {owner}
    assert vectors.client.count(Filter(reasoning=("done",))) == 7


def test_nodes_without_reasoning_bring_their_metadata_to_those_that_have_it(opener: Opener, tmp_path: Path) -> None:
    vectors = ingest(opener("things"), fill(tmp_path / "things"), embedding())
    documents = UmeReader().load_data(tmp_path / "things")
    for document in documents:
        document.metadata["owner"] = "ann"
    vectors.add(embedding(reasoning="never")(documents))
    assert vectors_say(vectors, "owner") == {"ann"}
    assert vectors_say(vectors, "answer") >= {"red", "the last train home"}
    assert vectors.client.count(Filter(reasoning=("done",))) == 7


def test_a_whole_text_takes_the_place_of_its_pieces(opener: Opener, tmp_path: Path) -> None:
    made = embedding()
    folder = tmp_path / "things"
    folder.mkdir()
    (folder / "long.txt").write_text("the last train home " * 40, encoding="utf-8")
    vectors = UmeVectorStore(opener("things"), made)
    pieces = TokenTextSplitter(chunk_size=60, chunk_overlap=0)(UmeReader().load_data(folder))
    vectors.add(made(pieces))
    assert vectors.client.count() == len(pieces) > 1
    ingest(vectors.client, folder, made)
    [whole] = vectors.get_nodes()
    index(models(), vectors.client, folder)
    assert [node.node_id for node in vectors.get_nodes()] == [whole.node_id]


def vectors_say(vectors: UmeVectorStore, key: str) -> set[object]:
    """Values of a field in the metadata of all nodes."""
    return {node.metadata.get(key) for node in vectors.get_nodes()}
