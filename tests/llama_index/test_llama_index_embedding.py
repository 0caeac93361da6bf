"""`UmeEmbedding`: sides, modalities, batches, events, serialisation, what it refuses."""

from __future__ import annotations

import asyncio
import json
import logging
import pickle
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from llama_index.core.callbacks import CallbackManager, CBEventType, LlamaDebugHandler
from llama_index.core.ingestion import IngestionPipeline
from llama_index.core.instrumentation.events.embedding import EmbeddingEndEvent, EmbeddingStartEvent
from llama_index.core.schema import ImageNode, MediaResource, Node, TextNode
from llama_index.core.storage.kvstore import SimpleKVStore
from llama_world import embedding, listening, models
from small_media import BLUE, GREEN, RED, clip, picture

from ume_llama_index import LeftOutEvent, UmeEmbedding, UmeReader
from ume_retrieval import Clip, InputError, Item, Prompts, ReasonerSpec, ReasoningEmbedder
from ume_retrieval.errors import IncompatibleModel, MediaNotFound, RemoteNotAllowed
from ume_retrieval.testing import SMALL_BUDGET, FakeReasoner, fake_embedder


def near(one: Any, other: Any) -> None:
    np.testing.assert_allclose(np.asarray(one), np.asarray(other), atol=1e-6)


def two_sided() -> ReasoningEmbedder:
    """Models whose traces say which side they were asked for, so that a mix-up shows in the vectors."""
    fields = Prompts.model_fields.keys() - {"version"}
    prompts = Prompts(version="sides", **{name: f"{name.partition('_')[0]} {{text}}" for name in fields})
    return fake_embedder(reasoner=FakeReasoner(spec=ReasonerSpec(prompts=prompts, budget=SMALL_BUDGET)))


def test_queries_and_documents_go_through_their_own_side(tmp_path: Path) -> None:
    made, fresh = UmeEmbedding(embedder=two_sided()), two_sided()
    image, film = picture(tmp_path / "a.png", RED), clip(tmp_path / "a.mp4", 2, BLUE)
    mixed = Item(text="now in green", images=(image,))
    assert np.abs(fresh.encode_query(mixed) - fresh.encode_corpus(mixed)).max() > 0.01
    near(made.get_query_embedding("red"), fresh.encode_query("red"))
    near(made.get_agg_embedding_from_queries(["red"]), fresh.encode_query("red"))
    near(made.get_text_embedding("red"), fresh.encode_corpus("red"))
    near(made.get_text_embedding_batch(["red", "blue"]), fresh.encode_corpus(["red", "blue"]))
    near(made.get_image_embedding(str(image)), fresh.encode_corpus(Item(images=(image,))))
    near(made.get_image_embedding(BytesIO(image.read_bytes())), fresh.encode_corpus(Item(images=(image,))))
    near(made.get_video_embedding(film), fresh.encode_corpus(Item(videos=(film,))))
    near(made.get_image_query_embedding(str(image)), fresh.encode_query(Item(images=(image,))))
    near(made.get_image_query_embedding(str(image), "now in green"), fresh.encode_query(mixed))
    near(made.get_item_query_embedding(mixed), fresh.encode_query(mixed))


async def test_async_gives_the_same(tmp_path: Path) -> None:
    made = embedding(embed_batch_size=2)
    image, film = picture(tmp_path / "a.png", RED), clip(tmp_path / "a.mp4", 2, BLUE)
    images = [str(image), str(picture(tmp_path / "b.png", GREEN)), str(image)]
    near(await made.aget_query_embedding("red"), made.get_query_embedding("red"))
    near(await made.aget_text_embedding_batch(["a", "b", "c"]), made.get_text_embedding_batch(["a", "b", "c"]))
    near(await made.aget_image_embedding(str(image)), made.get_image_embedding(str(image)))
    near(await made.aget_image_embedding_batch(images), made.get_image_embedding_batch(images))
    near(await made.aget_video_embedding(film), made.get_video_embedding(film))
    near(await made.aget_image_query_embedding(str(image), "x"), made.get_image_query_embedding(str(image), "x"))
    nodes = [TextNode(text="a"), ImageNode(image_path=str(image))]
    twins = [TextNode(text="a"), ImageNode(image_path=str(image))]
    near([n.embedding for n in await made.acall(nodes)], [n.embedding for n in made(twins)])


