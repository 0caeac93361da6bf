"""Indexing documents of the caller: contents, ids, replacement, failures, kept media."""

from __future__ import annotations

import asyncio
import io
import uuid
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import PIL.Image
import pytest
from qdrant_world import dump, models, same
from small_media import BLUE, GREEN, RED, clip, document, fill, picture

from ume_qdrant import (
    Document,
    EdgeStore,
    Filter,
    Store,
    ThreadStore,
    aindex_documents,
    delete,
    enrich,
    index,
    index_documents,
    report_query,
    search,
)
from ume_retrieval import Clip, Frames, InputError, Item, MediaError, Page, ReasoningEmbedder
from ume_retrieval.errors import BrokenMedia
from ume_retrieval.testing import HashEmbedder


def png(colour: Any) -> bytes:
    encoded = io.BytesIO()
    PIL.Image.new("RGB", (48, 48), colour).save(encoded, "PNG")
    return encoded.getvalue()


def notes(count: int, word: str = "note") -> list[Document]:
    return [Document(f"{word} number {n}", id=f"note-{n}", metadata={"n": n}) for n in range(count)]


def test_every_kind_of_content_is_indexed(store: Store, tmp_path: Path) -> None:
    red, pdf = picture(tmp_path / "red.png", RED), document(tmp_path / "report.pdf", RED, GREEN)
    film = clip(tmp_path / "clip.mp4", 4, RED, BLUE)
    frames = Frames((PIL.Image.new("RGB", (32, 32), "green"),) * 2, (0.0, 1.0), 2.0)
    given = [
        Document("the last train home", id="text"),
        Document(png(RED), id="bytes"),
        Document(PIL.Image.new("RGB", (48, 48), BLUE), id="pillow"),
        Document(red, id="path"),
        Document(pdf, id="pdf"),
        Document(Page(pdf, 2), id="page"),
        Document(Clip(film, 1.0, 2.0), id="clip"),
        Document(frames, id="frames"),
        Document(Item(text="which circle", images=(red, png(GREEN)), instruction="find it"), id="item"),
    ]
    report = index_documents(models(), store, given)
    assert (report.failed, report.indexed, report.points) == ((), 9, 10)
    held = {point.id: point.payload for point in store.scroll(vectors=("direct", "reasoned"))}
    assert {payload["doc_id"] for payload in held.values()} == {one.id for one in given}
    assert {payload["reasoning"] for payload in held.values()} == {"done"}
    assert all(set(point.vectors) == {"direct", "reasoned"} for point in store.scroll(vectors=("direct", "reasoned")))
    by_id = {payload["doc_id"]: payload for payload in held.values()}
    assert [by_id[name]["kind"] for name in ("text", "bytes", "page", "clip", "item")] == [
        *("text", "image", "page", "video", "image")
    ]
    assert (by_id["page"]["page"], by_id["clip"]["start_s"], by_id["path"]["source"]) == (2, 1.0, str(red))
    again = index_documents(models(), store, given)
    assert (again.indexed, again.unchanged, again.model_calls, again.points) == (0, 9, 0, 0)


def test_hits_name_documents_and_hold_their_items(store: Store, tmp_path: Path) -> None:
    red = picture(tmp_path / "red.png", RED)
    whole = Item(text="a tower", images=(red,), instruction="find it")
    long = "word " * 4000
    index_documents(
        models(), store, [Document(whole, id="item"), Document(long, id="long"), Document(png(RED), id="x")]
    )
    hits = {hit.id: hit for hit in search(models(), store, "red", limit=9).hits}
    assert hits["item"].item == whole
    assert hits["long"].item == Item(text=long)
    assert len(hits["long"].text or "") == 10_000
    assert hits["item"].to_dict()["id"] == "item"
    with pytest.raises(MediaError, match="were in memory"):
        _ = hits["x"].item
    report_query(Item(text="red"), list(hits.values()), None)  # a picture that is gone is left out


def test_ids_map_to_points(store: Store) -> None:
    own = str(uuid.uuid4())
    index_documents(
        models(), store, [Document("a", id=own), Document("b", id="b/ü 1"), Document("c")], reasoning="never"
    )
    assert store.retrieve([own])[0].payload["doc_id"] == own
    ids = {hit.id for hit in search(models(), store, "a", limit=9, reasoning="never").hits}
    assert {own, "b/ü 1"} < ids
    before = dump(store)
    index_documents(models(), store, [Document("c")], reasoning="never")
    assert dump(store).keys() == before.keys()


