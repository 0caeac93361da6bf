"""Holes of LlamaIndex 0.14 where images and video go in: each shown open there and closed here."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import pytest
from llama_index.core import StorageContext, VectorStoreIndex
from llama_index.core.embeddings import MockEmbedding, MultiModalEmbedding
from llama_index.core.ingestion import IngestionPipeline
from llama_index.core.schema import ImageDocument, MediaResource, Node, QueryBundle, TextNode
from llama_index.core.storage.kvstore import SimpleKVStore
from llama_index.core.vector_stores import SimpleVectorStore
from llama_index.core.vector_stores.utils import metadata_dict_to_node, node_to_metadata_dict
from llama_world import embedding, names
from small_media import BLUE, GREEN, RED, clip, picture

from ume_llama_index import UmeReader, UmeRetriever, UmeVectorStore
from ume_qdrant import EdgeStore
from ume_retrieval import InputError


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "things"
    made.mkdir()
    picture(made / "red.png", RED)
    picture(made / "green.png", GREEN)
    clip(made / "blue.mp4", 4, BLUE)
    return made


def pipeline_into(tmp_path: Path, folder: Path) -> UmeVectorStore:
    made = embedding()
    vectors = UmeVectorStore(EdgeStore(tmp_path / "vectors", "things"), made)
    IngestionPipeline(transformations=[made], vector_store=vectors).run(documents=UmeReader().load_data(folder))
    return vectors


def test_no_hook_for_video_or_an_image_as_a_query(folder: Path) -> None:
    assert not any("video" in name or "image_query" in name for name in dir(MultiModalEmbedding))
    made = embedding()
    assert len(made.get_video_embedding(folder / "blue.mp4")) == 64
    assert len(made.get_image_query_embedding(str(folder / "red.png"), "and blue")) == 64


def test_video_nodes_are_dropped(folder: Path, tmp_path: Path) -> None:
    from llama_index.core.indices import MultiModalVectorStoreIndex

    nodes = [Node(video_resource=MediaResource(path=folder / "blue.mp4"))]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        theirs: Any = MultiModalVectorStoreIndex(
            nodes=nodes,
            embed_model=MockEmbedding(embed_dim=4),
            image_embed_model=embedding(),
            storage_context=StorageContext.from_defaults(image_store=SimpleVectorStore()),
        )
    assert not theirs.index_struct.nodes_dict
    assert not theirs.docstore.docs
    [video] = pipeline_into(tmp_path, folder / "blue.mp4").get_nodes()
    assert isinstance(video, Node)
    assert video.video_resource is not None


def test_the_image_of_a_query_is_ignored(folder: Path, tmp_path: Path) -> None:
    vectors = pipeline_into(tmp_path, folder)
    made = embedding()
    theirs = VectorStoreIndex.from_vector_store(vectors, embed_model=made).as_retriever(similarity_top_k=1)
    ours = UmeRetriever(made, vectors, similarity_top_k=1)

    def with_each(retriever: Any) -> set[str]:
        asked = [QueryBundle("a colour", image_path=str(folder / f"{name}.png")) for name in ("red", "green")]
        return {names(retriever.retrieve(query))[0] for query in asked}

    assert len(with_each(theirs)) == 1
    assert with_each(ours) == {"red.png", "green.png"}


def test_nodes_without_text_are_dropped_or_share_a_hash(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    made = embedding()
    bare = [Node(image_resource=MediaResource(path=folder / f"{name}.png")) for name in ("red", "green")]
    context = StorageContext.from_defaults(vector_store=SimpleVectorStore())
    theirs = VectorStoreIndex(nodes=bare, storage_context=context, embed_model=MockEmbedding(embed_dim=4))
    assert not theirs.index_struct.nodes_dict
    assert "missing content" in capsys.readouterr().out
    assert TextNode(text="").hash == TextNode(text="").hash
    same = IngestionPipeline(transformations=[made])
    first, second = (same.run(nodes=[node])[0] for node in bare)
    assert first.embedding == second.embedding, "LlamaIndex's cache takes one picture for the other"

    red, green = UmeReader().load_data([folder / "red.png", folder / "green.png"])
    assert red.hash != green.hash
    ours = IngestionPipeline(transformations=[made])
    assert ours.run(documents=[red])[0].embedding != ours.run(documents=[green])[0].embedding
    kept = VectorStoreIndex(nodes=made([red, green]), storage_context=context, embed_model=made)
    assert len(kept.index_struct.nodes_dict) == 2


def test_media_are_not_embedded_by_their_names(folder: Path) -> None:
    """`VectorStoreIndex` embeds what a node says of itself; for a picture that would be its file's name."""
    with pytest.raises(InputError, match="instead of its pixels"):
        VectorStoreIndex(nodes=UmeReader().load_data(folder), embed_model=embedding())


def test_the_embeddings_cache_mixes_queries_and_documents() -> None:
    class Sided(MockEmbedding):
        def _get_query_embedding(self, query: str) -> list[float]:
            return [1.0, 0.0]

        def _get_text_embedding(self, text: str) -> list[float]:
            return [0.0, 1.0]

    theirs = Sided(embed_dim=2, embeddings_cache=SimpleKVStore())
    theirs.get_text_embedding("the same words")
    # The cache is truthy only once it holds something, and then hands the document's vector to the query.
    assert theirs.get_query_embedding("the same words") == [0.0, 1.0]
    with pytest.raises(InputError) as refused:
        embedding(embeddings_cache=SimpleKVStore())
    assert "TraceCache" in refused.value.hint


def test_image_documents_do_not_come_back(folder: Path) -> None:
    theirs = ImageDocument(image_path=str(folder / "red.png"), text="a caption")
    back = metadata_dict_to_node(node_to_metadata_dict(theirs))
    assert not isinstance(back, Node)
    assert getattr(back, "image_path", None) is None
    [ours] = UmeReader().load_data(folder / "red.png")
    again = metadata_dict_to_node(node_to_metadata_dict(ours))
    assert isinstance(again, Node)
    assert again.image_resource is not None
    assert again.image_resource.path == folder / "red.png"
