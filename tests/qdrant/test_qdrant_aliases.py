"""Aliases: a new index swaps in at once, on both stores."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ume_qdrant import CollectionMeta, EdgeStore, Layout, Point, Store
from ume_qdrant.stores.edge_folder import EdgeDirectory
from ume_retrieval import InputError, StoreError
from ume_retrieval.errors import CollectionNotFound

META = CollectionMeta("model", "rev", "embed-rl", 4)
ONE = np.array([1, 0, 0, 0], dtype=np.float32)
IDS = [f"00000000-0000-0000-0000-00000000000{n}" for n in range(4)]


def made(store: Store, *ids: str, layout: Layout | None = None) -> Store:
    store.create(META, layout)
    store.upsert([Point(key, {"direct": ONE}, {"source": store.collection}) for key in ids])
    return store


def test_an_alias_stands_for_its_collection_in_every_call(open_collection: Any) -> None:
    original = made(open_collection("one"), IDS[0], IDS[1])
    original.set_alias("films")
    original.close()  # Edge: one store at a time holds a collection
    store = open_collection("films")
    assert store.exists()
    assert store.meta() == META
    assert store.layout() == Layout()
    store.create(META)
    store.upsert([Point(IDS[2], {"direct": ONE}, {"source": "x"})])
    store.update([Point(IDS[2], {"reasoned": ONE}, {"page": 2})])
    store.delete([IDS[0]])
    store.set_metadata(CollectionMeta("model", "rev", "embed-rl", 4, "thinker", "r", "p"))
    assert [hit.id for hit in store.search("reasoned", ONE, limit=9)] == [IDS[2]]
    store.close()
    assert [point.id for point in original.scroll()] == [IDS[1], IDS[2]]
    assert original.meta().reasoner == "thinker"


def test_a_swap_is_seen_by_a_store_that_is_open(open_collection: Any) -> None:
    one, two = (
        made(open_collection("one"), IDS[0]),
        made(open_collection("two"), IDS[1], layout=Layout(matryoshka_dim=2)),
    )
    assert one.set_alias("films") is None
    store = open_collection("films")
    one.close()
    assert [hit.id for hit in store.search("direct", ONE, limit=9)] == [IDS[0]]
    two.close()
    assert two.set_alias("films") == "one"
    assert [hit.id for hit in store.search("direct", ONE, limit=9)] == [IDS[1]]
    assert store.layout() == Layout(matryoshka_dim=2)
    store.upsert([Point(IDS[3], {"direct": ONE}, {})])
    assert {hit.id for hit in store.search("direct", ONE, limit=9)} == {IDS[1], IDS[3]}, "written in the new layout"
    assert two.aliases() == {"films": "two"}


def test_an_alias_of_an_alias_names_the_collection(open_collection: Any) -> None:
    made(open_collection("one")).set_alias("films")
    open_collection("films").set_alias("movies")
    assert open_collection("movies").aliases() == {"films": "one", "movies": "one"}


def test_the_name_of_a_collection_is_no_alias(open_collection: Any) -> None:
    one = made(open_collection("one"))
    made(open_collection("films"))
    with pytest.raises(StoreError, match="is the name of a collection") as caught:
        one.set_alias("films")
    assert caught.value.hint
    assert one.aliases() == {}


def test_only_what_is_there_gets_an_alias(open_collection: Any) -> None:
    with pytest.raises(CollectionNotFound):
        open_collection("nothing").set_alias("films")


def test_an_alias_is_forgotten(open_collection: Any) -> None:
    one = made(open_collection("one"))
    one.set_alias("films")
    one.drop_alias("films")
    one.drop_alias("films")
    assert one.aliases() == {}
    assert not open_collection("films").exists()


@pytest.mark.parametrize("name", ["", ".", "../one/collection.json", "../../outside"])
def test_what_is_forgotten_is_an_alias_and_no_other_file(tmp_path: Path, name: str) -> None:
    outside = tmp_path / "outside"
    outside.touch()
    with EdgeStore(tmp_path / "vectors", "one") as one:
        made(one).set_alias("films")
        with pytest.raises(InputError):
            one.drop_alias(name)
        assert one.exists()
        assert outside.exists()


def test_a_collection_is_removed_with_its_aliases(open_collection: Any) -> None:
    one, two = made(open_collection("one"), IDS[0]), made(open_collection("two"), IDS[1])
    one.set_alias("films")
    with pytest.raises(StoreError, match="is an alias"):
        open_collection("films").drop()
    assert one.count() == 1
    one.drop()
    assert not one.exists()
    assert one.aliases() == {}
    assert two.count() == 1
    assert made(open_collection("one")).count() == 0


def test_a_missing_collection_names_aliases_too(tmp_path: Path) -> None:
    with EdgeStore(tmp_path, "one") as one:
        made(one).set_alias("films")
    with pytest.raises(CollectionNotFound) as caught:
        EdgeStore(tmp_path, "flims").count()
    assert caught.value.hint == "it has films, one"


@pytest.mark.parametrize("name", ["../films", ".films", "a/b", ""])
def test_an_alias_cannot_leave_its_folder(tmp_path: Path, name: str) -> None:
    with EdgeStore(tmp_path, "one") as one, pytest.raises(InputError, match="cannot name"):
        made(one).set_alias(name)


def test_a_held_collection_is_not_removed(tmp_path: Path) -> None:
    with EdgeStore(tmp_path, "one") as holder:
        made(holder, IDS[0])
        with pytest.raises(StoreError, match="in use"):
            EdgeStore(tmp_path, "one").drop()
        assert holder.count() == 1


def test_threads_share_one_store_while_the_alias_moves(tmp_path: Path) -> None:
    for name, key in (("one", IDS[0]), ("two", IDS[1])):
        with EdgeStore(tmp_path, name) as store:
            made(store, key)
    directory = EdgeDirectory(tmp_path)
    directory.set_alias("films", "one")
    wrong: list[object] = []
    with EdgeStore(tmp_path, "films") as films:

        def look() -> None:
            for _ in range(40):
                try:
                    found = [hit.id for hit in films.search("direct", ONE, limit=9)]
                except StoreError as error:
                    wrong.append(error)
                else:
                    wrong.extend([] if found in ([IDS[0]], [IDS[1]]) else [found])

        threads = [threading.Thread(target=look) for _ in range(4)]
        for thread in threads:
            thread.start()
        directory.set_alias("films", "two")
        for thread in threads:
            thread.join()
        assert wrong == []
        assert [hit.id for hit in films.search("direct", ONE, limit=9)] == [IDS[1]]


@pytest.mark.parametrize("content", [b"../../elsewhere", b"/etc", b"", b"a\0b", b"\xff\xfe", b".aliases", b"x" * 300])
def test_an_alias_that_holds_no_name_is_a_typed_error(tmp_path: Path, content: bytes) -> None:
    """The content was taken for a path, so an alias could lead out of the folder."""
    with made(EdgeStore(tmp_path, "one"), IDS[0]) as store:
        store.set_alias("films")
    (tmp_path / ".aliases" / "films").write_bytes(content)
    with EdgeStore(tmp_path, "films") as store, pytest.raises(StoreError, match="is damaged") as caught:
        store.count()
    assert caught.value.hint
    with EdgeStore(tmp_path, "one") as store:
        assert set(store.aliases()) == {"films"}
        store.set_alias("films")
    with EdgeStore(tmp_path, "films") as store:
        assert store.count() == 1
