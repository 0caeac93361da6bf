"""The HTTP API over real files, asked by a real client."""

from __future__ import annotations

import io
import json
import threading
import time
import uuid
from pathlib import Path
from typing import Any

import httpx
import PIL.Image
from serve_world import make_media, served, with_own_store

from ume_qdrant import Filter, Layout, index, open_store, search
from ume_retrieval import ReasoningEmbedder
from ume_retrieval.testing import fake_embedder
from ume_serve import Settings


def png(colour: str, size: tuple[int, int] = (40, 40)) -> bytes:
    encoded = io.BytesIO()
    PIL.Image.new("RGB", size, colour).save(encoded, "PNG")
    return encoded.getvalue()


def events(response: httpx.Response) -> list[tuple[str, Any]]:
    found = []
    for block in response.text.replace("\r\n", "\n").strip().split("\n\n"):
        lines = dict(line.split(": ", 1) for line in block.splitlines() if not line.startswith(":"))
        if lines:
            found.append((lines["event"], json.loads(lines["data"])))
    return found


def test_search_finds_what_the_library_finds(client: httpx.Client, settings: Settings, tmp_path: Path) -> None:
    found = client.post("/api/search", json={"text": "the last train home", "limit": 3}).json()
    assert found["reasoned"]
    assert found["hits"][0]["name"] == "media/train.txt"
    assert found["hits"][0]["text"] == "the last train home"
    rest = client.post("/api/search", json={"text": "the last train home", "limit": 2, "offset": 1}).json()
    assert rest["hits"] == found["hits"][1:]
    least = found["hits"][1]["score"]
    some = client.post("/api/search", json={"text": "the last train home", "threshold": least}).json()
    assert len(some["hits"]) == 2


def test_filters_and_modes(client: httpx.Client) -> None:
    pictures = client.post("/api/search", json={"text": "red", "kinds": ["image"]}).json()["hits"]
    assert {hit["kind"] for hit in pictures} == {"image"}
    assert pictures[0]["name"] == "media/red.png"
    assert not client.post("/api/search", json={"text": "red", "mode": "direct"}).json()["reasoned"]
    for wrong in ({"limit": 0}, {"limit": 101}, {"mode": "other"}, {"kinds": ["song"]}, {"text": "x" * 20_001}, {}):
        response = client.post("/api/search", json={"text": "red", **wrong} if wrong else {})
        assert response.status_code == 422, wrong
        assert response.json()["error"]["code"] == "invalid_input"


def test_search_with_uploads(client: httpx.Client, settings: Settings) -> None:
    found = client.post("/api/search/upload", files={"file": ("x.png", png("red"), "image/png")}).json()
    assert found["hits"][0]["name"] == "media/red.png"
    clip = (settings.media[0] / "clip.mp4").read_bytes()
    data = {"settings": json.dumps({"text": "like this", "kinds": ["video"]})}
    found = client.post("/api/search/upload", files={"file": ("x.mp4", clip, "video/mp4")}, data=data).json()
    assert [hit["kind"] for hit in found["hits"]] == ["video"]
    broken = client.post("/api/search/upload", files={"file": ("x.png", b"\x89PNG\r\n\x1a\nbroken", "image/png")})
    assert broken.status_code in {415, 422}
    wrong = client.post("/api/search/upload", files={"file": ("x.png", png("red"))}, data={"settings": "{"})
    assert wrong.status_code == 422


def test_a_streamed_search_gives_direct_hits_first(client: httpx.Client) -> None:
    response = client.post("/api/search/stream", json={"text": "the last train home"})
    assert response.headers["content-type"].startswith("text/event-stream")
    names, values = zip(*events(response), strict=True)
    assert names == ("hits", "hits", "done")
    assert [value["reasoned"] for value in values[:2]] == [False, True]
    assert client.post("/api/search/stream", json={"text": ""}).status_code == 422
    broken = client.post("/api/search/upload/stream", files={"file": ("x.png", b"broken")})
    assert [(name, value["error"]["code"]) for name, value in events(broken)] == [("error", "unsupported_media")]
    upload = {"file": ("x.png", png("blue"), "image/png")}
    names, values = zip(*events(client.post("/api/search/upload/stream", files=upload)), strict=True)
    assert names == ("hits", "hits", "done")
    assert values[1]["hits"][0]["name"] == "media/blue.png"


