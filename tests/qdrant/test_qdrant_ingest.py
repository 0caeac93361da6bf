"""Indexing real files with models that need no weights."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from qdrant_world import age, dump, models, same
from small_media import BLUE, GREEN, RED, YELLOW, clip, document, fill, picture

from ume_qdrant import (
    EdgeStore,
    Filter,
    Point,
    Progress,
    Store,
    delete_sources,
    enrich,
    export_jsonl,
    index,
    list_sources,
)
from ume_qdrant.stores.schema import point_id, within
from ume_retrieval import InputError, MediaError, ReasoningEmbedder
from ume_retrieval.errors import BrokenMedia, StoreMismatch
from ume_retrieval.testing import FakeReasoner, HashEmbedder, fake_embedder


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return fill(tmp_path / "things")


def held(store: Store, path: Path) -> list[Point]:
    return list(store.scroll(Filter(sources=(str(path),)), vectors=("direct", "reasoned")))


def test_everything_is_indexed_once(store: Store, folder: Path) -> None:
    steps: list[Progress] = []
    report = index(models(), store, folder, batch_size=3, on_progress=steps.append)
    assert (report.indexed, report.unchanged, report.removed, report.failed) == (6, 0, 0, ())
    assert (report.points, report.moved, report.model_calls) == (8, 0, 8)
    assert store.count() == 8
    assert [(s.source, s.kind, s.points, s.states) for s in list_sources(store)] == [
        (str(folder / name), kind, points, {"later": points})
        for name, kind, points in (
            ("clip.mp4", "video", 2),
            ("deep/blue.png", "image", 1),
            ("green.png", "image", 1),
            ("notes.txt", "text", 1),
            ("red.png", "image", 1),
            ("report.pdf", "page", 2),
        )
    ]
    embedding = [step for step in steps if step.stage == "embed"]
    assert [(step.done, step.total) for step in embedding] == [(3, 8), (6, 8), (8, 8)]
    assert [step.done for step in steps if step.stage == "discover"] == [1, 2, 3, 4, 5, 6]


def test_a_point_says_what_it_is(store: Store, folder: Path) -> None:
    index(models(), store, folder)
    [text] = held(store, folder / "notes.txt")
    path = folder / "notes.txt"
    assert text.payload["text"] == "the last train home"
    assert (text.payload["size"], text.payload["mtime_ns"]) == (path.stat().st_size, path.stat().st_mtime_ns)
    assert text.payload["within"][:2] == [str(path), str(folder)]
    assert (text.payload["reasoning"], text.payload["parts"]) == ("later", 1)
    assert text.id == point_id(str(path), text.payload["file_digest"])
    assert set(text.vectors) == {"direct"}
    assert not {"start_s", "end_s", "page", "trace", "cut"} & text.payload.keys()
    one, two = sorted(held(store, folder / "report.pdf"), key=lambda point: point.payload["page"])
    assert (one.payload["page"], two.payload["page"], one.payload["parts"]) == (1, 2, 2)
    first, second = sorted(held(store, folder / "clip.mp4"), key=lambda point: point.payload["start_s"])
    assert (first.payload["start_s"], first.payload["end_s"]) == (0.0, 16.0)
    assert (second.payload["start_s"], second.payload["end_s"]) == pytest.approx((4.0, 20.0), abs=0.6)


def test_nothing_to_do_means_nothing_is_done(store: Store, folder: Path) -> None:
    index(models(), store, folder, reasoning="always")
    before = dump(store)
    path = folder / "red.png"
    times = path.stat()
    path.write_bytes(path.read_bytes()[:40] + b"x" * (times.st_size - 40))
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
    embedder = models()
    report = index(embedder, store, folder, reasoning="always")
    assert (report.indexed, report.unchanged, report.removed, report.failed) == (0, 6, 0, ()), "it was not read"
    assert (report.model_calls, report.points) == (0, 0)
    same(dump(store), before)


def test_a_touched_file_is_only_noted(store: Store, folder: Path) -> None:
    index(models(), store, folder)
    age(folder / "red.png")
    report = index(models(), store, folder)
    assert (report.indexed, report.unchanged, report.model_calls) == (0, 6, 0)
    assert held(store, folder / "red.png")[0].payload["mtime_ns"] == (folder / "red.png").stat().st_mtime_ns


def test_a_changed_file_is_exchanged(store: Store, folder: Path) -> None:
    index(models(), store, folder)
    before = dump(store)
    picture(folder / "red.png", YELLOW)
    document(folder / "report.pdf", BLUE)
    report = index(models(), store, folder)
    assert (report.indexed, report.unchanged, report.removed, report.model_calls) == (2, 4, 0, 2)
    after = dump(store)
    changed = {str(folder / "red.png"), str(folder / "report.pdf")}
    assert len(after) == 7
    untouched = {key: record for key, record in before.items() if record["source"] not in changed}
    same({key: after[key] for key in untouched}, untouched)
    assert not {key for key, record in before.items() if record["source"] in changed} & after.keys()


def test_a_moved_file_takes_its_vectors_and_trace_along(store: Store, folder: Path) -> None:
    index(models(), store, folder, reasoning="always")
    before = {name: held(store, folder / name) for name in ("clip.mp4", "red.png")}
    (folder / "clip.mp4").rename(folder / "deep" / "film.mp4")
    (folder / "red.png").rename(folder / "rot.png")
    report = index(models(), store, folder, reasoning="always")
    assert (report.indexed, report.moved, report.removed, report.model_calls) == (2, 2, 2, 0)
    assert held(store, folder / "clip.mp4") == []
    for old, new, points in (("clip.mp4", "deep/film.mp4", 2), ("red.png", "rot.png", 1)):
        now = sorted(held(store, folder / new), key=lambda point: point.payload.get("start_s", 0))
        then = sorted(before[old], key=lambda point: point.payload.get("start_s", 0))
        assert len(now) == len(then) == points
        for left, right in zip(now, then, strict=True):
            assert left.id != right.id
            assert left.payload["trace"] == right.payload["trace"]
            assert left.payload["reasoning"] == "done"
            for name in ("direct", "reasoned"):
                assert left.vectors[name] == pytest.approx(right.vectors[name], abs=1e-6)


def test_a_moved_folder_makes_no_model_call(store: Store, folder: Path) -> None:
    index(models(), store, folder.parent)
    folder.rename(folder.with_name("elsewhere"))
    report = index(models(), store, folder.parent)
    assert (report.indexed, report.moved, report.removed, report.model_calls) == (6, 6, 6, 0)
    assert store.count() == 8


def test_a_deleted_file_loses_its_points(store: Store, folder: Path) -> None:
    index(models(), store, folder)
    (folder / "report.pdf").unlink()
    assert index(models(), store, folder, prune=False).removed == 0
    assert store.count() == 8
    report = index(models(), store, folder)
    assert (report.indexed, report.unchanged, report.removed, report.model_calls) == (0, 5, 1, 0)
    assert held(store, folder / "report.pdf") == []
    assert store.count() == 6


def test_only_what_lies_below_the_given_paths_is_removed(store: Store, tmp_path: Path) -> None:
    for name in ("a", "ab"):
        (tmp_path / name).mkdir()
        picture(tmp_path / name / "x.png", RED if name == "a" else GREEN)
        picture(tmp_path / name / "y.png", BLUE if name == "a" else YELLOW)
    index(models(), store, [tmp_path / "a", tmp_path / "ab"])
    (tmp_path / "a" / "x.png").unlink()
    (tmp_path / "ab" / "x.png").unlink()
    assert index(models(), store, tmp_path / "a").removed == 1
    assert [Path(s.source).relative_to(tmp_path).as_posix() for s in list_sources(store)] == [
        "a/y.png",
        "ab/x.png",
        "ab/y.png",
    ]


def test_equal_files_are_embedded_once(store: Store, tmp_path: Path) -> None:
    for n in range(5):
        picture(tmp_path / f"{n}.png", RED)
    report = index(models(), store, tmp_path, batch_size=2)
    assert (report.indexed, report.points, report.model_calls) == (5, 5, 1)
    assert store.count() == 5
    reasoner = FakeReasoner()
    index(fake_embedder(reasoner=reasoner), store, tmp_path, reasoning="always", batch_size=9)
    assert reasoner.calls == 1


def test_a_long_file_is_not_read_back_batch_after_batch(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    colours = [(40 * n, 255 - 40 * n, 90) for n in range(6)]
    document(tmp_path / "a.pdf", *colours)
    shutil.copy(tmp_path / "a.pdf", tmp_path / "b.pdf")
    read: list[Point] = []
    scroll = type(store).scroll

    def counted(self: Store, *args: Any, **kwargs: Any) -> Any:
        for point in scroll(self, *args, **kwargs):  # type: ignore[arg-type]  # a store of this very type
            read.extend([point] if point.vectors else [])
            yield point

    monkeypatch.setattr(type(store), "scroll", counted)
    report = index(models(), store, tmp_path, batch_size=4)
    assert (report.points, report.model_calls, len(read)) == (12, 6, 0)
    (tmp_path / "a.pdf").rename(tmp_path / "c.pdf")
    report = index(models(), store, tmp_path, batch_size=2)
    assert (report.moved, report.model_calls, len(read)) == (1, 0, 12)


def test_paths_that_overlap_are_one(store: Store, folder: Path) -> None:
    report = index(models(), store, [folder, folder / "deep", folder / "deep" / ".." / "red.png"])
    assert (report.indexed, store.count()) == (6, 8)


def test_batches_do_not_matter(open_collection: Any, folder: Path) -> None:
    one, other = open_collection("one"), open_collection("other")
    index(models(), one, folder, reasoning="always", batch_size=1)
    index(models(), other, folder, reasoning="always", batch_size=50)
    same(dump(one), dump(other))


def test_broken_files_are_named_once_and_the_rest_goes_on(store: Store, folder: Path) -> None:
    (folder / "empty.png").write_bytes(b"")
    (folder / "half.png").write_bytes((folder / "red.png").read_bytes()[:40])
    (folder / "half.pdf").write_bytes((folder / "report.pdf").read_bytes()[:200])
    (folder / "liar.mp4").write_bytes(b"not a film at all" * 50)
    for attempt in range(2):
        report = index(models(), store, folder, reasoning="always")
        assert [Path(failure.source).name for failure in report.failed] == [
            "empty.png",
            "half.pdf",
            "half.png",
            "liar.mp4",
        ], attempt
        assert all(failure.message and failure.error for failure in report.failed)
        assert report.indexed + report.unchanged == 6
    assert report.model_calls == 0
    assert store.count() == 8
    with pytest.raises(MediaError):
        index(models(), store, folder, strict=True)


def test_a_file_that_cannot_be_read_any_more_keeps_its_points(store: Store, folder: Path) -> None:
    index(models(), store, folder)
    before = dump(store)
    (folder / "red.png").write_bytes(b"")
    report = index(models(), store, folder)
    assert [Path(failure.source).name for failure in report.failed] == ["red.png"]
    assert (report.indexed, report.unchanged, report.removed) == (0, 5, 0)
    same(dump(store), before)
    picture(folder / "red.png", BLUE)
    assert index(models(), store, folder).failed == ()
    assert store.count() == 8


def test_a_root_that_is_missing_keeps_its_points(store: Store, folder: Path) -> None:
    index(models(), store, folder)
    folder.rename(folder.with_name("unmounted"))
    report = index(models(), store, folder)
    assert [failure.source for failure in report.failed] == [str(folder)]
    assert (report.removed, store.count()) == (0, 8)


def test_a_file_that_was_left_unfinished_is_finished(store: Store, folder: Path) -> None:
    index(models(), store, folder)
    before = dump(store)
    page = next(key for key, record in before.items() if record.get("page") == 2)
    store.delete([page])
    report = index(models(), store, folder)
    assert (report.indexed, report.unchanged, report.model_calls) == (1, 5, 1)
    same(dump(store), before)


def test_other_segments_concern_videos_only(store: Store, folder: Path) -> None:
    index(models(), store, folder)
    report = index(models(), store, folder, segment_s=5.0, overlap_s=0.0)
    assert (report.indexed, report.unchanged, report.model_calls) == (1, 5, 4)
    assert store.count(Filter(kinds=("video",))) == 4
    assert index(models(), store, folder, segment_s=5.0, overlap_s=0.0).unchanged == 6


def test_reasoning_now_later_or_never(store: Store, folder: Path) -> None:
    assert index(models(), store, folder, reasoning="never").usage.reasoner_calls == 0
    assert enrich(models(), store).model_calls == 0, "never means never"
    index(models(), store, folder, reasoning="later")
    assert store.count(Filter(reasoning=("later",))) == 8
    report = index(models(), store, folder, reasoning="always")
    assert (report.indexed, report.unchanged) == (0, 6)
    assert (report.usage.reasoner_calls, report.usage.embedder_calls) == (8, 8)
    assert store.count(Filter(reasoning=("done",))) == 8
    [text] = held(store, folder / "notes.txt")
    assert set(text.vectors) == {"direct", "reasoned"}
    assert text.payload["trace"]["keywords"] == ["the", "last", "train", "home"]
    assert (text.payload["reasoner"], text.payload["prompt_version"]) == ("fake-reasoner@1", "fake-1")
    index(models(), store, folder, reasoning="never")
    assert store.count(Filter(reasoning=("done",))) == 8, "what is done stays"


def test_a_piece_of_a_text_that_cannot_be_read_does_not_wait_for_reasoning(store: Store, folder: Path) -> None:
    index(models(), store, folder)
    broken = folder / "broken.txt"
    broken.write_bytes(b"\xff\xfe\xfd")
    key, source = str(UUID(int=5)), str(broken)
    fields = {"source": source, "within": within(source), "kind": "text", "parts": 0, "file_digest": "0"}
    state = {"size": 1, "mtime_ns": 0, "reasoning": "never"}
    store.upsert([Point(key, {"direct": HashEmbedder().embed([]).vectors.sum(0) + 1}, fields | state)])
    assert [failure.source for failure in index(models(), store, folder).failed] == [source]
    assert store.retrieve([key])[0].payload["reasoning"] == "never"


def test_always_is_later_and_enrich(open_collection: Any, folder: Path) -> None:
    one, other = open_collection("one"), open_collection("other")
    index(models(), one, folder, reasoning="always")
    index(models(), other, folder)
    report = enrich(models(), other)
    assert (report.enriched, report.remaining, report.failed) == (8, 0, ())
    same(dump(one), dump(other))


def test_other_models_are_refused(store: Store, folder: Path) -> None:
    index(models(), store, folder)
    other = ReasoningEmbedder(HashEmbedder(revision="2"), FakeReasoner())
    with pytest.raises(StoreMismatch, match="revision '1', not '2'"):
        index(other, store, folder)
    longer = ReasoningEmbedder(HashEmbedder(dimension=32), FakeReasoner())
    with pytest.raises(StoreMismatch, match="dimension 64, not 32"):
        index(longer, store, folder)
    other_reasoner = fake_embedder(reasoner=FakeReasoner(revision="2"))
    enrich(other_reasoner, store, where=Filter(kinds=("text",)))
    with pytest.raises(StoreMismatch, match="reasoner_revision '2', not '1'"):
        index(models(), store, folder, reasoning="always")
    assert index(models(), store, folder).unchanged == 6, "direct vectors do not depend on the Reasoner"


def test_arguments_are_checked(store: Store, folder: Path) -> None:
    with pytest.raises(InputError, match="without a Reasoner"):
        index(fake_embedder(reasoner=None), store, folder, reasoning="always")
    with pytest.raises(InputError, match="unknown reasoning"):
        index(models(), store, folder, reasoning="sometimes")  # type: ignore[arg-type]  # the mistake
    with pytest.raises(InputError, match="nothing to index"):
        index(models(), store, [])
    with pytest.raises(InputError, match="batch_size"):
        index(models(), store, folder, batch_size=0)
    with pytest.raises(InputError):
        index(models(), store, folder, segment_s=1.0, overlap_s=2.0)
    assert not store.exists(), "a mistake leaves no empty collection behind"


def test_names_of_any_bytes(store: Store, tmp_path: Path) -> None:
    name = Path(os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9 \x1b[31m.png"))
    picture(name, RED)
    report = index(models(), store, tmp_path, reasoning="always")
    assert (report.indexed, report.failed) == (1, ())
    assert [s.source for s in list_sources(store)] == [f"{tmp_path}/caf\\xe9 \\u001b[31m.png"]
    assert store.count(Filter(reasoning=("done",))) == 1, "the file was found again by its source"
    assert index(models(), store, tmp_path).unchanged == 1


def test_the_store_itself_is_not_indexed(tmp_path: Path) -> None:
    picture(tmp_path / "red.png", RED)
    with EdgeStore(tmp_path / "vectors", "things") as store, EdgeStore(tmp_path / "vectors", "other") as other:
        for chosen in (store, other, store):
            report = index(models(), chosen, tmp_path)
            assert report.failed == ()
            assert chosen.count() == 1


def test_an_unmixed_copy_of_a_video_in_another_cut(store: Store, tmp_path: Path) -> None:
    clip(tmp_path / "a.mp4", 12, RED, BLUE)
    index(models(), store, tmp_path, segment_s=6.0, overlap_s=0.0)
    shutil.copy(tmp_path / "a.mp4", tmp_path / "b.mp4")
    report = index(models(), store, tmp_path, segment_s=4.0, overlap_s=0.0)
    assert (report.indexed, report.points, report.model_calls) == (2, 6, 3)


def test_sources_can_be_deleted_and_points_exported(store: Store, folder: Path, tmp_path: Path) -> None:
    index(models(), store, folder, reasoning="always")
    assert delete_sources(store, [str(folder / "report.pdf"), "nowhere"]) == 2
    assert export_jsonl(store, tmp_path / "points.jsonl") == 6
    lines = (tmp_path / "points.jsonl").read_text(encoding="utf-8").splitlines()
    assert len(lines) == 6
    assert "vectors" not in lines[0]
    assert [path.name for path in tmp_path.glob(".points*")] == []


def test_a_strict_run_stops_and_keeps_what_it_wrote(store: Store, folder: Path) -> None:
    class Choosy(HashEmbedder):
        def embed(self, chats):  # type: ignore[no-untyped-def]  # as in the base class
            if any("train" in part.text for chat in chats for m in chat for part in m.parts if hasattr(part, "text")):
                raise BrokenMedia("the model refuses trains")
            return super().embed(chats)

    embedder = ReasoningEmbedder(Choosy(), FakeReasoner())
    with pytest.raises(BrokenMedia, match=r"notes\.txt: the model refuses trains"):
        index(embedder, store, folder, strict=True, batch_size=4)
    assert 0 < store.count() < 8
    report = index(embedder, store, folder)
    assert [(Path(f.source).name, f.error) for f in report.failed] == [("notes.txt", "broken_media")]
    assert store.count() == 7


def test_a_film_that_is_cut_short_is_indexed_with_a_warning(store: Store, tmp_path: Path) -> None:
    whole = clip(tmp_path / "whole.mkv", 4, RED, BLUE)
    cut = tmp_path / "things" / "cut.mkv"
    cut.parent.mkdir()
    cut.write_bytes(whole.read_bytes()[:-200])
    report = index(models(), store, cut.parent, relative_to=cut.parent)
    assert (report.indexed, report.failed) == (1, ())
    [warning] = report.warnings
    assert (warning.source, "cut.mkv is cut short" in warning.message) == ("cut.mkv", True)
    assert report.to_dict()["warnings"] == [{"source": "cut.mkv", "warning": warning.message}]