def test_a_known_id_replaces(store: Store, tmp_path: Path) -> None:
    pdf = document(tmp_path / "report.pdf", RED, GREEN, BLUE)
    index_documents(models(), store, [Document("first", id="a"), Document(pdf, id="b")])
    assert store.count() == 4
    report = index_documents(models(), store, [Document("second", id="a"), Document("no pages", id="b")])
    assert (report.indexed, report.points) == (2, 2)
    assert sorted(point.payload["text"] for point in store.scroll()) == ["no pages", "second"]
    fresh = {p.payload["doc_id"]: p.vectors for p in store.scroll(vectors=("direct", "reasoned"))}
    assert all(set(vectors) == {"direct", "reasoned"} for vectors in fresh.values())


def test_only_metadata_change_without_a_model(store: Store) -> None:
    index_documents(models(), store, notes(3))
    changed = [
        Document("note number 0", id="note-0", metadata={"owner": "ann"}),
        Document("note number 1", id="note-1"),
    ]
    report = index_documents(models(), store, changed)
    assert (report.unchanged, report.relabelled, report.model_calls, report.points) == (2, 2, 0, 0)
    held = {point.payload["doc_id"]: point for point in store.scroll(vectors=("reasoned",))}
    assert [held[f"note-{n}"].payload.get("meta") or {} for n in range(3)] == [{"owner": "ann"}, {}, {"n": 2}]
    assert all(point.vectors and point.payload["trace"] for point in held.values())


def test_a_bad_document_does_not_lose_the_rest(store: Store, tmp_path: Path) -> None:
    half = tmp_path / "half.png"
    half.write_bytes(png(RED)[:60])
    index_documents(models(), store, [Document("kept", id="cut")])
    given: list[Any] = [
        Document("good", id="good"),
        Document(half, id="cut"),
        Document(png(RED)[:60], id="cut-bytes"),
        Document(7, id="seven"),  # type: ignore[arg-type]  # what an app may give
        Document("x", id=""),
        Document("x", id=5),  # type: ignore[arg-type]  # what an app may give
        Document("bad \ud800", id="surrogate"),
        Document("x" * 100_001, id="long"),
        Document(b"%PDF-1.7 nothing", id="pdf-bytes"),
        Document("x", id="nan", metadata={"score": float("nan")}),
        Document(tmp_path, id="folder"),
        Document(tmp_path / "none.png", id="none"),
        Document(Item(images=("https://example.org/a.png?token=secret",)), id="address"),
        "a bare text",
        None,
        Document("also good", id="last"),
    ]
    report = index_documents(models(), store, given)
    assert report.indexed == 2
    said = {failure.source: failure for failure in report.failed}
    assert said.keys() == {
        *("cut", "cut-bytes", "seven", "document 4", "document 5", "surrogate", "long", "pdf-bytes", "nan", "folder"),
        *("none", "address", "document 13", "document 14"),
    }
    assert "int" in said["seven"].message
    assert said["address"].error == "remote_not_allowed"
    assert "secret" not in repr(report)
    assert "str" in said["document 13"].message
    assert {point.payload["text"] for point in store.scroll()} == {"kept", "good", "also good"}
    with pytest.raises(BrokenMedia):
        index_documents(models(), store, given[1:2], strict=True)


@pytest.mark.parametrize("given", ["text", b"bytes", {"a": 1}, 5, Document("one")])
def test_documents_are_an_iterable_of_documents(store: Store, given: Any) -> None:
    with pytest.raises(InputError, match="documents cannot be a"):
        index_documents(models(), store, given)


def test_the_last_of_equal_ids_counts_and_is_named(store: Store) -> None:
    given = [Document("one", id="a"), Document("two", id="a"), Document("b", id="b"), Document("three", id="a")]
    report = index_documents(models(), store, given, batch_size=2)
    [failure] = report.failed
    assert (failure.source, "more than once" in failure.message, "1 more" in failure.message) == ("a", True, True)
    assert {p.payload["doc_id"]: p.payload["text"] for p in store.scroll()} == {"a": "three", "b": "b"}


