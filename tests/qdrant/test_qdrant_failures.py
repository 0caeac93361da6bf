"""What a server does wrong, by a stub in front of the client's real HTTP layer; locked and spoilt directories."""

from __future__ import annotations

import os
import subprocess
import sys
import warnings
from concurrent import futures
from pathlib import Path
from typing import Any

import grpc  # type: ignore[import-untyped]  # grpcio ships no types
import numpy as np
import pytest
from qdrant_client import QdrantClient
from qdrant_stub import OK, Stub, info

from ume_qdrant import ClientStore, CollectionMeta, EdgeStore, Point, Store, open_store
from ume_qdrant.stores.edge_folder import META_FILE
from ume_retrieval import InputError, StoreError
from ume_retrieval.errors import CollectionNotFound, StoreLocked, StoreMismatch
from ume_retrieval.util.retry import Retry

KEY = "s3cr3t-k3y"
META = CollectionMeta("model", "rev", "embed-rl", 4)
POINT = Point("00000000-0000-0000-0000-000000000001", {"direct": np.ones(4, dtype=np.float32)}, {"source": "a"})


@pytest.fixture
def naps() -> list[float]:
    return []


def connect(stub: Stub, naps: list[float], *, attempts: int = 4, timeout_s: int = 5) -> Store:
    with warnings.catch_warnings():
        # The client warns that a key travels unencrypted; towards this stub on 127.0.0.1 it must.
        warnings.filterwarnings("ignore", message="Api key is used with an insecure connection")
        return open_store(
            stub.url,
            "films",
            api_key=KEY,
            timeout_s=timeout_s,
            retry=Retry(attempts=attempts, sleep=naps.append, uniform=lambda: 1.0),
        )


COUNT = (200, {"result": {"count": 7}, **OK}, {})
WRITTEN = (200, {"result": {"operation_id": 1, "status": "completed"}, **OK}, {})


@pytest.mark.parametrize("status", [429, 502, 503, 504, 0])
def test_a_busy_or_lost_server_is_asked_again(stub: Stub, naps: list[float], status: int) -> None:
    stub.described = info(META.to_dict())
    stub.script = [(status, {"status": {"error": "not now"}}, {})] * 2 + [COUNT]
    with connect(stub, naps) as store:
        assert store.count() == 7
    assert naps == [0.5, 1.0]
    assert [command for command, *_ in stub.seen] == ["GET", "POST", "POST", "POST"]


def test_the_wait_that_a_server_asks_for_is_kept(stub: Stub, naps: list[float]) -> None:
    stub.described = info(META.to_dict())
    stub.script = [(429, {"status": {"error": "slow down"}}, {"Retry-After": "3"}), COUNT]
    with connect(stub, naps) as store:
        assert store.count() == 7
    assert naps == [3.0]


def test_patience_ends(stub: Stub, naps: list[float]) -> None:
    stub.script = [(503, {"status": {"error": "maintenance"}}, {})]
    with connect(stub, naps, attempts=3) as store, pytest.raises(StoreError) as caught:
        store.upsert([POINT])
    error = caught.value
    assert error.retryable
    assert error.hint
    assert "503 maintenance" in error.message
    assert "(3 attempts)" in error.message
    assert len(stub.seen) == 3


def test_a_time_out_is_retryable(stub: Stub, naps: list[float]) -> None:
    stub.script, stub.delay_s = [COUNT], 1.4
    with (
        connect(stub, naps, attempts=1, timeout_s=1) as store,
        pytest.raises(StoreError, match="does not answer") as caught,
    ):
        store.count()
    assert caught.value.retryable


@pytest.mark.parametrize("prefer_grpc", [False, True])
def test_nobody_listens(prefer_grpc: bool, naps: list[float]) -> None:
    # Port 1 is reserved and closed; the gRPC port of the client is likewise closed here.
    retry = Retry(attempts=2, sleep=naps.append, uniform=lambda: 0.0)
    store = open_store("http://127.0.0.1:1", "films", prefer_grpc=prefer_grpc, timeout_s=2, retry=retry)
    with store, pytest.raises(StoreError, match=r"127\.0\.0\.1") as caught:
        store.count()
    assert caught.value.retryable
    assert naps == [0.25]


@pytest.mark.parametrize("status", [401, 403])
def test_a_wrong_key_is_said_at_once_and_never_shown(stub: Stub, naps: list[float], status: int) -> None:
    stub.script = [(status, f"Invalid API key: {KEY}", {})]
    with connect(stub, naps) as store, pytest.raises(StoreError, match="refused the API key") as caught:
        store.count()
    assert not caught.value.retryable
    assert naps == []
    assert stub.seen[0][3]["api-key"] == KEY


