"""The operators against one process: the same points, whatever the collection holds already."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
from fault_qdrant import Engine, QdrantServer
from qdrant_world import age, dump, models, same
from ray_world import CUT, here, operators, through
from small_media import BLUE, RED, YELLOW, clip, document, fill, picture

from ume_qdrant import EdgeStore, Sharding, index, open_store
from ume_qdrant.indexing.ingest import IndexReasoning
from ume_qdrant.indexing.objects import places_of
from ume_ray import Models, StoreAddress
from ume_ray.stages import Job
from ume_ray.stores import Shared
from ume_ray.units import batch_of, rows_of
from ume_retrieval.errors import CollectionNotFound
from ume_retrieval.testing import FakeReasoner, HashEmbedder

PAIR = Models(HashEmbedder, FakeReasoner, cache=None)


class World:
    """A folder, a collection that one process fills, and one that the operators fill."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.folder = fill(root / "in")

    def step(self, ours: IndexReasoning, theirs: IndexReasoning | None = None) -> tuple[Any, Any]:
        """Index on both sides, compare all points, and return both reports."""
        with open_store(self.root / "one", "things") as store:
            expected = index(models(), store, self.folder, reasoning=theirs or ours)
            one = dump(store)
            meta = store.meta()
        made = here(PAIR, StoreAddress(str(self.root / "many"), "things"), self.folder, ours)
        with open_store(self.root / "many", "things") as store:
            same(one, dump(store))
            assert store.meta() == meta
        assert made.failed == expected.failed
        for name in ("indexed", "unchanged", "removed", "moved", "points"):
            assert getattr(made, name) == getattr(expected, name), name
        return made, expected


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


@pytest.mark.parametrize("reasoning", ["later", "always", "never"])
def test_the_same_points_as_one_process(world: World, reasoning: IndexReasoning) -> None:
    made, expected = world.step(reasoning)
    assert (made.indexed, made.points) == (6, 8)
    assert made.usage.embedder_calls == expected.usage.embedder_calls
    assert made.usage.reasoner_calls == expected.usage.reasoner_calls
    again, _ = world.step(reasoning)
    assert (again.indexed, again.unchanged, again.model_calls) == (0, 6, 0)


def test_what_later_has_left_is_reasoned_over_by_always(world: World) -> None:
    world.step("later")
    made, _ = world.step("always")
    assert (made.indexed, made.unchanged) == (0, 6)
    assert (made.usage.reasoner_calls, made.usage.embedder_calls) == (8, 8)


@pytest.mark.parametrize("then", ["later", "always"])
def test_what_never_has_excluded_comes_back(world: World, then: IndexReasoning) -> None:
    world.step("never")
    world.step(then)


def test_changed_moved_copied_and_gone_files(world: World) -> None:
    world.step("always")
    picture(world.folder / "red.png", BLUE)  # other bytes, those of deep/blue.png
    (world.folder / "green.png").rename(world.folder / "moved.png")
    shutil.copy(world.folder / "clip.mp4", world.folder / "deep" / "copy.mp4")
    document(world.folder / "report.pdf", RED, YELLOW, BLUE)
    (world.folder / "notes.txt").unlink()
    (world.folder / "new.txt").write_text("first light", encoding="utf-8")
    age(world.folder / "deep" / "blue.png")  # other time, same bytes
    made, _ = world.step("always")
    assert made.removed == 2
    assert made.usage.reasoner_calls == 4  # three pages and a text


def test_twins_of_points_that_wait_are_reasoned_over(world: World) -> None:
    world.step("later")
    shutil.copy(world.folder / "red.png", world.folder / "again.png")
    world.step("always")


def test_a_broken_file_is_named_and_the_rest_goes_on(world: World) -> None:
    (world.folder / "broken.png").write_bytes((world.folder / "red.png").read_bytes()[:60])
    (world.folder / "deep" / "empty.jpg").touch()
    (world.folder / "cut.mp4").write_bytes((world.folder / "clip.mp4").read_bytes()[:900])
    made, _ = world.step("always")
    assert {Path(failure.source).name for failure in made.failed} == {"broken.png", "empty.jpg", "cut.mp4"}
    world.step("always")


