"""Fifty queries at once, and an event loop that is never held up."""

from __future__ import annotations

import asyncio
import gc
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
from llama_index.core.ingestion import IngestionPipeline
from llama_index.core.schema import NodeWithScore, QueryBundle
from small_media import GREEN, RED, picture

from ume_llama_index import UmeEmbedding, UmeReader, UmeRetriever, UmeVectorStore
from ume_retrieval import TraceCache

TICK_S = 0.005
LIMIT_S = 0.05
QUERIES = 50


async def longest_block(work: Callable[[], Awaitable[object]]) -> float:
    """Seconds by which the loop came late to a timer, at worst, while `work` ran.

    Of a delay counts what this process has computed in it: other programs on the machine delay any loop, and while the
    models compute in their threads, a loop that waits for them comes late by as much as they compute. What was there
    before is kept from the garbage collector, which stops every thread for a time that grows with all the objects of
    the process, here those of the test run.
    """
    gc.collect()
    gc.freeze()
    worst = 0.0
    done = False

    async def watch() -> None:
        nonlocal worst
        while not done:
            started, computed = time.perf_counter(), time.process_time()
            await asyncio.sleep(TICK_S)
            late = time.perf_counter() - started - TICK_S
            worst = max(worst, min(late, time.process_time() - computed))

    watching = asyncio.create_task(watch())
    await asyncio.sleep(4 * TICK_S)
    try:
        await work()
    finally:
        done = True
        await watching
        gc.unfreeze()
    return worst


@pytest.fixture
def retriever(tmp_path: Path) -> UmeRetriever:
    for number in range(3):
        picture(tmp_path / f"red{number}.png", RED)
    embedding = UmeEmbedding("ume-tiny", cache=TraceCache(tmp_path / "traces.sqlite3"))
    vectors = UmeVectorStore.open(tmp_path / "vectors", "things", embedding)
    documents = UmeReader().load_data(sorted(tmp_path.glob("*.png")))
    IngestionPipeline(transformations=[embedding], vector_store=vectors).run(documents=documents)
    return UmeRetriever(embedding, vectors)


async def test_fifty_queries_leave_the_loop_free(retriever: UmeRetriever, tmp_path: Path) -> None:
    image = str(picture(tmp_path / "q.png", GREEN))
    found: list[list[NodeWithScore]] = []

    async def ask_all() -> None:
        queries = [
            QueryBundle(f"find image: red circle top left {n}", image_path=image if n % 5 == 0 else None)
            for n in range(QUERIES)
        ]
        found.extend(await asyncio.gather(*(retriever.aretrieve(query) for query in queries)))

    assert await longest_block(ask_all) < LIMIT_S
    assert [len(nodes) for nodes in found] == [3] * QUERIES


async def test_embedding_leaves_the_loop_free_too(retriever: UmeRetriever, tmp_path: Path) -> None:
    image = str(picture(tmp_path / "q.png", GREEN))
    made = retriever.embedding
    words = [f"red circle top left, blue cross {n}" for n in range(10)]
    documents = UmeReader().load_data(image)

    async def embed_all() -> None:
        await asyncio.gather(
            made.aget_text_embedding_batch(words),
            made.aget_image_embedding_batch([image] * 4),
            made.acall(documents),
            *(made.aget_query_embedding(word) for word in words),
        )

    assert await longest_block(embed_all) < LIMIT_S


async def test_the_watch_sees_a_loop_that_waits_for_the_models(retriever: UmeRetriever) -> None:
    async def block() -> None:
        for n in range(5):
            retriever.retrieve(f"find image: blue cross middle {n}")

    assert await longest_block(block) >= LIMIT_S


async def test_workers_come_back_after_a_fork(retriever: UmeRetriever) -> None:
    workers = retriever.embedding.workers
    workers._process = -1
    assert await workers.run(max, 1, 2) == 2
    assert workers._process > 0