@pytest.mark.parametrize("status", [400, 401, 404, 409, 422, 429, 500, 503])
def test_no_message_holds_the_key(stub: Stub, naps: list[float], status: int) -> None:
    stub.script = [(status, {"status": {"error": f"the collection saw {KEY}"}}, {})]
    with connect(stub, naps) as store, pytest.raises(StoreError) as caught:
        store.count()
    error: BaseException | None = caught.value
    assert isinstance(error, StoreError)
    assert KEY not in f"{error} {error.hint} {error!r} {store!r} {store.location}"
    assert error.__suppress_context__


@pytest.mark.parametrize(
    ("code", "expected", "asked"),
    [
        (grpc.StatusCode.UNAVAILABLE, StoreError, 3),
        (grpc.StatusCode.RESOURCE_EXHAUSTED, StoreError, 3),
        (grpc.StatusCode.DEADLINE_EXCEEDED, StoreError, 3),
        (grpc.StatusCode.UNAUTHENTICATED, StoreError, 1),
        (grpc.StatusCode.PERMISSION_DENIED, StoreError, 1),
        (grpc.StatusCode.NOT_FOUND, CollectionNotFound, 1),
        (grpc.StatusCode.INVALID_ARGUMENT, StoreError, 1),
    ],
)
def test_grpc_refusals_mean_the_same(
    code: grpc.StatusCode, expected: type[StoreError], asked: int, naps: list[float]
) -> None:
    calls: list[str] = []

    class Refuse(grpc.GenericRpcHandler):  # type: ignore[misc]  # grpcio ships no types
        def service(self, details: Any) -> Any:
            calls.append(details.method)
            return grpc.unary_unary_rpc_method_handler(
                lambda _, context: context.abort(code, f"Collection `films`, key {KEY}")
            )

    server = grpc.server(futures.ThreadPoolExecutor(1), handlers=[Refuse()])
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Api key is used with an insecure connection")
        client = QdrantClient(
            url="http://127.0.0.1", grpc_port=port, prefer_grpc=True, api_key=KEY, check_compatibility=False
        )
    store = ClientStore(client, "films", retry=Retry(attempts=3, sleep=naps.append))
    try:
        with pytest.raises(expected) as caught:
            store.count()
    finally:
        client.close()
        server.stop(None).wait()
    assert type(caught.value) is expected
    assert caught.value.retryable == (asked > 1)
    assert KEY not in caught.value.message
    assert len(calls) == asked


def test_a_missing_collection_has_its_own_error(stub: Stub, naps: list[float]) -> None:
    stub.script = [(404, {"status": {"error": "Not found: Collection `films` doesn't exist!"}}, {})]
    with connect(stub, naps) as store, pytest.raises(CollectionNotFound, match="'films'"):
        store.meta()


def test_a_refused_request_is_not_repeated(stub: Stub, naps: list[float]) -> None:
    stub.script = [(400, {"status": {"error": "Wrong input: Vector dimension error"}}, {})]
    with connect(stub, naps) as store, pytest.raises(StoreError, match="Vector dimension error"):
        store.upsert([POINT])
    assert len(stub.seen) == 1


def test_an_answer_that_is_no_answer(stub: Stub, naps: list[float]) -> None:
    stub.script = [(200, "<html>a proxy's page</html>", {})]
    with connect(stub, naps, attempts=2) as store, pytest.raises(StoreError, match="not Qdrant's") as caught:
        store.count()
    assert not caught.value.retryable


def test_every_write_waits_until_it_is_applied(stub: Stub, naps: list[float]) -> None:
    stub.script = [WRITTEN]
    stub.described = info({**META.to_dict()})
    with connect(stub, naps) as store:
        store.upsert([POINT])
        store.delete([POINT.id])
        stub.script = [(200, {"result": [WRITTEN[1]["result"]], **OK}, {})]
        store.update([POINT])
    writes = [path for method, path, _, _ in stub.seen if method != "GET"]
    assert [path.partition("?")[0] for path in writes] == [
        "/collections/films/points",
        "/collections/films/points/delete",
        "/collections/films/points/batch",
    ]
    assert all("wait=true" in path for path in writes)


def test_a_server_that_forgets_metadata_is_refused(stub: Stub, naps: list[float]) -> None:
    stub.script = [
        (200, {"result": {"exists": False}, **OK}, {}),
        (200, {"result": True, **OK}, {}),
        (200, {"result": info(None), **OK}, {}),
    ]
    with connect(stub, naps) as store:
        with pytest.raises(StoreError, match="does not keep collection metadata") as caught:
            store.create(META)
        with pytest.raises(StoreMismatch, match="does not say"):
            store.meta()
    assert "1.16" in caught.value.hint
    created = stub.seen[1][2]
    assert created["vectors"].keys() == {"direct", "reasoned"}
    assert created["metadata"]["ume"]["model"] == "model"


