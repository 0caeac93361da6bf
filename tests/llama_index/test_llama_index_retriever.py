"""`UmeRetriever`: what goes in, what comes out, over which stores."""

from __future__ import annotations

from pathlib import Path

import PIL.Image
import pytest
from llama_index.core import VectorStoreIndex
from llama_index.core.ingestion import IngestionPipeline
from llama_index.core.instrumentation.events.retrieval import RetrievalEndEvent
from llama_index.core.schema import MetadataMode, Node, QueryBundle, TextNode
from llama_index.core.vector_stores import (
    FilterOperator,
    MetadataFilter,
    MetadataFilters,
    SimpleVectorStore,
)
from llama_index.vector_stores.qdrant import QdrantVectorStore
from llama_world import embedding, fill, listening, names
from qdrant_client import QdrantClient
from small_media import BLUE, GREEN, RED, clip, picture

from ume_llama_index import MediaQuery, QueryReasonedEvent, UmeReader, UmeRetriever, UmeVectorStore
from ume_llama_index.filters import filter_of
from ume_qdrant import EdgeStore, Filter, index
from ume_retrieval import Clip, InputError
from ume_retrieval.errors import CollectionNotFound, StoreMismatch


@pytest.fixture
def store(tmp_path: Path) -> EdgeStore:
    made = EdgeStore(tmp_path / "vectors", "things")
    index(embedding().embedder, made, fill(tmp_path / "things"), reasoning="always")
    return made


def test_text_image_video_and_mixed_queries(store: EdgeStore, tmp_path: Path) -> None:
    retriever = UmeRetriever(embedding(), store)
    assert names(retriever.retrieve("train home"))[0] == "notes.txt"
    green, film = picture(tmp_path / "q.png", GREEN), clip(tmp_path / "q.mp4", 4, BLUE)
    assert names(retriever.retrieve(QueryBundle("", image_path=str(green))))[0] == "green.png"
    assert names(retriever.retrieve(MediaQuery(images=[green])))[0] == "green.png"
    [video, *_] = retriever.retrieve(MediaQuery(videos=[film]))
    assert (Path(video.metadata["source"]).name, video.metadata["start_s"]) == ("clip.mp4", pytest.approx(4, abs=0.6))
    stretch = MediaQuery(videos=[Clip(tmp_path / "things" / "clip.mp4", 12.0, 18.0)])
    assert names(retriever.retrieve(stretch))[0] == "clip.mp4"
    mixed = retriever.retrieve(QueryBundle("the last train home is green", image_path=str(green)))
    assert names(mixed)[0] == "green.png"
    words = retriever.retrieve(MediaQuery("the last train home", images=[green]))
    scores = {Path(node.metadata["source"]).name: node.score for node in words}
    alone = {Path(n.metadata["source"]).name: n.score for n in retriever.retrieve(MediaQuery(images=[green]))}
    assert scores["notes.txt"] > alone["notes.txt"], "the words of a mixed query count"
    transformed = QueryBundle("zzz", custom_embedding_strs=["the last", "train home"])
    assert names(retriever.retrieve(transformed))[0] == "notes.txt"
    with pytest.raises(InputError, match="empty"):
        retriever.retrieve("  ")


def test_nodes_bring_their_evidence_and_media(store: EdgeStore) -> None:
    nodes = {Path(n.metadata["source"]).name: n.node for n in UmeRetriever(embedding(), store).retrieve("red")}
    image, video, page, text = (nodes[n] for n in ("red.png", "clip.mp4", "report.pdf", "notes.txt"))
    assert isinstance(image, Node)
    assert image.image_resource is not None
    assert image.metadata["answer"] == "red"
    [box] = image.metadata["boxes"]
    assert 0 <= box["x1"] < box["x2"] <= 1000
    assert box["image"] == 0
    assert isinstance(video, Node)
    assert video.video_resource is not None
    [frame] = video.metadata["key_frames"]
    assert video.metadata["start_s"] <= frame["time_s"] < video.metadata["end_s"]
    assert page.metadata["page"] in (1, 2)
    assert text.get_content() == "the last train home"
    assert text.metadata["keywords"] == ["the", "last", "train", "home"]
    assert image.metadata["tcot"].startswith("<thinking>")