def test_a_reply_that_is_no_trace_marks_its_point(tmp_path: Path) -> None:
    """The point has its direct vector, says that reasoning failed, and is left alone by the next run."""
    folder = fill(tmp_path / "in")
    pair = Models(HashEmbedder, lambda: FakeReasoner(lambda chat: ""), cache=None)
    address = StoreAddress(str(tmp_path / "many"), "things")
    made = here(pair, address, folder, "always")
    assert len(made.failed) == 6
    with open_store(tmp_path / "one", "things") as store:
        index(models(answer=lambda chat: ""), store, folder, reasoning="always")
        one = dump(store)
    with EdgeStore(address.location, "things") as store:
        same(one, dump(store))
    assert here(pair, address, folder, "always").model_calls == 0


def test_a_folder_that_cannot_be_found_keeps_its_points(world: World) -> None:
    world.step("later")
    world.folder.rename(world.root / "unmounted")
    made = here(PAIR, StoreAddress(str(world.root / "many"), "things"), world.folder)
    assert (made.removed, len(made.failed)) == (0, 1)
    with EdgeStore(world.root / "many", "things") as store:
        assert store.count() == 8


def test_traces_are_kept_where_workers_share_a_disk(world: World, tmp_path: Path) -> None:
    pair = Models(HashEmbedder, FakeReasoner, cache=tmp_path / "traces.sqlite3")
    first = here(pair, StoreAddress(str(tmp_path / "a"), "things"), world.folder, "always")
    other = here(pair, StoreAddress(str(tmp_path / "b"), "things"), world.folder, "always")
    assert (first.usage.reasoner_calls, other.usage.reasoner_calls) == (8, 0)
    assert other.usage.cached_traces == 8


def test_more_segments_than_fit_one_batch(tmp_path: Path) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    clip(folder / "long.mp4", 90, RED, BLUE, YELLOW)
    made = here(PAIR, StoreAddress(str(tmp_path / "many"), "things"), folder, "always")
    with open_store(tmp_path / "one", "things") as store:
        index(models(), store, folder, reasoning="always")
        one = dump(store)
    assert made.points == len(one) > 4
    with EdgeStore(tmp_path / "many", "things") as store:
        same(one, dump(store))


def test_a_server_gets_the_same_points_and_is_told_how_to_spread_them(world: World) -> None:
    asked: list[Any] = []

    class Listening(Engine):
        def answer(self, method: str, path: str, body: Any) -> Any:
            if method == "PUT" and path.count("/") == 2:
                asked.append(body)
            return super().answer(method, path, body)

    server = QdrantServer(engine=Listening())
    try:
        address = StoreAddress(server.url, "things", sharding=Sharding(shards=6, replicas=2, write_consistency=2))
        made = here(PAIR, address, world.folder, "always")
        assert made.points == 8
        [created] = asked
        assert (created["shard_number"], created["replication_factor"]) == (6, 2)
        assert created["write_consistency_factor"] == 2
        with open_store(world.root / "one", "things") as store:
            index(models(), store, world.folder, reasoning="always")
            one = dump(store)
        with open_store(server.url, "things") as store:
            same(one, dump(store))
    finally:
        server.stop()


def test_what_strikes_the_store_ends_the_run_by_name(world: World) -> None:
    """Ray Data reports an operator's error as text; ours travels as a row and is raised as what it was."""

    class Forgetful(Engine):
        def answer(self, method: str, path: str, body: Any) -> Any:
            if method == "PUT" and path.partition("?")[0].endswith("/points"):
                raise KeyError("things")
            return super().answer(method, path, body)

    server = QdrantServer(engine=Forgetful())
    try:
        with pytest.raises(CollectionNotFound) as caught:
            here(PAIR, StoreAddress(server.url, "things"), world.folder)
        assert caught.value.hint
    finally:
        server.stop()


def test_decoding_is_the_same_again_though_points_were_written_meanwhile(world: World) -> None:
    """Ray does the work of a dead worker again and leaves out what it had handed on: it must come in the same order."""
    address = StoreAddress(str(world.root / "many"), "things")
    described = PAIR.describe(reasoned=False)
    job = Job(PAIR, described, Shared(address), "later", CUT, False, (), 2)
    with address.open() as store:
        store.create(described.plain_meta)
    places = places_of(world.folder)
    [*lists, embed, write] = operators(job, places)
    *before, decode = lists
    batches: Any = [batch_of([[0]])]
    for stage in before:
        batches = list(through(stage, batches))
    first = list(through(decode, batches))
    assert len(first) > 2
    list(through(write, through(embed, first[:2])))
    again = list(through(decode, batches))
    assert [[row.unit for row in rows_of(batch)] for batch in again] == [
        [row.unit for row in rows_of(batch)] for batch in first
    ]
    job.shared.store().close()
