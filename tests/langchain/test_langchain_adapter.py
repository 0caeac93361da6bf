"""LangChain's own classes over the bundled pair and a collection of pictures, a film, a page and texts."""

from __future__ import annotations

import asyncio
import json
import random
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("langchain_core")

from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.documents import Document
from langchain_core.runnables import RunnableLambda
from langchain_core.vectorstores import InMemoryVectorStore

from ume_langchain import UmeEmbeddings, UmeRetriever
from ume_qdrant import ClientStore, Filter, Store, index, open_store, search
from ume_retrieval import InputError, Item, MissingExtra, ReasoningEmbedder
from ume_retrieval.errors import CollectionNotFound
from ume_training.shapes.draw import draw_scene, write_clip, write_pages
from ume_training.shapes.world import Clip, Look, Page, Row, Scene, Thing

WANTED = "find image: red circle top left, blue cross middle right"
CHANGE = "change the red circle to a green circle"


@pytest.fixture(scope="module")
def embedder() -> ReasoningEmbedder:
    return ReasoningEmbedder.from_pretrained("ume-tiny", cache=None)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("world")
    rng = random.Random(1)
    for colour in ("red", "green", "yellow"):
        things = (Thing(Look(colour, "circle"), 0), Thing(Look("blue", "cross"), 5))
        draw_scene(Scene(things), rng).save(folder / f"{colour}.png")
    guest = Thing(Look("red", "square"), 8)
    write_clip([Clip(Look("green", "triangle"), "down", 0, guest, 3)], folder / "film.mp4")
    write_pages([Page(tuple(Row(Look(c, "cross"), 4) for c in ("blue", "red", "green")))], folder / "stock.pdf")
    (folder / "note.txt").write_text("yellow square bottom left", encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def store(embedder: ReasoningEmbedder, world: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    with open_store(tmp_path_factory.mktemp("vectors"), "world") as opened:
        assert not index(embedder, opened, world, reasoning="always").failed
        yield opened


@pytest.fixture(scope="module")
def retriever(embedder: ReasoningEmbedder, store: Store) -> UmeRetriever:
    return UmeRetriever(embedder=embedder, store=store, search_kwargs={"limit": 3})


def names(documents: list[Document]) -> list[str]:
    return [Path(document.metadata["source"]).name for document in documents]


def test_words_pictures_and_both_find_what_search_finds(
    retriever: UmeRetriever, embedder: ReasoningEmbedder, store: Store, world: Path
) -> None:
    picture = world / "red.png"
    queries: list[tuple[str | Item, str]] = [
        (WANTED, "red.png"),
        (Item(images=(picture,)), "red.png"),
        (Item(text=CHANGE, images=(picture,)), "green.png"),
        (Item(videos=(world / "film.mp4",)), "film.mp4"),
    ]
    for query, name in queries:
        found = retriever.invoke(query)
        assert names(found)[0] == name
        assert [one.id for one in found] == [hit.point_id for hit in search(embedder, store, query, limit=3).hits]


def test_a_document_carries_its_evidence_as_json(retriever: UmeRetriever) -> None:
    [best] = retriever.invoke(WANTED, limit=1)
    assert best.page_content == best.metadata["answer"] == "red circle top left, blue cross middle right"
    assert best.metadata["boxes"] == [[40, 40, 293, 293], [707, 373, 960, 627]]
    assert json.loads(json.dumps(best.metadata)) == best.metadata
    [film] = retriever.invoke("find moment: green triangle moves down left, red square", limit=1)
    assert (film.metadata["kind"], film.metadata["start_s"]) == ("video", 0)
    assert film.metadata["key_frames"][0]["time_s"] is not None
    [note] = retriever.invoke("yellow square bottom left", where=Filter(kinds=("text",)))
    assert note.page_content == "yellow square bottom left"


def test_it_is_a_step_of_a_chain_and_is_heard(retriever: UmeRetriever, world: Path) -> None:
    class Ear(BaseCallbackHandler):
        heard: list[Any] = []  # noqa: RUF012  # one instance

        def on_retriever_start(self, serialized: Any, query: Any, **_: Any) -> None:
            self.heard.append(query)

        def on_retriever_end(self, documents: Any, **_: Any) -> None:
            self.heard.append(len(documents))

    chain = retriever | RunnableLambda(names)
    query = Item(text=CHANGE, images=(world / "red.png",))
    ear = Ear()
    assert chain.invoke(query, {"callbacks": [ear]})[0] == "green.png"
    assert ear.heard == [query, 3]
    assert len(retriever.batch([WANTED, "find page with blue cross 4"])) == 2


async def test_awaited_queries_give_the_same_and_leave_the_event_loop_free(retriever: UmeRetriever) -> None:
    ticks = 0

    async def tick() -> None:
        nonlocal ticks
        while True:
            await asyncio.sleep(0.005)
            ticks += 1

    ticking = asyncio.create_task(tick())
    found = await asyncio.gather(*(retriever.ainvoke(WANTED) for _ in range(8)))
    ticking.cancel()
    assert {tuple(names(documents)) for documents in found} == {tuple(names(retriever.invoke(WANTED)))}
    assert ticks > 0
    events = [event["event"] async for event in retriever.astream_events(WANTED, version="v2")]
    assert events[0] == "on_retriever_start"


def test_errors_come_through_as_they_are(embedder: ReasoningEmbedder, tmp_path: Path) -> None:
    with open_store(tmp_path, "missing") as empty, pytest.raises(CollectionNotFound):
        UmeRetriever(embedder=embedder, store=empty).invoke(WANTED)


def test_the_embedding_works_in_langchains_own_store(embedder: ReasoningEmbedder) -> None:
    texts = ["red circle top left, blue cross middle right", "yellow square bottom left"]
    vectors = InMemoryVectorStore.from_texts(texts, UmeEmbeddings(embedder))
    assert vectors.similarity_search(WANTED, k=1)[0].page_content == texts[0]
    plain = UmeEmbeddings(embedder, reasoning="never").embed_query(WANTED)
    assert plain == pytest.approx(embedder.encode_query(WANTED, reasoning="never").tolist())


def test_langchains_qdrant_store_reads_a_collection_without_its_evidence(
    embedder: ReasoningEmbedder, world: Path
) -> None:
    langchain_qdrant = pytest.importorskip("langchain_qdrant")
    from qdrant_client import QdrantClient

    client = QdrantClient(":memory:")
    index(embedder, ClientStore(client, "world"), world, reasoning="always")
    vectors = langchain_qdrant.QdrantVectorStore(
        client,
        "world",
        UmeEmbeddings(embedder, reasoning="never"),
        vector_name="direct",
        content_payload_key="text",
    )
    [found] = vectors.similarity_search(WANTED, k=1)
    assert found.page_content == "red circle top left, blue cross middle right"
    assert set(found.metadata) == {"_id", "_collection_name"}  # why `UmeRetriever` is there
    client.close()


def test_what_is_missing_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.partition(".")[0] in {"langchain_core", "ume_langchain"}]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "langchain_core", None)
    with pytest.raises(MissingExtra, match="LangChain") as caught:
        __import__("ume_langchain")
    assert caught.value.hint == "pip install 'ume-retrieval[langchain]'"


def test_options_of_a_call_count_when_it_is_awaited_too(retriever: UmeRetriever) -> None:
    assert len(asyncio.run(retriever.ainvoke(WANTED, limit=1))) == 1
    assert asyncio.run(retriever.ainvoke(WANTED)) == retriever.invoke(WANTED)


def test_unknown_options_are_refused(embedder: ReasoningEmbedder, store: Store) -> None:
    with pytest.raises(ValueError, match="limit"):
        UmeRetriever(embedder=embedder, store=store, limit=2)  # type: ignore[call-arg]
    with pytest.raises(InputError, match="takes no k"):
        UmeRetriever(embedder=embedder, store=store, search_kwargs={"k": 4}).invoke(WANTED)