def test_an_error_of_the_generator_surfaces_and_what_was_written_stays(store: Store) -> None:
    def some() -> Iterator[Document]:
        yield from notes(4)
        raise RuntimeError("the queue was closed")

    with pytest.raises(RuntimeError, match="the queue was closed"):
        index_documents(models(), store, some(), batch_size=2)
    assert store.count() == 4
    report = index_documents(models(), store, notes(6), batch_size=2)
    assert (report.indexed, report.unchanged) == (2, 4)


def test_a_long_stream_is_drawn_batch_by_batch(store: Store) -> None:
    drawn: list[int] = []
    ahead: list[int] = []

    def some() -> Iterator[Document]:
        for number in range(1000):
            drawn.append(number)
            yield Document(f"note {number}", id=str(number))

    report = index_documents(
        models(),
        store,
        some(),
        reasoning="never",
        batch_size=100,
        on_progress=lambda p: ahead.append(len(drawn) - p.done),
    )
    assert (report.indexed, store.count(), max(ahead)) == (1000, 1000, 0)


def test_a_killed_run_repeated_ends_with_the_same_points(store: Store, open_collection: Any) -> None:
    class Lost(Exception):
        pass

    class Dying(HashEmbedder):
        def embed(self, chats: Any) -> Any:
            if self.calls > 6:
                raise Lost
            return super().embed(chats)

    given = [*notes(6), Document(png(RED), id="red")]
    with pytest.raises(Lost):
        index_documents(ReasoningEmbedder(Dying(), models().reasoner), store, given, batch_size=4)
    index_documents(models(), store, given, batch_size=4)
    whole = open_collection("whole")
    index_documents(models(), whole, given, batch_size=3)
    same(dump(store), dump(whole))


def test_equal_contents_share_vectors_but_not_metadata(store: Store, tmp_path: Path) -> None:
    red = picture(tmp_path / "red.png", RED)
    index(models(), store, red, reasoning="always", metadata={"owner": "ann"})
    report = index_documents(models(), store, [Document(red.read_bytes(), id="copy", metadata={"n": 1})])
    assert (report.moved, report.model_calls) == (1, 0)
    [copy] = store.scroll(Filter(doc_ids=("copy",)), vectors=("direct", "reasoned"))
    assert (copy.payload["meta"], copy.payload["reasoning"], set(copy.vectors)) == (
        *({"n": 1}, "done"),
        {"direct", "reasoned"},
    )


def test_folders_and_documents_leave_each_other_alone(store: Store, tmp_path: Path) -> None:
    folder = fill(tmp_path / "things")
    index(models(), store, folder)
    index_documents(models(), store, [Document(folder / "red.png", id="mine")])
    report = index(models(), store, folder)
    assert (report.indexed, report.removed, report.points) == (0, 0, 0)
    (folder / "red.png").unlink()
    assert index(models(), store, folder).removed == 1
    assert [point.payload["source"] for point in store.scroll(Filter(doc_ids=("mine",)))] == [str(folder / "red.png")]


def test_later_needs_media_that_can_be_read_again(store: Store, tmp_path: Path) -> None:
    red = picture(tmp_path / "red.png", RED)
    given = [
        Document("a text", id="text"),
        Document(png(BLUE), id="bytes"),
        Document(red, id="path"),
        Document(Item(text="both", images=(red,)), id="item"),
    ]
    report = index_documents(models(), store, given, reasoning="later")
    assert [(f.source, "keep_media" in f.hint) for f in report.failed] == [("bytes", True)]
    done = enrich(models(), store)
    assert (done.enriched, done.remaining, done.failed) == (3, 0, ())
    assert index_documents(models(), store, given[2:]).model_calls == 0
    picture(red, GREEN)
    index_documents(models(), store, [Document("new", id="text")], reasoning="later")
    assert enrich(models(), store).enriched == 1


def test_enrich_does_not_reason_over_a_changed_file(store: Store, tmp_path: Path) -> None:
    red = picture(tmp_path / "red.png", RED)
    index_documents(models(), store, [Document(red, id="path")], reasoning="later")
    picture(red, GREEN)
    report = enrich(models(), store)
    assert (report.enriched, report.remaining, [failure.source for failure in report.failed]) == (0, 1, ["path"])