def test_evidence_is_given_by_point(client: httpx.Client) -> None:
    [hit, *_] = client.post("/api/search", json={"text": "red", "kinds": ["image"]}).json()["hits"]
    at = f"/api/points/{hit['id']}"
    assert client.get(at).json()["thinking"].startswith("<thinking>")
    pictures = {}
    for name in ("thumbnail", "picture", "picture?boxes=false", "evidence/0"):
        response = client.get(f"{at}/{name}")
        assert response.headers["content-type"] == "image/png"
        pictures[name] = PIL.Image.open(io.BytesIO(response.content)).convert("RGB")
    assert pictures["picture"].size == (120, 90)
    assert pictures["picture"].tobytes() != pictures["picture?boxes=false"].tobytes()
    assert client.get(f"{at}/evidence/9").status_code == 404
    assert client.get(f"{at}/video").status_code == 404
    assert client.get(f"/api/points/{uuid.uuid4()}/picture").status_code == 404
    [text, *_] = client.post("/api/search", json={"text": "train", "kinds": ["text"]}).json()["hits"]
    assert client.get(f"/api/points/{text['id']}/picture").status_code == 404


def test_a_clip_plays_by_ranges(client: httpx.Client, settings: Settings) -> None:
    [hit] = client.post("/api/search", json={"text": "red", "kinds": ["video"]}).json()["hits"]
    clip = (settings.media[0] / "clip.mp4").read_bytes()
    part = client.get(f"/api/points/{hit['id']}/video", headers={"range": "bytes=10-19"})
    assert (part.status_code, part.content) == (206, clip[10:20])
    assert client.get(f"/api/points/{hit['id']}/video").content == clip
    assert client.get(f"/api/points/{hit['id']}/thumbnail").status_code == 200


def test_more_like_a_point_leaves_the_point_out(client: httpx.Client) -> None:
    [hit, *_] = client.post("/api/search", json={"text": "red", "kinds": ["image"]}).json()["hits"]
    like = client.post("/api/search", json={"like": hit["id"], "limit": 3}).json()["hits"]
    assert len(like) == 3
    assert hit["id"] not in {one["id"] for one in like}
    assert client.post("/api/search", json={"like": str(uuid.uuid4())}).status_code == 404


def test_collections_facets_and_the_description(client: httpx.Client) -> None:
    about = client.get("/api/collections").json()
    assert (about["collection"], about["points"], about["embedder"]) == ("default", 6, "hash-embedder")
    assert client.get("/api/facets").json() == {"kinds": {"image": 3, "video": 1, "page": 0, "text": 2}}
    described = client.get("/openapi.json").json()["paths"]
    assert {"/api/search", "/api/points/{point_id}/evidence/{number}", "/v1/embeddings"} <= described.keys()


def test_indexing_reports_progress_and_search_goes_on(tmp_path: Path) -> None:
    media = make_media(tmp_path / "media")
    settings = Settings(store=str(tmp_path / "vectors"), media=(media,), isolate=False)
    with served(settings) as base, httpx.Client(base_url=base, timeout=30) as client:
        assert client.post("/api/search", json={"text": "red"}).status_code == 404
        assert client.get("/api/index").json()["state"] == "idle"
        assert client.post("/api/index").status_code == 202
        states = [value for _, value in events(client.get("/api/index/events"))]
        assert states[-1]["state"] == "done"
        assert (states[-1]["indexed"], states[-1]["failed"]) == (6, 0)
        assert client.post("/api/search", json={"text": "red"}).json()["hits"][0]["name"] == "media/red.png"
        [point] = [
            hit
            for hit in client.post("/api/search", json={"text": "train"}).json()["hits"]
            if "train.txt" in hit["name"]
        ]
        assert client.delete(f"/api/points/{point['id']}").status_code == 204
        assert client.get(f"/api/points/{point['id']}").status_code == 404
    with open_store(settings.store, "default") as store:
        assert store.count() == 5
        assert search(fake_embedder(), store, "red").hits[0].source.endswith("red.png")


