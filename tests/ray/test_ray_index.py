"""On a real Ray of two CPUs: the same points as one process, also when workers die."""

from __future__ import annotations

import os
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from qdrant_world import dump, models, same
from ray_mortals import Hazard, MortalEmbedder, MortalReasoner
from small_media import fill

from ume_qdrant import EdgeStore, index, open_store
from ume_ray import Models, StoreAddress, WorkerPools
from ume_ray import index as ray_index
from ume_ray.cluster import LOCAL
from ume_retrieval import InputError
from ume_retrieval.errors import StoreMismatch
from ume_retrieval.testing import HashEmbedder

ray = pytest.importorskip("ray")

pytestmark = [
    # Ray warns of its own settings, and leaves sockets and files of its own open.
    pytest.mark.filterwarnings(r"ignore::DeprecationWarning:ray\..*"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
]


@pytest.fixture(scope="module")
def cluster() -> Iterator[None]:
    # Ray lowers the priority of its workers; on a busy machine they would not start in minutes.
    os.environ.update({**LOCAL, "RAY_worker_niceness": "0"})
    # Workers unpickle what is defined beside this file.
    rooms = [Path(__file__).parent, Path(__file__).parents[1] / "qdrant", Path(__file__).parents[1]]
    os.environ["PYTHONPATH"] = os.pathsep.join([*map(str, rooms), os.environ.get("PYTHONPATH", "")])
    ray.init(num_cpus=2, include_dashboard=False, object_store_memory=200_000_000, log_to_driver=False)
    yield
    ray.shutdown()


def one_process(root: Path, folder: Path) -> dict[str, Any]:
    with open_store(root / "one", "things") as store:
        index(models(), store, folder, reasoning="always")
        return dump(store)


def test_the_same_points_though_workers_die(cluster: None, tmp_path: Path) -> None:
    """A Reasoner and an Embedder die in the middle of a batch; a broken file is named."""
    folder = fill(tmp_path / "in")
    (folder / "broken.png").write_bytes((folder / "red.png").read_bytes()[:60])
    thinking, embedding = Hazard(tmp_path / "thinking", (0,)), Hazard(tmp_path / "embedding", (1,))
    pair = Models(
        partial(MortalEmbedder, embedding), partial(MortalReasoner, thinking), cache=tmp_path / "traces.sqlite3"
    )
    address, pools = StoreAddress(str(tmp_path / "many"), "things"), WorkerPools(files_a_task=3, items_a_call=3)
    made = ray_index(pair, address, folder, reasoning="always", workers=pools)
    assert (made.indexed, made.points, len(made.failed)) == (6, 8, 1)
    calls = len(list(embedding.folder.iterdir()))
    assert calls > max(embedding.dies_at), "nobody died"
    with EdgeStore(address.location, "things") as store:
        same(one_process(tmp_path, folder), dump(store))


def test_what_strikes_a_worker_reaches_the_caller_by_name(cluster: None, tmp_path: Path) -> None:
    folder, address = fill(tmp_path / "in"), StoreAddress(str(tmp_path / "many"), "things")
    with open_store(address.location, "things") as store:
        index(models(), store, folder)
    other = Models(partial(HashEmbedder, revision="2"), cache=None)
    with pytest.raises(StoreMismatch, match="revision"):
        ray_index(other, address, folder)
    with pytest.raises(InputError, match="the cluster has 2"):
        ray_index(other, address, folder, workers=WorkerPools(embedders=8, cpus=1.0))
    with EdgeStore(address.location, "things") as store:  # nobody holds it any more
        assert store.count() == 8
    named = StoreAddress(address.location, "named")
    with EdgeStore(named.location, "named") as store:
        index(models(), store, folder, relative_to=tmp_path)
    with pytest.raises(InputError, match="relative names"):
        ray_index(Models(HashEmbedder, cache=None), named, folder)