def test_kept_media_can_be_read_and_are_deleted_with_their_document(store: Store, tmp_path: Path) -> None:
    kept = tmp_path / "kept"
    given = [
        Document(png(RED), id="bytes"),
        Document(PIL.Image.new("RGB", (48, 48), BLUE), id="pillow"),
        Document(Item(text="two", images=(png(RED), png(GREEN))), id="item"),
        Document(document(tmp_path / "report.pdf", RED, GREEN).read_bytes(), id="pdf"),
    ]
    report = index_documents(models(), store, given, reasoning="later", keep_media=kept)
    assert (report.failed, report.points, len(list(kept.iterdir()))) == ((), 5, 5)
    assert enrich(models(), store).enriched == 5
    assert index_documents(models(), store, given, keep_media=kept).model_calls == 0
    hits = {hit.id: hit for hit in search(models(), store, "red", limit=9).hits}
    assert Path(hits["bytes"].source).read_bytes() == png(RED)
    assert len(hits["item"].item.images) == 2
    assert index_documents(models(), store, given[:1]).unchanged == 1  # keeps what was kept
    index_documents(models(), store, [Document(png(GREEN), id="bytes")], keep_media=kept)
    assert len(list(kept.iterdir())) == 5
    assert delete(store, where=Filter(pages=(2,))) == 1
    assert len(list(kept.iterdir())) == 5  # the other page needs the file
    assert delete(store, ["bytes", "item", "pdf", "unknown"]) == 3
    assert len(list(kept.iterdir())) == 1


def test_media_in_memory_can_be_kept_afterwards(store: Store, tmp_path: Path) -> None:
    index_documents(models(), store, [Document(png(RED), id="a")])
    report = index_documents(models(), store, [Document(png(RED), id="a")], keep_media=tmp_path / "kept")
    assert report.model_calls == 0
    [hit] = search(models(), store, "red").hits
    assert hit.item.images == (Path(hit.source),)


def test_foreign_payloads_never_delete_files(store: Store, tmp_path: Path) -> None:
    mine = picture(tmp_path / "mine.png", RED)
    index_documents(models(), store, [Document("a", id="a")])
    [point] = store.scroll()
    store.update([type(point)(point.id, {}, {"ume_document": {"kept": [str(mine)]}})])
    delete(store, ["a"])
    assert mine.exists()


def test_delete_needs_something_to_delete(store: Store) -> None:
    index_documents(models(), store, notes(3), reasoning="never")
    with pytest.raises(InputError, match="nothing says"):
        delete(store)
    with pytest.raises(InputError, match="several ids"):
        delete(store, "note-1")
    assert delete(store, []) == 0
    assert delete(store, ["note-0"], where=Filter(kinds=("image",))) == 0
    assert delete(store, iter(["note-0", "note-1"]), where=Filter(kinds=("text",))) == 2
    assert store.count() == 1


def test_async_iterables_and_stores_do_the_same(store: Store, tmp_path: Path) -> None:
    async def some() -> AsyncIterator[Document]:
        for document_ in notes(5):
            await asyncio.sleep(0)
            yield document_

    async def both() -> None:
        async with ThreadStore(EdgeStore(tmp_path / "async", "things")) as asynchronous:
            made = await aindex_documents(models(), asynchronous, some(), batch_size=2)
            again = await aindex_documents(models(), asynchronous, notes(5))
            assert (made.indexed, again.unchanged, again.model_calls) == (5, 5, 0)

    asyncio.run(both())
    index_documents(models(), store, notes(5))
    with EdgeStore(tmp_path / "async", "things") as written:
        same(dump(written), dump(store))


def test_a_cancelled_task_draws_no_more(tmp_path: Path) -> None:
    async def forever() -> AsyncIterator[Document]:
        for number in range(1_000_000):
            await asyncio.sleep(0)
            yield Document(f"note {number}", id=str(number))

    async def cancelled() -> int:
        async with ThreadStore(EdgeStore(tmp_path / "async", "things")) as asynchronous:
            running = asyncio.create_task(
                aindex_documents(models(), asynchronous, forever(), reasoning="never", batch_size=5)
            )
            while not await asynchronous.exists() or not await asynchronous.count():
                await asyncio.sleep(0.05)
            running.cancel()
            with pytest.raises(asyncio.CancelledError):
                await running
            return await asynchronous.count()

    assert 0 < asyncio.run(cancelled()) < 100_000
