"""Clients of OpenAI's API against the server: their own packages, unchanged."""

from __future__ import annotations

import base64
import io

import numpy as np
import openai
import PIL.Image
import pytest

from ume_retrieval import Item
from ume_retrieval.testing import fake_embedder

TEXTS = ["a red circle", "the last train home"]


@pytest.fixture
def client(base: str) -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{base}/v1", api_key="unused", max_retries=0)


def picture() -> tuple[PIL.Image.Image, str]:
    image, encoded = PIL.Image.new("RGB", (40, 40), "red"), io.BytesIO()
    image.save(encoded, "PNG")
    return image, f"data:image/png;base64,{base64.b64encode(encoded.getvalue()).decode()}"


def test_embeddings_are_the_librarys(client: openai.OpenAI) -> None:
    # The client asks for base64 by itself, unless told otherwise.
    for form in ({}, {"encoding_format": "float"}, {"encoding_format": "base64"}):
        made = client.embeddings.create(model="ume-tiny", input=TEXTS, **form)  # type: ignore[call-overload]
        rows = [one.embedding for one in made.data]
        if form.get("encoding_format") == "base64":
            rows = [np.frombuffer(base64.b64decode(row), "<f4") for row in rows]
        np.testing.assert_allclose(rows, fake_embedder().encode_corpus(TEXTS, reasoning="never"), atol=1e-6)
        assert made.usage.total_tokens > 0
    one = client.embeddings.create(model="ume-tiny", input="a red circle", dimensions=16)
    np.testing.assert_allclose(
        one.data[0].embedding,
        fake_embedder().encode_corpus("a red circle", reasoning="never", truncate_dim=16),
        atol=1e-6,
    )


def test_reasoned_queries_and_long_lists(client: openai.OpenAI) -> None:
    extra = {"reasoning": "always", "side": "query"}
    made = client.embeddings.create(model="ume-tiny", input=TEXTS, extra_body=extra)
    np.testing.assert_allclose([one.embedding for one in made.data], fake_embedder().encode_query(TEXTS), atol=1e-6)
    many = [f"thing {number}" for number in range(200)]
    made = client.embeddings.create(model="ume-tiny", input=many)
    np.testing.assert_allclose(
        [one.embedding for one in made.data], fake_embedder().encode_corpus(many, reasoning="never"), atol=1e-6
    )


def test_multimodal_inputs_of_both_shapes(client: openai.OpenAI) -> None:
    image, url = picture()
    parts = [{"type": "text", "text": "like this"}, {"type": "image_url", "image_url": {"url": url}}]
    wanted = fake_embedder().encode_corpus(Item(text="like this", images=(image,)), reasoning="never")
    shapes = ({"input": [{"content": parts}]}, {"messages": [{"role": "user", "content": parts}]})
    for shape in shapes:
        made = client.post("/embeddings", body={"model": "ume-tiny", **shape}, cast_to=object)
        np.testing.assert_allclose(made["data"][0]["embedding"], wanted, atol=1e-6)  # type: ignore[index]


@pytest.mark.parametrize(
    "body",
    [
        {"input": [1, 2, 3]},
        {"input": []},
        {"input": ""},
        {},
        {"input": "x", "messages": []},
        {"input": "x", "dimensions": 1000},
        {"input": "x", "model": "other"},
        {"input": [{"content": [{"type": "image_url", "image_url": {"url": "http://127.0.0.1/x.png"}}]}]},
        {"input": [{"content": [{"type": "image_url", "image_url": {"url": "/etc/passwd"}}]}]},
        {"input": [{"content": [{"type": "image_url", "image_url": {"url": "data:image/png;base64,!!"}}]}]},
        {"input": [{"content": [{"type": "audio", "audio": "x"}]}]},
    ],
    ids=str,
)
def test_what_cannot_be_embedded_is_refused(client: openai.OpenAI, body: dict[str, object]) -> None:
    with pytest.raises(openai.UnprocessableEntityError) as raised:
        client.post("/embeddings", body=body, cast_to=object)
    assert raised.value.code in {"invalid_input", "unsupported_media"}


def test_models(client: openai.OpenAI) -> None:
    assert [one.id for one in client.models.list()] == ["ume-tiny"]
    assert client.models.retrieve("ume-tiny").owned_by == "ume-retrieval"


def test_llama_index(base: str) -> None:
    from llama_index.embeddings.openai import OpenAIEmbedding

    embedding = OpenAIEmbedding(model_name="ume-tiny", api_base=f"{base}/v1", api_key="unused")
    np.testing.assert_allclose(
        embedding.get_text_embedding_batch(TEXTS), fake_embedder().encode_corpus(TEXTS, reasoning="never"), atol=1e-6
    )


def test_langchain(base: str) -> None:
    from langchain_openai import OpenAIEmbeddings

    embedding = OpenAIEmbeddings(
        model="ume-tiny", base_url=f"{base}/v1", api_key="unused", check_embedding_ctx_length=False
    )
    np.testing.assert_allclose(
        embedding.embed_documents(TEXTS), fake_embedder().encode_corpus(TEXTS, reasoning="never"), atol=1e-6
    )
