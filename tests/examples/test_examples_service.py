"""`examples/rag_service.py`, as a process with the bundled pair, asked over HTTP."""

from __future__ import annotations

import asyncio
import io
import os
import random
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import PIL.Image
import pytest

from ume_qdrant import index, open_store
from ume_retrieval import ReasoningEmbedder
from ume_training.shapes.draw import draw_scene, write_clip
from ume_training.shapes.levels import LEVELS
from ume_training.shapes.world import sample_clip, sample_scene

SCRIPT = Path(__file__).parents[2] / "examples" / "rag_service.py"
MOST_BYTES = 200_000
START_S = 180

RNG, LEVEL = random.Random(3), LEVELS["default"]
SCENES = [sample_scene(RNG, LEVEL, fewest=3) for _ in range(8)]
CLIP = sample_clip(RNG, LEVEL)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with pictures, a clip and their index."""
    place = tmp_path_factory.mktemp("service")
    media = place / "media"
    media.mkdir()
    for number, scene in enumerate(SCENES):
        draw_scene(scene, RNG).save(media / f"{number}.png")
    write_clip([CLIP], media / "clip.mp4")
    with open_store(place / "vectors", "default") as store:
        embedder = ReasoningEmbedder.from_pretrained("ume-tiny", cache=place / "traces.sqlite3")
        index(embedder, store, media, reasoning="always", strict=True)
    return place


@pytest.fixture(scope="module")
def client(place: Path) -> Iterator[httpx.Client]:
    with served(place) as base, httpx.Client(base_url=base, timeout=120) as client:
        yield client


class served:  # noqa: N801  # reads as a verb
    """The service as a process, ready to be asked."""

    def __init__(self, place: Path) -> None:
        self.place = place

    def __enter__(self) -> str:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        command = [sys.executable, str(SCRIPT), "--port", str(port), "--store", str(self.place / "vectors")]
        environment = {**os.environ, "HF_HUB_OFFLINE": "1", "UME_CACHE_DIR": str(self.place / "cache")}
        self.log = (self.place / f"log-{port}").open("w")
        self.process = subprocess.Popen(  # noqa: S603 our own script
            [*command, "--max-upload", str(MOST_BYTES)], env=environment, stdout=self.log, stderr=self.log
        )
        deadline = time.monotonic() + START_S
        while time.monotonic() < deadline and self.process.poll() is None:
            try:
                httpx.get(f"http://127.0.0.1:{port}/health", timeout=5)
            except httpx.TransportError:
                time.sleep(0.2)
            else:
                return f"http://127.0.0.1:{port}"
        self.__exit__()
        raise AssertionError(Path(self.log.name).read_text())

    def __exit__(self, *_: object) -> None:
        self.process.terminate()
        self.process.wait(30)
        self.log.close()


def words(number: int) -> str:
    return "find image: " + ", ".join(thing.words for thing in reversed(SCENES[number].things))


def png(picture: PIL.Image.Image) -> bytes:
    encoded = io.BytesIO()
    picture.save(encoded, "PNG")
    return encoded.getvalue()


def name(hit: dict[str, str]) -> str:
    return Path(hit["source"]).name


def test_words_find_a_picture_and_its_crops_are_served(client: httpx.Client, place: Path) -> None:
    answer = client.get("/search", params={"text": words(4), "limit": 2}).raise_for_status().json()
    assert name(answer["hits"][0]) == "4.png"
    assert len(answer["hits"]) == 2
    assert answer["meant"]
    best = answer["hits"][0]
    assert best["evidence"]
    whole = PIL.Image.open(place / "media" / "4.png").convert("RGB")
    for piece in best["evidence"]:
        response = client.get(piece["url"]).raise_for_status()
        assert response.headers["content-type"] == "image/png"
        crop = PIL.Image.open(io.BytesIO(response.content))
        x1, y1, _, _ = (round(edge * 192 / 1000) for edge in piece["box"])
        assert abs(crop.width - (piece["box"][2] - piece["box"][0]) * 192 / 1000) <= 2
        assert crop.convert("RGB").getpixel((25, 25)) == whole.getpixel((x1 + 25, y1 + 25)) or x1 + 25 > 191


def test_key_frames_with_their_seconds(client: httpx.Client) -> None:
    params = {"text": f"find video: {CLIP.words}", "kind": "video"}
    [hit] = client.get("/search", params=params).raise_for_status().json()["hits"]
    assert (name(hit), hit["start_s"], hit["end_s"]) == ("clip.mp4", 0, 4)
    times = [piece["time_s"] for piece in hit["evidence"]]
    assert times
    assert all(CLIP.second - 1 <= time_s < CLIP.second for time_s in times)
    frame = PIL.Image.open(io.BytesIO(client.get(hit["evidence"][0]["url"]).content))
    assert frame.size == (192, 192)


def test_a_picture_finds_itself_and_words_change_it(client: httpx.Client, place: Path) -> None:
    files = {"image": ("any name.jpg", (place / "media" / "2.png").read_bytes())}
    hits = client.post("/search", files=files, params={"kind": "image"}).raise_for_status().json()["hits"]
    assert name(hits[0]) == "2.png"
    assert {hit["kind"] for hit in hits} == {"image"}
    asked = client.post("/search", files=files, data={"text": "remove the pink elephant"})
    assert asked.status_code == 200


@pytest.mark.parametrize(
    ("upload", "status", "error"),
    [
        (png(PIL.Image.new("RGB", (64, 64), "red"))[:60], 422, "broken_media"),
        (b"\x89PNG\r\n\x1a\n and nothing more", 422, "broken_media"),
        (b"#!/bin/sh\necho no picture\n", 415, "unsupported_media"),
        (b"", 422, "broken_media"),
        (png(PIL.Image.new("1", (9_000, 9_000))), 413, "media_too_large"),
    ],
)
def test_a_bad_upload_is_the_clients_fault_in_one_line(
    client: httpx.Client, upload: bytes, status: int, error: str
) -> None:
    response = client.post("/search", files={"image": ("x.png", upload)})
    assert (response.status_code, response.json()["error"]) == (status, error)
    assert "\n" not in response.json()["message"]
    assert "Traceback" not in response.text


def test_too_big_an_upload_is_refused_with_and_without_a_length(client: httpx.Client) -> None:
    big = b"x" * (2 * MOST_BYTES)
    assert client.post("/search", files={"image": ("x.png", big)}).status_code == 413
    head = {"content-type": "multipart/form-data; boundary=b"}
    start = b'--b\r\ncontent-disposition: form-data; name="image"; filename="x"\r\n\r\n'
    chunked = client.post("/search", content=iter([start, big, b"\r\n--b--\r\n"]), headers=head)
    assert chunked.status_code == 413
    assert client.get("/health").status_code == 200


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/search", 422),
        ("/search?text=", 422),
        ("/search?text=red&limit=0", 422),
        ("/search?text=red&limit=1000", 422),
        ("/search?text=red&kind=sound", 422),
        ("/search?text=%20", 422),
        ("/evidence/no-uuid/0", 422),
        ("/evidence/00000000-0000-0000-0000-000000000000/0", 404),
        ("/evidence/..%2f..%2fetc%2fpasswd/0", 404),
    ],
)
def test_bad_requests(client: httpx.Client, path: str, status: int) -> None:
    assert client.get(path).status_code == status


def test_evidence_that_is_not_there_and_a_file_that_is_gone(client: httpx.Client, place: Path) -> None:
    hit = client.get("/search", params={"text": words(7)}).json()["hits"][0]
    assert name(hit) == "7.png"
    path = place / "media" / "7.png"
    url = hit["evidence"][0]["url"]
    assert client.get(url.rpartition("/")[0] + "/99").status_code == 404
    kept = path.read_bytes()
    path.unlink()
    try:
        gone = client.get(url)
    finally:
        path.write_bytes(kept)
    assert (gone.status_code, gone.json()["error"]) == (410, "media_not_found")


async def test_many_at_once_get_their_own_answers_and_the_loop_goes_on(client: httpx.Client) -> None:
    async with httpx.AsyncClient(base_url=client.base_url, timeout=120) as many:

        async def ask(number: int) -> str:
            response = await many.get("/search", params={"text": words(number % 8) + " " * number, "limit": 1})
            return name(response.raise_for_status().json()["hits"][0])

        searches = [asyncio.create_task(ask(number)) for number in range(24)]
        await asyncio.sleep(0.2)
        waiting = []
        while not all(search.done() for search in searches):
            health = (await many.get("/health")).raise_for_status().json()
            waiting.append(sum(not search.done() for search in searches))
            assert health == {"status": "ok", "collection": "default", "points": 9}
        assert await asyncio.gather(*searches) == [f"{number % 8}.png" for number in range(24)]
    assert max(waiting) > 1, "health was answered only after the searches: the event loop stood still"


def test_a_store_that_another_process_has_open_is_shared(client: httpx.Client, place: Path) -> None:
    first = client.get("/health")
    assert first.status_code == 200
    with served(place) as second:
        response = httpx.get(f"{second}/health", timeout=60)
    assert (response.status_code, response.json()) == (200, first.json())


def test_help() -> None:
    command = [sys.executable, str(SCRIPT), "--help"]
    shown = subprocess.run(command, capture_output=True, text=True, check=True).stdout  # noqa: S603 our own script
    for option in ("--store", "--collection", "--model", "--max-upload", "--host", "--port"):
        assert option in shown
