"""Our models behind `models.Document` and `models.Image`, on FastEmbed's real registries."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from qdrant_client import QdrantClient
from qdrant_client import models as rest
from qdrant_world import models as pair
from small_media import GREEN, RED, picture

from ume_qdrant import register_inference, unregister_inference
from ume_retrieval import InputError, Item, MissingExtra


@pytest.fixture
def name() -> Iterator[str]:
    pytest.importorskip("fastembed")
    called = register_inference(pair())
    yield called
    unregister_inference(called)


@pytest.fixture
def client() -> Iterator[QdrantClient]:
    client = QdrantClient(":memory:")
    params = rest.VectorParams(size=pair().dimension, distance=rest.Distance.COSINE)
    client.create_collection("things", {"direct": params})
    yield client
    client.close()


def test_documents_and_images_reach_the_model(name: str, client: QdrantClient, tmp_path: Path) -> None:
    assert name == "ume/hash-embedder"
    red = picture(tmp_path / "red.png", RED)
    client.upsert(
        "things",
        [
            rest.PointStruct(id=1, vector={"direct": rest.Document(text="the last train home", model=name)}),
            rest.PointStruct(id=2, vector={"direct": rest.Image(image=str(red), model=name)}),
        ],
    )
    records = {r.id: r.vector["direct"] for r in client.retrieve("things", [1, 2], with_vectors=True)}  # type: ignore[index,call-overload]  # vectors by name
    wanted = pair().encode_corpus(["the last train home", Item(images=(red,))], reasoning="never")
    np.testing.assert_allclose([records[1], records[2]], wanted, atol=1e-5)
    [hit] = client.query_points(
        "things", query=rest.Document(text="train home", model=name), using="direct", limit=1
    ).points
    assert hit.id == 1
    query = pair().encode_query("train home", reasoning="never")
    assert hit.score == pytest.approx(float(query @ wanted[0]), abs=1e-5)


def test_reasoning_is_asked_for_by_an_option(name: str, client: QdrantClient, tmp_path: Path) -> None:
    green = picture(tmp_path / "green.png", GREEN)
    reasoned = rest.Image(image=str(green), model=name, options={"reasoning": "always"})
    client.upsert("things", [rest.PointStruct(id=1, vector={"direct": reasoned})])
    [record] = client.retrieve("things", [1], with_vectors=True)
    wanted = pair().encode_corpus(Item(images=(green,)), reasoning="always")
    np.testing.assert_allclose(record.vector["direct"], wanted, atol=1e-5)  # type: ignore[index,call-overload]  # vectors by name
    with pytest.raises(InputError, match="reasoning"):
        client.query_points(
            "things", query=rest.Document(text="x", model=name, options={"reasoning": "often"}), using="direct"
        )


def test_a_name_is_taken_once_and_can_be_given_back(name: str) -> None:
    with pytest.raises(InputError, match="already"):
        register_inference(pair())
    other = register_inference(pair(), "mine")
    unregister_inference(other)
    with pytest.raises(InputError, match="not registered"):
        unregister_inference(other)


def test_without_fastembed_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "fastembed", None)
    with pytest.raises(MissingExtra) as caught:
        register_inference(pair())
    assert "ume-retrieval[fastembed]" in caught.value.hint
