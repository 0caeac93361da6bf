"""Object stores by address, pools fitted to clusters, errors by name."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from ray_world import here
from small_media import fill

from ume_qdrant import EdgeStore, Sharding
from ume_qdrant.indexing.objects import listed, places_of
from ume_ray import Models, StoreAddress, WorkerPools, WorkersLost
from ume_ray.cluster import own_error
from ume_retrieval import Failure, InputError, Limits, StoreError
from ume_retrieval.testing import FakeReasoner, HashEmbedder

PAIR = Models(HashEmbedder, FakeReasoner, cache=None)


def points(address: StoreAddress) -> dict[tuple[Any, ...], Any]:
    with EdgeStore(address.location, address.collection) as store:
        found = list(store.scroll())
    return {place(point.payload): point for point in found}


def place(payload: Any) -> tuple[Any, ...]:
    """What tells a point from the others of its file."""
    return payload["source"], payload.get("page"), payload.get("start_s")


def bucket(folder: Path) -> str:
    """A folder as pyarrow's own file system sees it: the way of s3:// and gs://, without a network."""
    return folder.as_uri()


def test_objects_are_indexed_like_files_and_named_by_their_address(tmp_path: Path) -> None:
    folder = fill(tmp_path / "lake")
    (folder / ".hidden.png").write_bytes((folder / "red.png").read_bytes())
    (folder / "data.parquet").write_bytes(b"no media")
    local, remote = (StoreAddress(str(tmp_path / name), "things") for name in ("local", "remote"))
    here(PAIR, local, folder, "always")
    made = here(PAIR, remote, bucket(folder), "always")
    assert (made.indexed, made.points, made.failed) == (6, 8, ())
    files, objects = points(local), points(remote)
    assert len(objects) == 8
    for (source, *rest), file in files.items():
        stored = objects[Path(source).as_uri(), *rest]
        for name in ("kind", "file_digest", "size", "mtime_ns", "text", "trace", "reasoning", "parts"):
            assert stored.payload.get(name) == file.payload.get(name), name
    again = here(PAIR, remote, bucket(folder), "always")
    assert (again.unchanged, again.points, again.model_calls) == (6, 0, 0)


def test_objects_that_are_gone_or_broken(tmp_path: Path) -> None:
    folder, address = fill(tmp_path / "lake"), StoreAddress(str(tmp_path / "remote"), "things")
    here(PAIR, address, bucket(folder))
    (folder / "red.png").unlink()
    (folder / "green.png").write_bytes((folder / "green.png").read_bytes()[:60])
    made = here(PAIR, address, bucket(folder))
    assert (made.removed, made.unchanged) == (1, 4)
    [failure] = made.failed
    assert failure.source == bucket(folder) + "/green.png"
    assert "/tmp" not in failure.message.replace(failure.source, "")
    assert (bucket(folder) + "/green.png", None, None) in points(address)  # its former points stay


def test_a_bucket_that_is_not_there_is_a_failure_and_loses_nothing(tmp_path: Path) -> None:
    folder, address = fill(tmp_path / "lake"), StoreAddress(str(tmp_path / "remote"), "things")
    here(PAIR, address, bucket(folder))
    folder.rename(tmp_path / "elsewhere")
    made = here(PAIR, address, bucket(folder))
    assert (made.removed, [failure.error for failure in made.failed]) == (0, ["media_not_found"])
    assert len(points(address)) == 8


def test_an_object_over_the_limit_is_not_fetched(tmp_path: Path) -> None:
    folder = fill(tmp_path / "lake")
    found = list(listed([bucket(folder)], limits=Limits(max_bytes=100), follow_symlinks=False, leave_out=()))
    assert {one.error for one in found if isinstance(one, Failure)} == {"media_too_large"}
    [text] = [one for one in found if not isinstance(one, Failure)]
    assert text.source.endswith("notes.txt")


def test_a_scheme_that_nobody_knows_is_named(tmp_path: Path) -> None:
    [failure] = listed(["nosuch://bucket/x"], limits=Limits(), follow_symlinks=False, leave_out=())
    assert isinstance(failure, Failure)
    assert "nosuch" in failure.message


@pytest.mark.parametrize(
    "address",
    ["s3://key:secret@bucket/x", "s3://bucket/x?secret_key=abc", "s3://bucket?endpoint=a&access_key=b", "gs://u@b/x"],
)
def test_an_address_with_a_key_is_refused_without_repeating_it(address: str) -> None:
    with pytest.raises(InputError) as caught:
        places_of([address])
    assert "secret" not in str(caught.value)
    assert "abc" not in str(caught.value)


@pytest.mark.parametrize("address", ["https://example.org/cat.png", "data:image/png;base64,AA"])
def test_single_addresses_are_no_source(address: str) -> None:
    with pytest.raises(InputError):
        places_of([address])


@given(
    cpus=st.integers(1, 512),
    gpus=st.integers(0, 64),
    reasoning=st.booleans(),
)
def test_pools_that_fit_themselves_are_never_refused(cpus: int, gpus: int, reasoning: bool) -> None:
    resources = {"CPU": float(cpus), "GPU": float(gpus)}
    pools = WorkerPools.for_cluster(resources, reasoning=reasoning)
    pools.check(resources, reasoning=reasoning)
    if gpus:
        used = pools.embedders * pools.embedder_gpus + (pools.reasoners * pools.reasoner_gpus if reasoning else 0)
        assert used == gpus


def test_what_has_no_room_is_refused() -> None:
    with pytest.raises(InputError, match="3 GPUs, the cluster has 8 and 2"):
        WorkerPools(embedders=1, reasoners=2, embedder_gpus=1, reasoner_gpus=1, cpus=0).check(
            {"CPU": 8.0, "GPU": 2.0}, reasoning=True
        )
    with pytest.raises(InputError):
        WorkerPools(embedders=0)


def test_an_error_of_ours_comes_out_of_what_ray_wraps_it_in() -> None:
    lost = StoreError("the server is gone", retryable=True)
    wrapper = RuntimeError("ray::Write() failed\nTraceback …")
    wrapper.__cause__ = lost
    assert own_error(wrapper) is lost
    assert isinstance(own_error(RuntimeError("\x1b[36mthe worker died\x1b[39m")), WorkersLost)
    assert "\x1b" not in own_error(RuntimeError("\x1b[36mthe worker died")).message


def test_a_directory_takes_no_sharding(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="sharding"):
        StoreAddress(str(tmp_path), "things", sharding=Sharding(shards=2)).open()


def test_the_key_is_in_no_address(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("QDRANT_API_KEY", "s3cr3t")
    address = StoreAddress("http://127.0.0.1:1", "things")
    assert "s3cr3t" not in repr(address)
