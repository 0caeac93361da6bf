"""On Shapes, with the bundled pair: LlamaIndex and this adapter find the right node as often as `ume search`."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest
from llama_index.core.ingestion import IngestionPipeline
from llama_index.core.schema import QueryBundle
from typer.testing import CliRunner

from ume_cli.app import app
from ume_llama_index import UmeEmbedding, UmeReader, UmeRetriever, UmeVectorStore
from ume_qdrant import EdgeStore, Filter, Kind, index, open_store, search
from ume_retrieval import Item, ReasoningEmbedder, TraceCache
from ume_training.shapes.benchmark import Candidate, TaskSet, build_benchmark
from ume_training.shapes.draw import draw_scene
from ume_training.shapes.world import CLIP_SECONDS, Scene

Place = tuple[str, float | None, int | None]


@dataclass(frozen=True, slots=True)
class Asked:
    """A query as LlamaIndex takes it, and where its answers are."""

    text: str
    image: Path | None
    kinds: tuple[Kind, ...]
    right: frozenset[Place]


def choose(task: TaskSet, count: int, queries: int, kind: Kind) -> tuple[list[Candidate], list[Asked]]:
    """Files of at least `count` candidates, those that answer the queries first, and the queries."""
    asked = task.queries[:queries]
    wanted = {task.candidates[i].path for query in asked for i in query.relevant}
    kept = [candidate for candidate in task.candidates if candidate.path in wanted]
    for candidate in task.candidates:
        if len(kept) >= count:
            break
        if candidate.path not in wanted:
            wanted.add(candidate.path)
            kept += [other for other in task.candidates if other.path == candidate.path]
    return kept, [
        Asked(
            query.item.text or "",
            next((Path(str(image)) for image in query.item.images), None),
            (kind,),
            frozenset(task.candidates[i].place for i in query.relevant),
        )
        for query in asked
    ]


def redrawn(candidates: Iterable[Candidate], folder: Path, count: int) -> list[Asked]:
    """Queries by image alone: scenes of the corpus, drawn anew."""
    folder.mkdir()
    rng = random.Random(5)
    scenes = [candidate for candidate in candidates if isinstance(candidate.sample.shown, Scene)][:count]
    asked = []
    for number, candidate in enumerate(scenes):
        assert isinstance(candidate.sample.shown, Scene)
        path = folder / f"{number}.png"
        draw_scene(candidate.sample.shown, rng).save(path)
        asked.append(Asked("", path, ("image",), frozenset({candidate.place})))
    return asked


def first_hits(asked: Sequence[Asked], find: Callable[[Asked], Place]) -> list[bool]:
    return [find(query) in query.right for query in asked]


def compare(tmp_path: Path, images: int, clips: int, pages: int, queries: int) -> tuple[list[bool], list[bool]]:
    """Right first hits of `ume search` and of LlamaIndex with the adapter, over the same files."""
    tasks = {
        task.name: task
        for task in build_benchmark(tmp_path / "world", seed=7, queries=queries, candidates=max(images // 2, clips))
    }
    asked: list[Asked] = []
    files: set[Path] = set()
    for name, count, kind in (
        ("text_to_image", images // 2, "image"),
        ("image_change", images // 2, "image"),
        ("text_to_video", clips, "video"),
        ("page_retrieval", pages, "page"),
    ):
        kept, questions = choose(tasks[name], count, queries, kind)  # type: ignore[arg-type]
        assert len(kept) >= count
        files |= {candidate.path for candidate in kept}
        asked += questions
        if name == "text_to_image":
            asked += redrawn(kept, tmp_path / "redrawn", queries)
    paths = sorted(files)
    cache = TraceCache(tmp_path / "traces.sqlite3")
    seconds = float(CLIP_SECONDS)

    # What `ume index` and `ume search` do.
    embedder = ReasoningEmbedder.from_pretrained("ume-tiny", cache=cache)
    with EdgeStore(tmp_path / "store", "ume") as store:
        index(embedder, store, paths, reasoning="always", segment_s=seconds, overlap_s=0.0, strict=True)

        def by_ume(query: Asked) -> Place:
            item = Item(text=query.text or None, images=(query.image,) if query.image else ())
            target = "video" if query.kinds == ("video",) else None
            [hit] = search(embedder, store, item, limit=1, where=Filter(kinds=query.kinds), target=target).hits
            return hit.source, hit.start_s, hit.page

        theirs = first_hits(asked, by_ume)

    # LlamaIndex's public classes and the adapter.
    embedding = UmeEmbedding("ume-tiny", cache=cache)
    with UmeVectorStore(open_store(tmp_path / "store", "llama"), embedding) as vectors:
        reader = UmeReader(segment_s=seconds, overlap_s=0.0)
        documents = reader.load_data(paths)
        assert len(documents) >= images + clips + pages
        nodes = IngestionPipeline(transformations=[embedding], vector_store=vectors).run(documents=documents)
        assert len(nodes) == len(documents)

        def by_llama(query: Asked) -> Place:
            where = Filter(kinds=query.kinds)
            retriever = UmeRetriever(embedding, vectors, similarity_top_k=1, where=where)
            [best] = retriever.retrieve(QueryBundle(query.text, image_path=str(query.image) if query.image else None))
            return best.metadata["source"], best.metadata.get("start_s"), best.metadata.get("page")

        ours = first_hits(asked, by_llama)
    return theirs, ours


def test_as_often_right_as_ume_search_small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    theirs, ours = compare(tmp_path, images=12, clips=3, pages=4, queries=2)
    assert len(ours) == 10
    assert sum(ours) >= sum(theirs) >= 6

    # The command reads what the pipeline has written.
    monkeypatch.setenv("UME_CACHE_DIR", str(tmp_path / "cache"))
    question = "find image: red circle top left, blue cross middle right"
    command = [
        "search",
        question,
        "--store",
        str(tmp_path / "store"),
        "--collection",
        "llama",
        "--limit",
        "3",
        "--json",
    ]
    result = CliRunner().invoke(app, command)
    assert result.exit_code == 0, result.output
    embedding = UmeEmbedding("ume-tiny", cache=TraceCache(tmp_path / "traces.sqlite3"))
    with UmeVectorStore.open(tmp_path / "store", "llama", embedding) as vectors:
        nodes = UmeRetriever(embedding, vectors, similarity_top_k=3, group_by="point").retrieve(question)
    hits = json.loads(result.stdout)["hits"]
    assert [(hit["source"], hit["answer"]) for hit in hits] == [
        (node.metadata["source"], node.metadata["answer"]) for node in nodes
    ]


@pytest.mark.slow
def test_as_often_right_as_ume_search(tmp_path: Path) -> None:
    theirs, ours = compare(tmp_path, images=100, clips=20, pages=10, queries=10)
    assert len(ours) == 50
    assert sum(ours) >= sum(theirs) >= 40
