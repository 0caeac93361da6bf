"""Metadata of files: given for all, by a function, by tables; changed, kept and removed; tenants."""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from qdrant_world import age, models
from small_media import BLUE, GREEN, RED, fill, picture

from ume_qdrant import Document, Filter, Layout, Store, enrich, index, index_documents, search
from ume_qdrant.indexing.tables import plain_value, read_table
from ume_qdrant.stores.filters import ANY_TENANT
from ume_retrieval import InputError
from ume_retrieval.errors import TenantRequired


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "photos"
    (made / "deep").mkdir(parents=True)
    picture(made / "red.png", RED)
    picture(made / "green.png", GREEN)
    picture(made / "deep" / "blue.png", BLUE)
    return made


def held(store: Store, where: Filter | None = None) -> dict[str, dict[str, Any]]:
    return {Path(p.payload["source"]).name: p.payload.get("meta") or {} for p in store.scroll(where)}


def test_one_mapping_is_for_all_files(store: Store, tmp_path: Path) -> None:
    things = fill(tmp_path / "things")
    index(models(), store, things, metadata={"owner": "ann", "year": 2024, "none": None})
    assert all(point.payload["meta"] == {"owner": "ann", "year": 2024} for point in store.scroll())
    [hit] = search(models(), store, "red", limit=1).hits
    assert hit.meta == {"owner": "ann", "year": 2024}


def test_a_function_names_metadata_by_path(store: Store, folder: Path) -> None:
    def stem(path: str) -> Mapping[str, Any] | None:
        return {"stem": Path(path).stem} if "deep" not in path else None

    index(models(), store, folder, metadata=stem, relative_to=folder)
    assert held(store) == {"red.png": {"stem": "red"}, "green.png": {"stem": "green"}, "blue.png": {}}


