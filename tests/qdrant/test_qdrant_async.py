"""Async stores do what their blocking twins do, and never block the event loop."""

from __future__ import annotations

import asyncio
import threading
import time
import warnings
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from qdrant_client import AsyncQdrantClient
from qdrant_stub import OK, Stub, info
from qdrant_world import dump, models
from small_media import fill

from ume_qdrant import (
    AsyncClientStore,
    AsyncStore,
    CollectionMeta,
    EdgeStore,
    Filter,
    Layout,
    Point,
    QueryVectors,
    Retry,
    SearchEffort,
    ThreadStore,
    asearch,
    asearch_vectors,
    index,
    open_async_store,
    search,
)
from ume_retrieval import InputError, StoreError
from ume_retrieval.errors import CollectionNotFound, StoreMismatch

META = CollectionMeta("model", "rev", "embed-rl", 4)
ONE, TWO = np.eye(4, dtype=np.float32)[:2]
IDS = [f"00000000-0000-0000-0000-00000000000{n}" for n in range(4)]

Opener = Callable[[str], AsyncStore]


@pytest.fixture(params=["thread", "client"])
async def open_collection(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Opener]:
    client = AsyncQdrantClient(":memory:")
    opened: list[AsyncStore] = []

    def opener(name: str) -> AsyncStore:
        made: AsyncStore = (
            ThreadStore(EdgeStore(tmp_path, name)) if request.param == "thread" else AsyncClientStore(client, name)
        )
        opened.append(made)
        return made

    yield opener
    for made in opened:
        async with made:
            pass
    await client.close()


async def test_every_call_of_a_store_is_there(open_collection: Opener) -> None:
    store = open_collection("one")
    assert isinstance(store, AsyncStore)
    assert store.collection == "one"
    assert not await store.exists()
    with pytest.raises(CollectionNotFound):
        await store.count()
    await store.create(META, Layout(matryoshka_dim=2))
    assert (await store.meta(), await store.layout()) == (META, Layout(matryoshka_dim=2))
    await store.upsert([Point(key, {"direct": ONE}, {"source": "a", "kind": "image"}) for key in IDS[:3]])
    await store.update([Point(IDS[1], {"reasoned": TWO}, {"page": 2})])
    await store.delete([IDS[2]])
    assert await store.count(Filter(pages=(2,))) == 1
    assert [point.id async for point in store.scroll(fields=("source",))] == IDS[:2]
    [read] = await store.retrieve([IDS[1]], vectors=("reasoned",))
    assert set(read.vectors) == {"reasoned"}
    hits = await store.search("reasoned", TWO, limit=5, effort=SearchEffort(exact=True))
    assert [(hit.id, round(hit.score, 5)) for hit in hits] == [(IDS[1], 1.0)]
    with pytest.raises(StoreMismatch, match="vectors of 4 values"):
        await store.search("direct", np.ones(3, dtype=np.float32), limit=1)
    await store.set_metadata(CollectionMeta("model", "rev", "embed-rl", 4, "thinker", "r", "p"))
    assert (await store.meta()).reasoner == "thinker"
    assert await store.set_alias("films") is None
    assert await store.aliases() == {"films": "one"}
    assert await open_collection("films").exists()
    await store.drop_alias("films")
    await store.optimize()
    await store.drop()
    assert not await store.exists()


@pytest.fixture
def indexed(tmp_path: Path) -> EdgeStore:
    store = EdgeStore(tmp_path / "vectors", "things")
    index(models(), store, fill(tmp_path / "things"), reasoning="always")
    return store


async def test_async_search_finds_what_search_finds(indexed: EdgeStore) -> None:
    wanted: list[dict[str, Any]] = [
        {},
        {"mode": "direct"},
        {"mode": "reasoned", "limit": 2},
        {"where": Filter(kinds=("page",), pages=(2,))},
        {"group_by": "source", "diversity": 0.5},
    ]
    blocking = [search(models(), indexed, "train home", **options) for options in wanted]
    async with ThreadStore(indexed) as store:
        for options, expected in zip(wanted, blocking, strict=True):
            result = await asearch(models(), store, "train home", **options)
            assert result.hits == expected.hits
            assert result.usage.embedder_calls == expected.usage.embedder_calls
            assert result.usage.reasoner_calls == expected.usage.reasoner_calls
        vectors = models().encode_query("train home", reasoning="never")
        [hit] = await asearch_vectors(store, QueryVectors(direct=vectors), limit=1)
        assert hit.text == "the last train home"
        with pytest.raises(InputError, match="limit 0"):
            await asearch(models(), store, "train", limit=0)


async def test_the_same_points_are_found_through_a_client(indexed: EdgeStore) -> None:
    client = AsyncQdrantClient(":memory:")
    store = AsyncClientStore(client, "things")
    await store.create(indexed.meta())
    await store.upsert(indexed.retrieve(list(dump(indexed)), vectors=("direct", "reasoned")))
    expected = search(models(), indexed, "train home").hits
    found = (await asearch(models(), store, "train home")).hits
    assert [hit.source for hit in found] == [hit.source for hit in expected]
    assert [hit.score for hit in found] == pytest.approx([hit.score for hit in expected], abs=1e-5)
    await client.close()
    indexed.close()