@pytest.mark.parametrize(
    ("location", "kwargs"),
    [("ftp://host/x", {}), (":memory:", {}), ("folder", {"api_key": KEY}), ("folder", {"prefer_grpc": True})],
)
def test_locations_that_make_no_sense(location: str, kwargs: dict[str, Any]) -> None:
    with pytest.raises(InputError) as caught:
        open_store(location, "films", **kwargs)
    assert KEY not in f"{caught.value} {caught.value.hint}"


def test_an_address_is_shown_without_its_secrets() -> None:
    store = open_store("https://user:hidden@example.org:7000/qdrant/?token=hidden", "films", api_key=KEY)
    assert store.location == "https://example.org:7000/qdrant"
    assert repr(store) == "ClientStore('https://example.org:7000/qdrant', 'films')"


@pytest.mark.parametrize("address", ["https://example.org:443", "http://example.org:80", "http://example.org:6333"])
def test_the_port_that_is_named_is_the_one_that_is_asked(address: str) -> None:
    assert open_store(address, "films").location == address


def test_a_closed_store_opens_again(stub: Stub) -> None:
    stub.described = info(META.to_dict())
    stub.script = [COUNT, COUNT]
    store = open_store(stub.url, "films", retry=Retry(attempts=1))
    assert store.count() == 7
    store.close()
    store.close()
    assert store.count() == 7
    store.close()


@pytest.mark.parametrize("name", ["", "../up", "a/b", ".hidden", "-dash", "ä", "x" * 201])
def test_names_that_cannot_be_a_folder(tmp_path: Path, name: str) -> None:
    with pytest.raises(InputError, match="cannot name a collection"):
        open_store(tmp_path, name)


HOLD = """
import socket, sys
from ume_qdrant.stores.edge import EdgeStore
del socket.AF_UNIX
store = EdgeStore(sys.argv[1], "films")
store.count()
print("held", flush=True)
sys.stdin.read()
"""


def test_one_process_at_a_time_where_none_can_share(tmp_path: Path) -> None:
    with EdgeStore(tmp_path, "films") as store:
        store.create(META)
        store.upsert([POINT])
    holder = subprocess.Popen(  # noqa: S603  # our own interpreter and text
        [sys.executable, "-c", HOLD, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert holder.stdin is not None
    assert holder.stdout is not None
    try:
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(StoreLocked, match="in use by another process") as caught:
            store.count()
        assert caught.value.retryable
        assert "Qdrant server" in caught.value.hint
        assert store.meta() == META, "metadata can be read meanwhile"
    finally:
        holder.kill()
        holder.wait()
        holder.stdin.close()
        holder.stdout.close()
    assert store.count() == 1, "a killed process leaves no lock behind"
    store.close()


def test_a_name_that_is_wrong_is_told_the_right_ones(tmp_path: Path) -> None:
    EdgeStore(tmp_path, "films").create(META)
    with pytest.raises(CollectionNotFound) as caught:
        EdgeStore(tmp_path, "flims").count()
    assert caught.value.hint == "it has films"


def test_a_half_made_collection_is_no_collection(tmp_path: Path) -> None:
    store = EdgeStore(tmp_path, "films")
    left = tmp_path / ".films.new-abc"
    (left / "shard").mkdir(parents=True)
    assert not store.exists()
    store.create(META)
    assert left.exists(), "it may belong to a process that is still at it"
    os.utime(left, (0, 0))
    other = EdgeStore(tmp_path, "films")
    (tmp_path / "films").rename(tmp_path / "old")
    other.create(META)
    assert not left.exists()
    assert other.count() == 0
    other.close()


@pytest.mark.parametrize("spoilt", [META_FILE, "shard/edge_config.json"])
def test_a_spoilt_directory_is_a_typed_error(tmp_path: Path, spoilt: str) -> None:
    store = EdgeStore(tmp_path, "films")
    store.create(META)
    (tmp_path / "films" / spoilt).write_text("{")
    with pytest.raises(StoreError, match="films"):
        store.meta() if spoilt == META_FILE else store.count()


@pytest.mark.skipif(os.geteuid() == 0, reason="the superuser may write anywhere")
def test_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(StoreError, match="cannot make collection"):
        EdgeStore(tmp_path, "films").create(META)
    tmp_path.chmod(0o700)


def test_a_file_in_place_of_the_folder(tmp_path: Path) -> None:
    (tmp_path / "vectors").write_text("")
    with pytest.raises(StoreError, match="cannot make collection") as caught:
        EdgeStore(tmp_path / "vectors", "films").create(META)
    assert caught.value.hint
