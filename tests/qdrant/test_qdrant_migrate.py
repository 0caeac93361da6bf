"""From a directory to a server and back: whole, resumable, counted."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest
from qdrant_client import QdrantClient
from qdrant_world import dump, models, same
from small_media import fill

from ume_qdrant import (
    ClientStore,
    CollectionMeta,
    EdgeStore,
    Layout,
    Point,
    Progress,
    Store,
    enrich,
    index,
    migrate,
    search,
)
from ume_retrieval import InputError, StoreError
from ume_retrieval.errors import CollectionNotFound, StoreMismatch, StoreUnsupported


@pytest.fixture
def edge(tmp_path: Path) -> Iterator[EdgeStore]:
    with EdgeStore(tmp_path / "vectors", "things") as store:
        yield store


@pytest.fixture
def client() -> Iterator[QdrantClient]:
    made = QdrantClient(":memory:")
    yield made
    made.close()


@pytest.fixture
def server(client: QdrantClient) -> ClientStore:
    return ClientStore(client, "things")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return fill(tmp_path / "things")


@pytest.mark.parametrize("back", [False, True])
def test_everything_arrives_both_ways(edge: EdgeStore, server: ClientStore, folder: Path, back: bool) -> None:
    source, target = (server, edge) if back else (edge, server)
    index(models(), source, folder, reasoning="always")
    steps: list[Progress] = []
    report = migrate(source, target, batch_size=3, on_progress=steps.append)
    assert (report.copied, report.unchanged, report.others) == (8, 0, 0)
    assert [(step.stage, step.done, step.total) for step in steps] == [
        ("migrate", 3, 8),
        ("migrate", 6, 8),
        ("migrate", 8, 8),
    ]
    same(dump(source), dump(target))
    assert target.meta() == source.meta()
    assert search(models(), target, "train home", limit=1).hits[0].text == "the last train home"
    again = index(models(), target, folder, reasoning="always")
    assert (again.unchanged, again.model_calls) == (6, 0), "the target goes on where the source was"


class Failing(ClientStore):
    """Loses the server after some writes."""

    writes = 1

    def upsert(self, points: Sequence[Point]) -> None:
        if self.writes == 0:
            raise StoreError("lost", retryable=True)
        self.writes -= 1
        super().upsert(points)


def test_a_migration_that_was_stopped_goes_on(
    edge: EdgeStore, client: QdrantClient, server: ClientStore, folder: Path
) -> None:
    index(models(), edge, folder)
    with pytest.raises(StoreError, match="lost"):
        migrate(edge, Failing(client, "things"), batch_size=3)
    assert server.count() == 3
    report = migrate(edge, server, batch_size=3)
    assert (report.copied, report.unchanged) == (5, 3)
    same(dump(edge), dump(server))


def test_what_changed_since_is_sent_anew(edge: EdgeStore, server: ClientStore, folder: Path) -> None:
    index(models(), edge, folder)
    migrate(edge, server)
    enrich(models(), edge)
    other = Point("00000000-0000-0000-0000-000000000001", {}, {"source": "only there"})
    server.upsert([other])
    report = migrate(edge, server)
    assert (report.copied, report.unchanged, report.others) == (8, 0, 1)
    assert server.meta().reasoner == "fake-reasoner"
    there = dump(server)
    del there[other.id]
    same(dump(edge), there)


def test_a_collection_gets_another_layout(tmp_path: Path, edge: EdgeStore, folder: Path) -> None:
    index(models(), edge, folder)
    with EdgeStore(tmp_path / "vectors", "small") as small:
        layout = Layout(matryoshka_dim=8, quantization="scalar")
        migrate(edge, small, layout=layout)
        assert small.layout() == layout
        same(dump(edge), dump(small))
        with pytest.raises(StoreMismatch, match="not truncated vectors of 4"):
            migrate(edge, small, layout=Layout(matryoshka_dim=4))
        assert migrate(edge, small).unchanged == 8, "without a wish the target's layout stays"


def test_what_cannot_be_is_said(edge: EdgeStore, server: ClientStore, folder: Path) -> None:
    with pytest.raises(CollectionNotFound):
        migrate(edge, server)
    assert not server.exists()
    index(models(), edge, folder, layout=Layout(quantization="binary"))
    with pytest.raises(StoreUnsupported):
        migrate(edge, server)
    server.create(CollectionMeta("other", "", "hash", edge.meta().dimension))
    with pytest.raises(StoreMismatch, match="'other'"):
        migrate(edge, server)
    assert server.count() == 0
    with pytest.raises(InputError, match="same collection"):
        migrate(edge, EdgeStore(edge.location, "things"))
    with pytest.raises(InputError, match="batch_size"):
        migrate(edge, server, batch_size=0)


class Forgetful(ClientStore):
    """Something else removes a point while it is filled."""

    def upsert(self, points: Sequence[Point]) -> None:
        super().upsert(points[1:])


def test_points_that_are_missing_in_the_end_are_an_error(edge: EdgeStore, client: QdrantClient) -> None:
    edge.create(CollectionMeta("model", "", "hash", 4))
    row = np.ones(4, dtype=np.float32)
    edge.upsert([Point(f"00000000-0000-0000-0000-00000000000{n}", {"direct": row}, {"source": "a"}) for n in range(3)])
    target: Store = Forgetful(client, "things")
    with pytest.raises(StoreError, match="2 of 3 points"):
        migrate(edge, target)