def test_changed_metadata_are_written_without_reading_files(
    store: Store, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    index(models(), store, folder, reasoning="always", metadata={"owner": "ann", "draft": True})
    vectors = {p.id: p.vectors for p in store.scroll(vectors=("direct", "reasoned"))}
    monkeypatch.setattr("ume_qdrant.indexing.plan.entries", lambda *_, **__: pytest.fail("a file was read"))
    report = index(models(), store, folder, reasoning="always", metadata={"owner": "bob"})
    assert (report.unchanged, report.relabelled, report.model_calls, report.points) == (3, 3, 0, 0)
    assert report.to_dict()["relabelled"] == 3
    assert set(map(str, held(store).values())) == {"{'owner': 'bob'}"}
    assert {p.id: set(p.vectors) for p in store.scroll(vectors=("direct", "reasoned"))} == {
        key: set(value) for key, value in vectors.items()
    }
    assert index(models(), store, folder, metadata={"owner": "bob"}).relabelled == 0
    assert index(models(), store, folder).relabelled == 0
    assert held(store)["red.png"] == {"owner": "bob"}
    assert index(models(), store, folder, metadata={}).relabelled == 3
    assert held(store)["red.png"] == {}


def test_metadata_outlive_enrich_and_changed_contents(store: Store, folder: Path) -> None:
    index(models(), store, folder, metadata={"owner": "ann"})
    enrich(models(), store)
    assert held(store)["red.png"] == {"owner": "ann"}
    picture(folder / "red.png", BLUE)
    index(models(), store, folder)
    assert held(store)["red.png"] == {"owner": "ann"}
    age(folder / "red.png")
    assert index(models(), store, folder, metadata={"owner": "bob"}).model_calls == 0
    assert held(store)["red.png"] == {"owner": "bob"}


def test_a_copy_has_its_own_metadata(store: Store, folder: Path) -> None:
    index(models(), store, folder, reasoning="always", metadata={"owner": "ann"})
    (folder / "copy.png").write_bytes((folder / "red.png").read_bytes())
    (folder / "green.png").rename(folder / "moved.png")
    report = index(models(), store, folder, metadata=lambda path: {"stem": Path(path).stem})
    assert (report.moved, report.model_calls) == (2, 0)
    assert held(store) == {name: {"stem": name[:-4]} for name in ("copy.png", "moved.png", "red.png", "blue.png")}
    assert index(models(), store, folder / "copy.png").relabelled == 0


def test_a_failing_function_costs_its_file_only(store: Store, folder: Path) -> None:
    index(models(), store, folder)

    def failing(path: str) -> Any:
        return {"green.png": {"a.b": 1}, "blue.png": [1]}.get(Path(path).name) or {}["no"]

    report = index(models(), store, folder, metadata=failing)
    assert [Path(failure.source).name for failure in report.failed] == ["blue.png", "green.png", "red.png"]
    assert (report.removed, store.count()) == (0, 3)
    assert "KeyError" in report.failed[-1].message


@pytest.mark.parametrize("wrong", [5, ["a"], {"a.b": 1}, "meta.xlsx", Path("missing.csv")])
def test_metadata_of_another_type_are_refused_first(store: Store, folder: Path, wrong: Any) -> None:
    with pytest.raises(InputError):
        index(models(), store, folder, metadata=wrong)
    assert store.count() == 0


def test_a_csv_table_types_its_columns_with_care(store: Store, folder: Path, tmp_path: Path) -> None:
    table = tmp_path / "meta.csv"
    table.write_text(
        "\ufefffile_name,year,rating,draft,code,taken,note\n"
        'red.png,2024,4,true,007,2024-05-01,"a, b"\n'
        "deep/blue.png,2023,3.5,false,12,2023-01-01T10:00:00Z,\n",
        encoding="utf-8",
    )
    report = index(models(), store, folder, metadata=table)
    assert report.failed == ()
    assert held(store) == {
        "red.png": {"year": 2024, "rating": 4.0, "draft": True, "code": "007", "taken": "2024-05-01", "note": "a, b"},
        "blue.png": {
            "year": 2023,
            "rating": 3.5,
            "draft": False,
            "code": "12",
            "taken": "2023-01-01T10:00:00Z",
        },
        "green.png": {},
    }
    assert isinstance(held(store)["red.png"]["rating"], float)


def test_rows_that_cannot_be_used_are_named(store: Store, folder: Path, tmp_path: Path) -> None:
    index(models(), store, folder, metadata={"owner": "ann"})
    table = tmp_path / "meta.csv"
    table.write_text(
        "file,owner\nred.png,bob\ngone.png,x\nred.png,carl\ndeep/blue.png,a,b\n,x\nother/gone.png,y\n", encoding="utf-8"
    )
    report = index(models(), store, folder, metadata=str(table))
    assert {failure.source.rpartition(" line ")[2]: failure.message for failure in report.failed} == {
        "3": "gone.png was not found",
        "4": f"red.png has a row at {table} line 2 already; this later one counts",
        "5": "the row has 3 values for 2 columns",
        "6": "the row names no file",
        "7": "other/gone.png was not found",
    }
    # The broken row may be that of the others: they keep what they have.
    assert held(store) == {"red.png": {"owner": "carl"}, "green.png": {"owner": "ann"}, "blue.png": {"owner": "ann"}}
    table.write_text("file,owner\nred.png,carl\n", encoding="utf-8")
    assert index(models(), store, folder, metadata=table).relabelled == 2
    assert held(store) == {"red.png": {"owner": "carl"}, "green.png": {}, "blue.png": {}}


def test_json_tables_keep_their_types(store: Store, folder: Path, tmp_path: Path) -> None:
    lines = tmp_path / "meta.jsonl"
    lines.write_text('{"file_name": "red.png", "tags": ["a", "b"], "camera": {"iso": 100}}\n\n{"file_name": 1}\n{bad\n')
    report = index(models(), store, folder, metadata=lines)
    assert [failure.source.rpartition(" ")[2] for failure in report.failed] == ["3", "4"]
    assert held(store)["red.png"] == {"tags": ["a", "b"], "camera": {"iso": 100}}
    whole = tmp_path / "meta.json"
    whole.write_text(json.dumps({str(folder / "red.png"): {"a": 1}, "green.png": {"a": 2}, "blue.png": 5}))
    report = index(models(), store, folder, metadata=whole)
    assert (len(report.failed), held(store)["red.png"], held(store)["green.png"]) == (1, {"a": 1}, {"a": 2})
    whole.write_text(json.dumps([{"file": "deep/blue.png", "a": 3}, 7]))
    assert len(index(models(), store, folder, metadata=whole).failed) == 1
    assert held(store)["blue.png"] == {"a": 3}


def test_sidecars_are_read_only_if_asked(store: Store, folder: Path) -> None:
    (folder / "ume-metadata.csv").write_text("file_name,owner\nred.png,ann\ndeep/blue.png,ann\n")
    (folder / "deep" / "ume-metadata.json").write_text('{"blue.png": {"owner": "bob"}}')
    index(models(), store, folder)
    assert held(store) == {"red.png": {}, "green.png": {}, "blue.png": {}}
    report = index(models(), store, folder, metadata="sidecars")
    assert held(store) == {"red.png": {"owner": "ann"}, "green.png": {}, "blue.png": {"owner": "bob"}}
    assert [failure.message for failure in report.failed] == ["deep/blue.png was not found"]
    (folder / "deep" / "ume-metadata.json").write_text("{")
    report = index(models(), store, folder, metadata="sidecars")
    assert any("is not JSON" in failure.message for failure in report.failed)
    assert held(store)["blue.png"] == {"owner": "ann"}


@given(st.text(max_size=20) | st.integers().map(str) | st.floats(allow_nan=False).map(str))
def test_a_value_of_a_table_never_changes_its_meaning(text: str) -> None:
    value = plain_value(text)
    if isinstance(value, bool):
        assert text == str(value).lower()
    elif isinstance(value, int):
        assert str(value) == text or text == "-0"
    elif isinstance(value, float):
        assert float(text) == value
        assert "e" not in text.lower()
    else:
        assert value == text


@given(st.text(max_size=200), st.sampled_from([".csv", ".json", ".jsonl"]))
def test_any_text_is_a_table_or_a_typed_error(tmp_path_factory: pytest.TempPathFactory, text: str, suffix: str) -> None:
    path = tmp_path_factory.getbasetemp() / f"any{suffix}"
    path.write_bytes(("file,a\n" * (len(text) % 2) + text).encode("utf-8", "replace"))
    with suppress(InputError):
        assert all(isinstance(row, dict) for row in read_table(path).rows.values())


def test_tenants_own_their_points(store: Store, folder: Path) -> None:
    layout = Layout(tenant="customer")
    for wrong in (None, {}, {"customer": ""}, {"customer": 5}):
        embedder = models()
        with pytest.raises(TenantRequired):
            index(embedder, store, folder, layout=layout, metadata=wrong)
        assert not embedder.embedder.chats  # type: ignore[attr-defined]  # of the fake
    one = index(models(), store, folder, metadata={"customer": "acme"})
    two = index(models(), store, folder, metadata={"customer": "bolt"}, reasoning="always")
    assert (one.points, two.points, two.moved, two.removed) == (3, 3, 3, 0)
    assert store.count(Filter(tenant=ANY_TENANT)) == 6
    states = {
        tenant: {p.payload["reasoning"] for p in store.scroll(Filter(tenant=tenant))} for tenant in ("acme", "bolt")
    }
    assert states == {"acme": {"later"}, "bolt": {"done"}}
    again = index(models(), store, folder, metadata={"customer": "acme", "n": 1})
    assert (again.unchanged, again.relabelled, again.points) == (3, 3, 0)
    (folder / "red.png").unlink()
    assert index(models(), store, folder, metadata={"customer": "acme", "n": 1}).removed == 1
    assert (store.count(Filter(tenant="acme")), store.count(Filter(tenant="bolt"))) == (2, 3)
    assert enrich(models(), store).enriched == 2


def test_a_file_that_changes_its_tenant_leaves_the_former_one(store: Store, folder: Path) -> None:
    def customer(path: str) -> Mapping[str, Any]:
        return {"customer": "acme" if "red" in path else "bolt"}

    index(models(), store, folder, layout=Layout(tenant="customer"), metadata=customer)
    report = index(
        models(),
        store,
        folder,
        metadata=lambda path: {"customer": {"red.png": "bolt", "green.png": "acme"}.get(Path(path).name, "bolt")},
    )
    assert (report.model_calls, report.removed) == (0, 2)
    assert list(held(store, Filter(tenant="acme"))) == ["green.png"]
    missing = index(models(), store, folder, metadata=lambda path: customer(path) if "blue" not in path else {})
    assert [(Path(f.source).name, f.error) for f in missing.failed] == [("blue.png", "tenant_required")]
    assert store.count(Filter(tenant=ANY_TENANT)) == 3


def test_documents_of_two_tenants_share_no_point(store: Store) -> None:
    given_ = [Document("a note", id="n", metadata={"customer": name}) for name in ("acme", "bolt")]
    report = index_documents(models(), store, [*given_, Document("x", id="x")], layout=Layout(tenant="customer"))
    assert (report.indexed, [failure.error for failure in report.failed]) == (2, ["tenant_required"])
    assert [hit.meta for hit in search(models(), store, "note", where=Filter(tenant="acme")).hits] == [
        {"customer": "acme"}
    ]
    again = index_documents(models(), store, given_)
    assert (again.unchanged, again.model_calls) == (2, 0)