def test_evidence_is_shown_to_or_kept_from_the_model(store: EdgeStore) -> None:
    def read(**settings: object) -> str:
        found = UmeRetriever(embedding(), store, **settings).retrieve("red")  # type: ignore[arg-type]
        [node] = [one.node for one in found if one.metadata["source"].endswith("red.png")]
        assert node.get_content(MetadataMode.EMBED).strip() == ""
        return node.get_content(MetadataMode.LLM)

    usual = read()
    assert "answer: red" in usual
    assert "red.png" in usual
    assert not any(word in usual for word in ("tcot", "boxes", "digest", "mtime", "trace", "kind"))
    assert read(shown=()) == ""
    wide = read(shown=("answer", "boxes", "tcot"))
    assert "boxes: [{" in wide
    assert "<thinking>" in wide
    assert "source" not in wide


def test_grouping_filters_and_modes(store: EdgeStore) -> None:
    def found(**settings: object) -> list[str]:
        return names(UmeRetriever(embedding(), store, **settings).retrieve("red"))  # type: ignore[arg-type]

    assert sorted(found(group_by="source")) == ["clip.mp4", "green.png", "notes.txt", "red.png", "report.pdf"]
    assert len(found()) == 7
    assert len(found(similarity_top_k=2)) == 2
    assert found(where=Filter(kinds=("page",))) == 2 * ["report.pdf"]
    pages = MetadataFilters(
        filters=[MetadataFilter(key="kind", value="page"), MetadataFilter(key="page", value=[2], operator="in")]
    )
    [second] = UmeRetriever(embedding(), store, filters=pages).retrieve("red")
    assert second.metadata["page"] == 2
    late = MetadataFilters(filters=[MetadataFilter(key="end_s", value=17.0, operator=">")])
    assert found(filters=late) == ["clip.mp4"]
    direct, reasoned = (
        [n.score for n in UmeRetriever(embedding(), store, mode=mode).retrieve("train")]  # type: ignore[arg-type]
        for mode in ("direct", "reasoned")
    )
    assert direct != reasoned
    assert found(diversity=0.9) != found(diversity=0.0)


def test_filters_that_cannot_be_expressed() -> None:
    deep = MetadataFilters(filters=[MetadataFilter(key="page", value=1)])
    for _ in range(40):
        deep = MetadataFilters(filters=[deep])
    for one in (
        MetadataFilter(key="end_s", value="x", operator=">"),
        MetadataFilter(key="owner", value=None),
        MetadataFilter(key="owner", value="x", operator=">"),
        MetadataFilter(key="owner", value=1, operator=FilterOperator.TEXT_MATCH),
        MetadataFilter(key="owner[0]", value=1),
        MetadataFilter(key="kind", value="sound"),
        deep,
    ):
        with pytest.raises(InputError):
            filter_of(MetadataFilters(filters=[one]))
    assert filter_of(None) is None
    time = [
        MetadataFilter(key="start_s", value=20, operator="<"),
        MetadataFilter(key="end_s", value=10, operator=">"),
    ]
    assert filter_of(MetadataFilters(filters=time)) == Filter(time=(10.0, 20.0))


def test_the_query_is_reasoned_over_and_said(store: EdgeStore) -> None:
    with listening() as ear:
        UmeRetriever(embedding(), store).retrieve("train home")
    [event] = ear.of(QueryReasonedEvent)
    assert event.answer == "train home"
    assert len(ear.of(RetrievalEndEvent)) == 1
    with listening() as ear:
        UmeRetriever(embedding(reasoning="never"), store).retrieve("train home")
    assert not ear.of(QueryReasonedEvent)


async def test_async_finds_the_same(store: EdgeStore, tmp_path: Path) -> None:
    retriever = UmeRetriever(embedding(), store)
    query = QueryBundle("red", image_path=str(picture(tmp_path / "q.png", GREEN)))
    assert names(await retriever.aretrieve(query)) == names(retriever.retrieve(query))