def test_it_answers_before_the_models_are_loaded(settings: Settings, tmp_path: Path) -> None:
    goes_on = threading.Event()

    def load() -> ReasoningEmbedder:
        assert goes_on.wait(20)
        return fake_embedder()

    with (
        served(with_own_store(settings, tmp_path), load, wait=False) as base,
        httpx.Client(base_url=base, timeout=30) as client,
    ):
        assert client.get("/health").json() == {"status": "ok"}
        waiting = client.get("/ready")
        assert (waiting.status_code, waiting.json()["status"]) == (503, "loading")
        early = client.post("/api/search", json={"text": "red"})
        assert (early.status_code, early.headers["retry-after"]) == (503, "1")
        goes_on.set()
        until = time.monotonic() + 20
        while client.get("/ready").status_code != 200:
            assert time.monotonic() < until
        assert client.post("/api/search", json={"text": "red"}).status_code == 200


def test_models_that_cannot_be_loaded_are_named(settings: Settings) -> None:
    def load() -> ReasoningEmbedder:
        from ume_retrieval import ModelError

        raise ModelError("/home/ann/models/x has no weights")

    with served(settings, load, wait=False) as base:
        until = time.monotonic() + 20
        while (answer := httpx.get(f"{base}/ready").json())["status"] == "loading":
            assert time.monotonic() < until
    assert answer == {"status": "failed", "error": "x has no weights"}


def test_beyond_the_queue_requests_are_refused_with_a_time_to_retry(settings: Settings, tmp_path: Path) -> None:
    import asyncio

    from ume_retrieval.pipeline import Batching

    def load() -> ReasoningEmbedder:
        embedder = fake_embedder(batching=Batching(waiting=4, items=2))
        generate = embedder.reasoner.generate  # type: ignore[union-attr]

        def slow(*given: Any) -> Any:
            time.sleep(0.05)
            return generate(*given)

        embedder.reasoner.generate = slow  # type: ignore[union-attr,method-assign]
        return embedder

    async def ask(base: str) -> list[httpx.Response]:
        async with httpx.AsyncClient(base_url=base, timeout=60, limits=httpx.Limits(max_connections=None)) as client:
            return await asyncio.gather(*(client.post("/api/search", json={"text": f"t {n}"}) for n in range(120)))

    with served(with_own_store(settings, tmp_path), load) as base:
        answers = asyncio.run(ask(base))
    assert {answer.status_code for answer in answers} == {200, 503}
    refused = [answer for answer in answers if answer.status_code == 503]
    assert {answer.headers["retry-after"] for answer in refused} == {"1"}
    assert {answer.json()["error"]["code"] for answer in refused} == {"queue_full"}


def test_a_collection_with_tenants_is_refused(tmp_path: Path) -> None:
    (tmp_path / "note.txt").write_text("the last train home")
    with open_store(tmp_path / "vectors", "default") as store:
        index(
            fake_embedder(),
            store,
            tmp_path / "note.txt",
            layout=Layout(tenant="customer"),
            metadata={"customer": "acme"},
            strict=True,
        )
        [point] = store.scroll(Filter(tenant="acme"), fields=())
    settings = Settings(store=str(tmp_path / "vectors"), media=(tmp_path,), isolate=False)
    with served(settings) as url, httpx.Client(base_url=url) as client:
        found = client.post("/api/search", json={"text": "train"})
        assert found.json()["error"]["code"] == "tenant_required"
        for answer in (client.get(f"/api/points/{point.id}"), client.delete(f"/api/points/{point.id}")):
            assert answer.json()["error"]["code"] == "store_unsupported"
    with open_store(tmp_path / "vectors", "default") as store:
        assert store.count(Filter(tenant="acme")) == 1