def test_batches_are_bounded(tmp_path: Path) -> None:
    made = embedding(embed_batch_size=2)
    sizes: list[int] = []
    encode = made.embedder.encode_corpus
    made.embedder.encode_corpus = lambda rows, **kw: (sizes.append(len(rows)), encode(rows, **kw))[1]  # type: ignore[method-assign]
    made.get_item_embedding_batch(["a", "b", "c"])
    made.get_text_embedding_batch(["a", "b", "c"])
    made([TextNode(text=word) for word in "abcde"])
    assert sizes == [2, 1, 2, 1, 2, 2, 1]


def test_nodes_are_routed_by_what_they_hold(tmp_path: Path) -> None:
    image, film = picture(tmp_path / "a.png", RED), clip(tmp_path / "a.mp4", 20, GREEN, BLUE)
    nodes = [
        TextNode(text="red", metadata={"topic": "colour"}),
        ImageNode(image_path=str(image)),
        ImageNode(image=MediaResource(data=image.read_bytes()).data.decode()),
        Node(image_resource=MediaResource(path=image), text_resource=MediaResource(text="a caption")),
        Node(image_resource=MediaResource(data=image.read_bytes())),
        Node(video_resource=MediaResource(path=film)),
        *UmeReader().load_data(film),
    ]
    [*done] = embedding()(nodes)
    items: list[Any] = [
        "topic: colour\n\nred",
        Item(images=(image,)),
        Item(images=(image,)),
        Item(text="a caption", images=(image,)),
        Item(images=(image,)),
        Item(videos=(film,)),
        Item(videos=(Clip(film, 0.0, 16.0),)),
        Item(videos=(Clip(film, 4.0, 20.0),)),
    ]
    near([node.embedding for node in done], models().encode_corpus(items))


def test_reasoning_is_noted_out_of_sight() -> None:
    node = TextNode(text="the last train home", metadata={"topic": "trains"})
    before = node.get_content("all")
    [done] = embedding()([node])
    assert json.loads(done.metadata["trace"])["keywords"] == ["topic", "trains", "the", "last", "train", "home"]
    assert done.get_content("embed") == done.get_content("llm") == before
    [direct] = embedding(reasoning="never")([TextNode(text="x y z")])
    assert direct.metadata == {}


def test_a_bad_node_is_left_out_and_reported(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    nodes = [
        TextNode(text="good"),
        ImageNode(id_="gone", image_path=str(tmp_path / "gone.png")),
        ImageNode(id_="far", image_url="https://user:secret@example.org/a.png"),
        Node(id_="sound", audio_resource=MediaResource(data=b"x")),
        Node(id_="film", video_resource=MediaResource(data=b"x")),
        TextNode(id_="empty"),
        TextNode(text="good too"),
    ]
    with listening() as ear, caplog.at_level(logging.WARNING):
        done = embedding(embed_batch_size=3)(nodes)
    assert [node.text for node in done] == ["good", "good too"]
    [event] = ear.of(LeftOutEvent)
    named = {failure["source"]: failure["error"] for failure in event.failures}
    assert named == {
        "gone": "media_not_found",
        "far": "remote_not_allowed",
        "sound": "invalid_input",
        "film": "invalid_input",
        "empty": "invalid_input",
    }
    assert "secret" not in caplog.text
    assert "gone" in caplog.text
    with pytest.raises(MediaNotFound):
        embedding(strict=True)(nodes[:2])
    with pytest.raises(RemoteNotAllowed):
        embedding().get_image_embedding("https://example.org/a.png")


@pytest.mark.parametrize("size", [1, 2, 3, 10])
async def test_nodes_left_out_are_named_by_their_positions(tmp_path: Path, size: int) -> None:
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"\x89PNG\r\n\x1a\nxx")
    nodes = [TextNode(text=f"text {position}") for position in range(6)]
    nodes[1] = TextNode(text="   ")
    for position in (0, 4):
        nodes[position] = ImageNode(image_path=str(broken))
    made = embedding(embed_batch_size=size)
    with listening() as ear:
        made(nodes)
        await made.acall(nodes)
    events = ear.of(LeftOutEvent)
    wanted = [(0, "broken_media"), (1, "invalid_input"), (4, "broken_media")]
    assert [[(f["index"], f["error"]) for f in event.failures] for event in events] == [wanted, wanted]