def test_over_a_collection_that_llama_index_made(tmp_path: Path) -> None:
    made = embedding()
    client = QdrantClient(":memory:")
    plain = QdrantVectorStore("theirs", client=client, index_doc_id=False)
    pipeline = IngestionPipeline(transformations=[made], vector_store=plain)
    pipeline.run(documents=UmeReader().load_data(fill(tmp_path / "things")))
    retriever = UmeRetriever(made, plain, similarity_top_k=5)
    like = picture(tmp_path / "q.png", RED)
    found = retriever.retrieve(QueryBundle("", image_path=str(like)))
    assert names(found)[0] == "red.png"
    assert len(found) == 5
    by_file = UmeRetriever(made, plain, similarity_top_k=5, group_by="source").retrieve("red")
    assert len(by_file) == len(set(names(by_file))) == 5
    assert found[0].metadata["answer"] == "red"
    assert isinstance(found[0].node, Node)
    assert found[0].node.image_resource is not None
    kinds = MetadataFilters(filters=[MetadataFilter(key="kind", value="video")])
    [video, _] = UmeRetriever(made, plain, filters=kinds).retrieve("green")
    assert isinstance(video.node, Node)
    assert video.node.video_resource is not None
    assert video.metadata["key_frames"]
    with pytest.raises(InputError, match="ume_qdrant"):
        UmeRetriever(made, plain, where=Filter(kinds=("video",))).retrieve("green")
    client.close()


def test_errors_are_ours(tmp_path: Path, store: EdgeStore) -> None:
    with pytest.raises(CollectionNotFound):
        UmeRetriever(embedding(), EdgeStore(tmp_path / "vectors", "nothing")).retrieve("x")
    client = QdrantClient(":memory:")
    with pytest.raises(CollectionNotFound):
        UmeRetriever(embedding(), QdrantVectorStore("nothing", client=client)).retrieve("x")
    client.close()
    from ume_llama_index import UmeEmbedding
    from ume_retrieval import ReasoningEmbedder
    from ume_retrieval.testing import HashEmbedder

    other = UmeEmbedding(embedder=ReasoningEmbedder(HashEmbedder(revision="2")))
    with pytest.raises(StoreMismatch):
        UmeRetriever(other, store).retrieve("x")


def test_a_store_of_llama_index_in_memory(tmp_path: Path) -> None:
    from llama_index.core import StorageContext, VectorStoreIndex

    made = embedding()
    nodes = made(UmeReader().load_data(fill(tmp_path / "things")))
    context = StorageContext.from_defaults(vector_store=SimpleVectorStore())
    made_index = VectorStoreIndex(nodes=nodes, storage_context=context, embed_model=made)
    assert len(made_index.docstore.docs) == 7
    assert names(made_index.as_retriever(similarity_top_k=1).retrieve("train home")) == ["notes.txt"]


def test_vector_store_as_given(tmp_path: Path) -> None:
    made = embedding()
    vectors = UmeVectorStore(EdgeStore(tmp_path / "v", "x"), made)
    vectors.add(made(UmeReader().load_data(picture(tmp_path / "a.png", RED))))
    assert names(UmeRetriever(made, vectors).retrieve("red")) == ["a.png"]


def test_a_store_of_vectors_alone_is_refused() -> None:
    made = embedding()
    kept = VectorStoreIndex(nodes=[TextNode(text="the last train home")], embed_model=made)
    with pytest.raises(InputError, match="without their nodes"):
        UmeRetriever(made, kept.vector_store).retrieve("train")


def test_a_query_takes_pictures_in_memory_and_refuses_a_lone_name(store: EdgeStore, tmp_path: Path) -> None:
    like = picture(tmp_path / "q.png", RED)
    retriever = UmeRetriever(embedding(), store)
    told = retriever.retrieve(MediaQuery(images=[like]))
    with PIL.Image.open(like) as opened:
        assert names(retriever.retrieve(MediaQuery(images=[opened.convert("RGB")]))) == names(told)
    assert names(retriever.retrieve(MediaQuery(images=[like.read_bytes()]))) == names(told)
    with pytest.raises(InputError, match="take lists"):
        retriever.retrieve(MediaQuery(images=str(like)))  # type: ignore[arg-type]
