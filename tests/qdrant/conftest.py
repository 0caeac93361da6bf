from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from qdrant_client import QdrantClient
from qdrant_stub import Stub, serving

from ume_qdrant import ClientStore, EdgeStore, Store

# Machines that run tests are busy; how long an example takes says nothing here.
settings.register_profile("unhurried", deadline=None, suppress_health_check=[HealthCheck.too_slow], max_examples=60)
settings.load_profile("unhurried")

Opener = Callable[[str], Store]


@pytest.fixture(params=["edge", "client"])
def open_collection(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Opener]:
    """Opens collections by name, on a real Edge directory or on the client's own in-memory engine."""
    client = QdrantClient(":memory:")
    opened: list[Store] = []

    def opener(name: str) -> Store:
        made: Store = EdgeStore(tmp_path / "vectors", name) if request.param == "edge" else ClientStore(client, name)
        opened.append(made)
        return made

    yield opener
    for made in opened:
        made.close()
    client.close()


@pytest.fixture
def store(open_collection: Opener) -> Store:
    return open_collection("things")


@pytest.fixture
def stub() -> Iterator[Stub]:
    with serving() as state:
        yield state