class Waiting(EdgeStore):
    """Answers a search only after the event loop has done something else."""

    free = threading.Event()

    def search(self, *args: Any, **kwargs: Any) -> Any:
        assert self.free.wait(20), "the event loop was blocked"
        return super().search(*args, **kwargs)


async def test_the_event_loop_goes_on_while_the_engine_works(tmp_path: Path) -> None:
    async with ThreadStore(Waiting(tmp_path, "one")) as store:
        await store.create(META)
        await store.upsert([Point(IDS[0], {"direct": ONE}, {"source": "a", "kind": "image"})])
        asked = asyncio.gather(*(asearch_vectors(store, QueryVectors(direct=ONE), limit=1) for _ in range(50)))
        await asyncio.sleep(0.01)
        Waiting.free.set()
        answers = await asked
    assert [len(hits) for hits in answers] == [1] * 50


Call = Callable[[AsyncStore], Awaitable[Any]]


@pytest.mark.parametrize("status", [429, 503, 0])
async def test_a_busy_or_lost_server_is_asked_again(stub: Stub, status: int) -> None:
    naps: list[float] = []

    async def nap(seconds: float) -> None:
        naps.append(seconds)

    stub.described = info(META.to_dict())
    count = (200, {"result": {"count": 7}, **OK}, {})
    stub.script = [(status, {"status": {"error": "not now"}}, {})] * 2 + [count]
    retry = Retry(attempts=4, asleep=nap, uniform=lambda: 1.0)
    async with open_async_store(stub.url, "films", retry=retry) as store:
        assert await store.count() == 7
        assert naps == [0.5, 1.0]
        stub.script = [(status, {"status": {"error": "not now"}}, {})]
        with pytest.raises(StoreError, match=r"\(4 attempts\)") as caught:
            await store.count()
    assert caught.value.retryable


async def test_a_wrong_key_is_said_and_never_shown(stub: Stub) -> None:
    stub.script = [(403, "Invalid API key: s3cr3t", {})]
    with warnings.catch_warnings():
        # Towards this stub on 127.0.0.1 the key must travel unencrypted, which the client warns of.
        warnings.filterwarnings("ignore", message="Api key is used with an insecure connection")
        store = open_async_store(stub.url, "films", api_key="s3cr3t")
    async with store:
        with pytest.raises(StoreError, match="refused the API key") as caught:
            await store.meta()
    assert "s3cr3t" not in f"{caught.value!r} {caught.value.hint} {store!r}"


async def test_a_missing_collection_on_a_server(stub: Stub) -> None:
    stub.script = [(404, {"status": {"error": "Not found: Collection `films` doesn't exist!"}}, {})]
    async with open_async_store(stub.url, "films") as store:
        calls: list[Call] = [
            lambda store: store.meta(),
            lambda store: store.count(),
            lambda store: store.search("direct", ONE, limit=1),
            lambda store: store.upsert([Point(IDS[0], {"direct": ONE}, {})]),
        ]
        for call in calls:
            with pytest.raises(CollectionNotFound, match="'films'"):
                await call(store)


async def test_both_rankings_are_asked_for(stub: Stub) -> None:
    stub.described = info(META.to_dict())
    stub.script = [(200, {"result": {"points": []}, **OK}, {})]
    async with open_async_store(stub.url, "films") as store:
        assert await asearch_vectors(store, QueryVectors(ONE, TWO)) == ()
    assert sorted(body["using"] for _, path, body, _ in stub.seen if path.endswith("/query")) == ["direct", "reasoned"]


def test_locations_are_those_of_the_blocking_twin() -> None:
    with pytest.raises(InputError, match="ftp"):
        open_async_store("ftp://host/x", "films")
    with pytest.raises(InputError, match="API key"):
        open_async_store("folder", "films", api_key="key")


async def test_a_closed_store_opens_again(tmp_path: Path) -> None:
    store = ThreadStore(EdgeStore(tmp_path, "one"))
    async with store:
        await store.create(META)
    assert await store.count() == 0
    await store.close()


async def test_a_closed_client_is_made_anew(stub: Stub) -> None:
    stub.described = info(META.to_dict())
    stub.script = [(200, {"result": {"count": 7}, **OK}, {})] * 2
    store = open_async_store(stub.url, "films", retry=Retry(attempts=1))
    assert await store.count() == 7
    await store.close()
    assert await store.count() == 7
    await store.close()


async def test_requests_run_side_by_side_and_can_be_cancelled(stub: Stub) -> None:
    stub.described = info(META.to_dict())
    stub.script, stub.delay_s = [(200, {"result": {"count": 7}, **OK}, {})], 0.5
    async with open_async_store(stub.url, "films", retry=Retry(attempts=1)) as store:
        started = time.perf_counter()
        assert await asyncio.gather(*(store.count() for _ in range(20))) == [7] * 20
        assert time.perf_counter() - started < 20 * 0.5
        stub.delay_s = 2.0
        started = time.perf_counter()
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(store.count(), 0.1)
        assert time.perf_counter() - started < 2.0
        stub.delay_s = 0.0
        assert await store.count() == 7