def test_events_for_media_too(tmp_path: Path) -> None:
    image, film = picture(tmp_path / "a.png", RED), clip(tmp_path / "a.mp4", 2, BLUE)
    handler = LlamaDebugHandler(print_trace_on_end=False)
    made = embedding(callback_manager=CallbackManager([handler]))
    with listening() as ear:
        made.get_image_embedding(str(image))
        made.get_video_embedding(film)
        made.get_image_query_embedding(str(image), "words")
        made([ImageNode(image_path=str(image))])
        asyncio.run(made.aget_image_embedding_batch([str(image)]))
    starts, ends = ear.of(EmbeddingStartEvent), ear.of(EmbeddingEndEvent)
    assert len(starts) == len(ends) == 5
    assert all(len(event.chunks) == len(event.embeddings) == 1 for event in ends)
    assert f"image {image}" in ends[0].chunks[0]
    assert "words" in ends[2].chunks[0]
    assert len(handler.get_event_pairs(CBEventType.EMBEDDING)) == 5


def test_serialisation_holds_names_and_no_secret(tmp_path: Path) -> None:
    made = UmeEmbedding("ume-tiny", cache=tmp_path / "traces.sqlite3", embed_batch_size=3, device="cpu")
    said = made.to_payload()
    assert said["model_name"] == "ume-tiny/embedder"
    assert (said["reasoner"], said["reasoning"], said["dimension"]) == ("ume-tiny/reasoner", "always", made.dimension)
    assert str(tmp_path) not in json.dumps(made.to_dict())
    again = UmeEmbedding.from_dict(made.to_dict())
    assert again.to_dict() == made.to_dict()
    near(again.get_query_embedding("red circle"), made.get_query_embedding("red circle"))
    with pytest.raises(IncompatibleModel, match="these vectors were made with ume-tiny@other"):
        UmeEmbedding.from_dict({**made.to_dict(), "weights": "ume-tiny@other"})


def test_embeddings_cache_is_refused_naming_ours() -> None:
    with pytest.raises(InputError, match="vector of a document") as caught:
        embedding(embeddings_cache=SimpleKVStore())
    assert "TraceCache" in caught.value.hint
    with pytest.raises(InputError):
        embedding().embeddings_cache = SimpleKVStore()


def test_reasoning_needs_a_reasoner() -> None:
    bare = fake_embedder(reasoner=None)
    assert UmeEmbedding(embedder=bare).reasoning == "never"
    with pytest.raises(InputError, match="no Reasoner"):
        UmeEmbedding(embedder=bare, reasoning="always")


def test_truncated_vectors(tmp_path: Path) -> None:
    made = embedding(truncate_dim=16)
    assert made.dimension == 16
    assert len(made.get_query_embedding("red")) == 16
    [node] = made([ImageNode(image_path=str(picture(tmp_path / "a.png", RED)))])
    assert np.linalg.norm(node.embedding) == pytest.approx(1)


def test_a_pipeline_runs_over_mixed_nodes_and_remembers(tmp_path: Path) -> None:
    picture(tmp_path / "a.png", RED)
    picture(tmp_path / "b.png", BLUE)
    (tmp_path / "c.txt").write_text("words")
    made = embedding()
    pipeline = IngestionPipeline(transformations=[made])
    first = pipeline.run(documents=UmeReader().load_data(tmp_path))
    calls = made.embedder.embedder.calls  # type: ignore[attr-defined]
    second = pipeline.run(documents=UmeReader().load_data(tmp_path))
    assert made.embedder.embedder.calls == calls  # type: ignore[attr-defined]
    near([node.embedding for node in first], [node.embedding for node in second])
    assert len({tuple(node.embedding) for node in first}) == 3


def test_it_travels_to_another_process() -> None:
    made = UmeEmbedding("ume-tiny", cache=None)
    again = pickle.loads(pickle.dumps(made))  # noqa: S301  # our own bytes
    assert again.to_dict() == made.to_dict()
    near(again.get_query_embedding("red circle"), made.get_query_embedding("red circle"))


def test_models_in_hand_are_not_taken_for_names() -> None:
    made = embedding()
    with pytest.raises(InputError, match="in hand"):
        pickle.dumps(made)
    with pytest.raises(InputError, match="in hand"):
        UmeEmbedding.from_dict(made.to_dict())
    named = UmeEmbedding("ume-tiny", reasoning="never")
    for again in (pickle.loads(pickle.dumps(named)), UmeEmbedding.from_dict(named.to_dict())):  # noqa: S301  # our own
        assert again.get_query_embedding("red") == pytest.approx(named.get_query_embedding("red"))
