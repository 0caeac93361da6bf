"""Image nodes and image documents that no reader of this library made."""

from __future__ import annotations

import base64
from collections.abc import Callable
from pathlib import Path

import pytest
from llama_index.core.ingestion import IngestionPipeline
from llama_index.core.schema import BaseNode, ImageDocument, ImageNode, MediaResource, Node
from small_media import BLUE, RED, picture

from ume_llama_index import UmeEmbedding, UmeRetriever, UmeVectorStore
from ume_qdrant import index
from ume_retrieval import InputError, ReasoningEmbedder
from ume_retrieval.errors import RemoteNotAllowed
from ume_retrieval.testing import FakeReasoner, HashEmbedder


@pytest.fixture
def red(tmp_path: Path) -> Path:
    return picture(tmp_path / "red.png", RED)


@pytest.fixture
def store(tmp_path: Path) -> UmeVectorStore:
    embedding = UmeEmbedding(embedder=ReasoningEmbedder(HashEmbedder(), FakeReasoner()), cache=None, strict=True)
    return UmeVectorStore.open(tmp_path / "vectors", "pictures", embedding)


def encoded(path: Path) -> str:
    return base64.b64encode(path.read_bytes()).decode()


KINDS: dict[str, Callable[[Path], BaseNode]] = {
    "node with a path": lambda path: ImageNode(id_="a", image_path=str(path), metadata={"owner": "ann"}),
    "node with a file address": lambda path: ImageNode(id_="a", image_url=path.as_uri(), metadata={"owner": "ann"}),
    "node with base64": lambda path: ImageNode(id_="a", image=encoded(path), metadata={"owner": "ann"}),
    "document with a path": lambda path: ImageDocument(id_="a", image_path=str(path), metadata={"owner": "ann"}),
    "document with base64": lambda path: ImageDocument(id_="a", image=encoded(path), metadata={"owner": "ann"}),
    "multimodal node": lambda path: Node(
        id_="a",
        text_resource=MediaResource(text="a sign"),
        image_resource=MediaResource(path=path),
        metadata={"owner": "ann"},
    ),
}


@pytest.mark.parametrize("kind", KINDS)
def test_images_are_embedded_stored_and_retrieved(store: UmeVectorStore, red: Path, kind: str) -> None:
    node = KINDS[kind](red)
    embedding = store._embedding
    IngestionPipeline(transformations=[embedding], vector_store=store).run(
        nodes=[node, ImageNode(id_="b", image_path=str(picture(red.parent / "blue.png", BLUE)))]
    )
    [point] = [point for point in store.client.scroll() if point.payload.get("meta", {}).get("owner") == "ann"]
    assert (point.payload["kind"], point.payload["reasoning"]) == ("image", "done")
    best = UmeRetriever(embedding, store).retrieve("red")[0].node
    assert (best.node_id, best.metadata["owner"], best.metadata["answer"] != "") == ("a", "ann", True)
    assert any(getattr(best, name, None) for name in ("image", "image_path", "image_url", "image_resource"))
    store.delete_nodes(["a"])
    assert store.client.count() == 1


def test_images_without_reasoning_are_queued_if_they_have_a_file(store: UmeVectorStore, red: Path) -> None:
    plain = UmeEmbedding(embedder=store._embedding.embedder, reasoning="never", cache=None)
    nodes = [ImageNode(id_="file", image_path=str(red)), ImageNode(id_="memory", image=encoded(red))]
    store.add(plain(nodes))
    states = {point.payload["doc_id"]: point.payload["reasoning"] for point in store.client.scroll()}
    assert set(states.values()) == {"later", "never"}
    report = store.enrich()
    assert (report.enriched, report.remaining, report.failed) == (1, 0, ())


def test_indexing_their_folder_leaves_nodes_alone(store: UmeVectorStore, red: Path) -> None:
    store.add(store._embedding([ImageNode(id_="a", image_path=str(red))]))
    index(store._embedding.embedder, store.client, red)
    assert (store.client.count(), len(store.get_nodes(["a"]))) == (2, 1)


def test_images_that_cannot_be_read_are_typed_errors(store: UmeVectorStore) -> None:
    with pytest.raises(InputError, match="not base64"):
        store._embedding([ImageNode(image="§")])
    with pytest.raises(RemoteNotAllowed):
        store._embedding([ImageNode(image_url="https://example.org/a.png")])
