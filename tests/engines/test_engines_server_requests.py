"""What travels to a server, in which order, and how much at a time."""

from __future__ import annotations

import time
from typing import Any

import PIL.Image
import pytest
from server_stub import (
    EMBED_RL,
    GREEDY,
    INFO,
    Reply,
    Stub,
    clip,
    completion,
    connect,
    embedding,
    reasoner_on,
    reply,
    said,
    words,
)

from ume_retrieval import Embedder, EmbedderSpec, InputError, Reasoner, Sampling
from ume_retrieval.chat import Chat, ImagePart, Message, TextPart, VideoPart
from ume_retrieval.engines.base import chat_seeds
from ume_retrieval.engines.server.embedder import ServerEmbedder
from ume_retrieval.errors import IncompatibleModel
from ume_retrieval.tcot import pattern

# Order, and no more at a time than was asked for.


def test_answers_come_in_order_and_requests_stay_bounded(stub: Stub, naps: list[float]) -> None:
    def slow(path: str, body: dict[str, Any]) -> Reply:
        time.sleep(0.05 if said(body).endswith("0") else 0.01)
        return reply(completion(said(body)))

    reasoner = reasoner_on(stub, naps, concurrency=4)
    stub.answer = slow
    texts = [f"chat {number}" for number in range(24)]
    assert [one.text for one in reasoner.generate([words(text) for text in texts], GREEDY)] == texts
    assert 2 <= stub.busiest <= 4


def test_no_chats_ask_nothing(stub: Stub, naps: list[float]) -> None:
    reasoner = reasoner_on(stub, naps)
    assert reasoner.generate([], GREEDY) == []
    assert stub.posted() == []


# What travels.


def test_requests_carry_pixels_times_and_form_to_vllm(stub: Stub, naps: list[float]) -> None:
    reasoner = reasoner_on(stub, naps)
    chat: Chat = (Message("user", (ImagePart(PIL.Image.new("RGB", (40, 33), "red")), TextPart("hi"))),)
    moving: Chat = (Message("user", (VideoPart(clip(1.0, 2.5)), TextPart("hi"))),)
    sampling = Sampling(max_tokens=8, temperature=0.5, top_p=0.9, seed=3, response_format="tcot")
    reasoner.generate([chat], sampling)
    reasoner.generate([moving], sampling)
    still, video = stub.posted()
    assert isinstance(reasoner, Reasoner)
    assert still["model"] == "one"
    assert (still["max_tokens"], still["temperature"], still["top_p"]) == (8, 0.5, 0.9)
    assert still["seed"] == chat_seeds([chat], 3, pictures=True)[0]
    assert still["structured_outputs"] == {"regex": pattern("image")}
    assert still["mm_processor_kwargs"]["images_kwargs"] == {"do_resize": False}
    assert still["messages"][0]["content"][0]["image_url"]["url"].startswith("data:image/png;base64,")
    assert video["structured_outputs"] == {"regex": pattern("video", frames=2)}
    assert video["media_io_kwargs"]["video"]["frames_indices"] == [0, 1500]
    assert video["messages"][0]["content"][0]["video_url"]["url"].count(",") == 2


def test_a_plain_server_gets_standard_fields_and_frames_as_pictures(stub: Stub, naps: list[float]) -> None:
    stub.owner = "someone"
    reasoner = reasoner_on(stub, naps)
    reasoner.generate([(Message("user", (VideoPart(clip(1.0, 2.5)), TextPart("hi"))),)], GREEDY)
    (body,) = stub.posted()
    assert body.keys() == {"model", "messages", "max_tokens", "temperature", "top_p"}
    assert [part["type"] for part in body["messages"][0]["content"]] == ["text", "image_url"] * 2 + ["text"]
    assert body["messages"][0]["content"][2]["text"] == "<1.5 seconds>"
    assert reasoner.response_format == "free"
    with pytest.raises(InputError, match="form"):
        reasoner.generate([words("hi")], Sampling(response_format="tcot"))


def test_a_cut_reply_says_so(stub: Stub, naps: list[float]) -> None:
    reasoner = reasoner_on(stub, naps)
    stub.answer = lambda path, body: reply(completion("cut", "length"))
    assert reasoner.generate([words("hi")], GREEDY)[0].finish == "length"


def test_two_videos_with_different_times_are_refused(stub: Stub, naps: list[float]) -> None:
    reasoner = reasoner_on(stub, naps)
    videos: Chat = (Message("user", (VideoPart(clip(0.0, 1.0)), VideoPart(clip(0.0, 2.0)))),)
    with pytest.raises(InputError, match="one video"):
        reasoner.generate([videos], GREEDY)


def test_an_embedders_request_ends_where_it_is_pooled(stub: Stub, naps: list[float]) -> None:
    stub.answer = lambda path, body: reply(embedding(0.0, 2.0))
    embedder = ServerEmbedder(connect(stub, naps), info=INFO, spec=EMBED_RL)
    assert isinstance(embedder, Embedder)
    assert embedder.dimension == 2
    (probe,) = stub.posted()
    assert (probe["continue_final_message"], probe["add_generation_prompt"]) == (True, False)
    assert probe["messages"][-1] == {"role": "assistant", "content": [{"type": "text", "text": "<emb>"}]}
    with pytest.raises(IncompatibleModel, match="<emb>"):
        embedder.embed([words("no place to pool")])
    qwen = EMBED_RL.model_copy(update={"family": "qwen3-vl-embedding"})
    ServerEmbedder(connect(stub, naps), info=INFO, spec=qwen)
    assert (stub.posted()[-1]["continue_final_message"], stub.posted()[-1]["add_generation_prompt"]) == (False, True)
    assert embedder.embed([]).vectors.shape == (0, 2)


def test_a_family_that_pools_elsewhere_is_refused(stub: Stub, naps: list[float]) -> None:
    with pytest.raises(IncompatibleModel, match="last token"):
        ServerEmbedder(connect(stub, naps), info=INFO, spec=EmbedderSpec(family="sentence-transformers"))
