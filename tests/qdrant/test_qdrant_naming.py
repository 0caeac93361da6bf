"""Files named from a folder on: nothing says what lies above it, and the folder may move."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st
from qdrant_world import dump, models, same
from small_media import fill
from typer.testing import CliRunner

from ume_cli.app import app
from ume_qdrant import Filter, Point, Store, enrich, index, report_query, search
from ume_qdrant.stores.schema import within
from ume_qdrant.stores.sources import MEDIA_ROOT, Naming, source_path
from ume_retrieval import InputError, Item
from ume_retrieval.report import ReportPage, render_html
from ume_retrieval.testing import HashEmbedder


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return fill(tmp_path / "secret" / "corpus")


def place_of(point: dict[str, Any], folder: Path) -> tuple[Path, Any, Any]:
    return folder / point["source"], point.get("page"), point.get("start_s")


def test_nothing_written_tells_what_lies_above(store: Store, folder: Path) -> None:
    (folder / "broken.jpg").write_bytes(b"no image")
    result = index(models(), store, folder, reasoning="always", relative_to=folder)
    assert result.failed
    hits = search(models(), store, "a red scene", limit=50).hits
    page = render_html(ReportPage("Red", queries=(report_query(Item(text="a red scene"), hits, None),)))
    told = [list(dump(store).values()), result.to_dict(), [hit.to_dict() for hit in hits]]
    for text in (page, *map(json.dumps, told)):
        assert "secret" not in text
    sources = {hit.source for hit in hits}
    assert sources
    assert all((folder / source).is_file() for source in sources)


def test_only_names_differ(store: Store, open_collection: Any, folder: Path) -> None:
    index(models(), store, folder, reasoning="always", relative_to=folder.parent)
    with open_collection("absolute") as other:
        index(models(), other, folder, reasoning="always")
        expected = {place_of(one, folder.parent): one for one in dump(other).values()}
    found = {place_of(one, folder.parent): one for one in dump(store).values()}
    assert found.keys() == expected.keys()
    for place, one in found.items():
        changed = {name for name, value in one.items() if value != expected[place][name]}
        assert changed == {"id", "source", "doc_id", "within"}


def test_a_second_run_does_nothing_and_a_lost_file_goes(store: Store, folder: Path) -> None:
    index(models(), store, folder, relative_to=folder)
    again = index(models(), store, folder, relative_to=folder)
    assert (again.indexed, again.model_calls, again.removed) == (0, 0, 0)
    lost = next(iter(sorted(folder.rglob("*.png"))))
    lost.unlink()
    assert index(models(), store, folder, relative_to=folder).removed == 1
    assert lost.relative_to(folder).as_posix() not in {one["source"] for one in dump(store).values()}


def test_what_others_keep_in_the_collection_stays(store: Store, folder: Path) -> None:
    index(models(), store, folder, relative_to=folder)
    key = str(UUID(int=7))
    payload = {"source": "a document", "within": within("a document"), "kind": "text", "text": "kept"}
    state = {"mtime_ns": 0, "reasoning": "never"}
    store.upsert([Point(key, {"direct": HashEmbedder().embed([]).vectors.sum(0) + 1}, payload | state)])
    again = index(models(), store, folder, reasoning="always", relative_to=folder)
    assert (again.removed, again.failed) == (0, ())
    assert store.retrieve([key])[0].payload["reasoning"] == "never"


def test_a_file_without_a_time_of_change_is_not_done_again(store: Store, folder: Path) -> None:
    for path in folder.rglob("*.*"):
        os.utime(path, ns=(0, 0))
    index(models(), store, folder)
    assert index(models(), store, folder).model_calls == 0
    assert index(models(), store, folder).unchanged == 6


def test_a_missing_folder_keeps_its_points(store: Store, folder: Path) -> None:
    index(models(), store, folder, relative_to=folder)
    before = store.count()
    folder.rename(folder.with_name("away"))
    gone = index(models(), store, folder, relative_to=folder)
    assert (gone.removed, store.count()) == (0, before)
    assert gone.failed


def test_a_moved_folder_is_found_where_the_environment_says(
    store: Store, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    index(models(), store, folder, relative_to=folder)
    moved = shutil.move(folder, tmp_path / "elsewhere")
    lost = enrich(models(), store)
    assert (lost.enriched, len(lost.failed) > 0) == (0, True)
    monkeypatch.setenv(MEDIA_ROOT, str(moved))
    found = enrich(models(), store)
    assert found.enriched
    assert not found.failed
    hit = search(models(), store, "a red scene", limit=1, where=Filter(kinds=("image",))).hits[0]
    assert Path(str(hit.item.images[0])).is_file()
    assert index(models(), store, moved, relative_to=moved).model_calls == 0


@pytest.mark.parametrize("first", [True, False])
def test_one_collection_names_files_in_one_way(store: Store, folder: Path, first: bool) -> None:
    base = folder.parent
    index(models(), store, folder, relative_to=base if first else None)
    with pytest.raises(InputError, match="names in"):
        index(models(), store, folder, relative_to=None if first else base)


def test_what_lies_elsewhere_is_refused(store: Store, folder: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="is not below"):
        index(models(), store, [folder, tmp_path], relative_to=folder)
    assert not store.exists()


def test_under_takes_relative_names(store: Store, folder: Path) -> None:
    index(models(), store, folder, relative_to=folder)
    assert store.count(Filter(under=("deep",))) == 1
    assert store.count(Filter(under=(".",))) == store.count()


def test_the_command_line_searches_below_a_relative_folder(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder)
    place = ["--store", str(tmp_path / "store"), "--json"]
    made = CliRunner().invoke(app, ["index", "deep", "--relative-to", ".", *place])
    assert made.exit_code == 0, made.output
    found = CliRunner().invoke(app, ["search", "red", "--under", "deep", *place])
    assert [hit["source"] for hit in json.loads(found.stdout)["hits"]] == [str(Path("deep", "blue.png"))]
    refused = CliRunner().invoke(app, ["index", "deep", "--workers", "ray", "--relative-to", ".", *place])
    assert refused.exit_code == 1
    assert "--workers here" in refused.output


@given(st.lists(st.text("ab. \\\n", min_size=1, max_size=4), min_size=1, max_size=4))
def test_names_lead_back_to_their_files(parts: list[str]) -> None:
    from ume_retrieval.media import display_name

    path = Path("/data", *parts)
    if not path.is_relative_to("/data") or ".." in path.parts:
        return
    named = Naming.below("/data", [path]).of(display_name(path))
    assert source_path(named, "/data") == path
    assert Naming.below("/", [path]).of(display_name(path)) == display_name(path)[1:]


def test_points_are_those_of_one_run_whatever_the_working_folder(
    store: Store, open_collection: Any, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    index(models(), store, folder, reasoning="always", relative_to=folder)
    monkeypatch.chdir(folder)
    with open_collection("other") as other:
        index(models(), other, ".", reasoning="always", relative_to=".")
        same(dump(store), dump(other))
