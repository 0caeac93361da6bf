"""`UmeReader` and its documents: identity, metadata, and surviving LlamaIndex's stores."""

from __future__ import annotations

import logging
import os
from pathlib import Path

import pytest
from llama_index.core import SimpleDirectoryReader
from llama_index.core.schema import Node
from llama_index.core.storage.docstore import SimpleDocumentStore
from llama_index.core.vector_stores.utils import metadata_dict_to_node, node_to_metadata_dict
from llama_world import fill, models
from small_media import BLUE, GREEN, clip, picture

from ume_llama_index import UmeReader
from ume_qdrant import EdgeStore, index
from ume_retrieval import InputError, MediaError


def test_ids_and_places_are_those_of_ume_index(tmp_path: Path) -> None:
    folder = fill(tmp_path / "things")
    documents = {document.id_: document for document in UmeReader().load_data(folder)}
    store = EdgeStore(tmp_path / "vectors", "things")
    index(models(), store, folder)
    points = {point.id: point.payload for point in store.scroll()}
    store.close()
    assert documents.keys() == points.keys()
    for key, document in documents.items():
        for name in ("source", "kind", "start_s", "end_s", "page", "file_digest", "size", "mtime_ns", "parts"):
            assert document.metadata.get(name) == points[key].get(name), name


def test_what_a_document_says(tmp_path: Path) -> None:
    documents = UmeReader(segment_s=10, overlap_s=0).load_data(fill(tmp_path / "things"))
    found = {(Path(d.metadata["source"]).name, d.metadata.get("start_s"), d.metadata.get("page")): d for d in documents}
    assert set(found) == {
        ("red.png", None, None),
        ("green.png", None, None),
        ("notes.txt", None, None),
        ("report.pdf", None, 1),
        ("report.pdf", None, 2),
        ("clip.mp4", 0.0, None),
        ("clip.mp4", 10.0, None),
    }
    assert found["notes.txt", None, None].text == "the last train home"
    assert found["red.png", None, None].image_resource.mimetype == "image/png"
    second = found["clip.mp4", 10.0, None]
    assert second.metadata["end_s"] == pytest.approx(20.0)
    shown = second.get_content("llm")
    assert "start_s: 10" in shown
    assert "digest" not in shown


def test_hashes_follow_content_not_times_and_never_collide(tmp_path: Path) -> None:
    folder = fill(tmp_path / "things")
    before = {d.id_: d.hash for d in UmeReader().load_data(folder)}
    assert len(set(before.values())) == len(before) == 7, "nodes without text have hashes of their own"
    os.utime(folder / "red.png", (1, 1))
    assert {d.id_: d.hash for d in UmeReader().load_data(folder)} == before
    picture(folder / "red.png", BLUE)
    after = {d.id_: d.hash for d in UmeReader().load_data(folder)}
    assert len(before.keys() - after.keys()) == len(after.keys() - before.keys()) == 1


def test_documents_survive_payloads_and_document_stores(tmp_path: Path) -> None:
    docstore = SimpleDocumentStore()
    documents = UmeReader().load_data(fill(tmp_path / "things"))
    docstore.add_documents(documents)
    for document in documents:
        for back in (metadata_dict_to_node(node_to_metadata_dict(document)), docstore.get_document(document.id_)):
            assert isinstance(back, Node)
            assert (back.id_, back.metadata) == (document.id_, document.metadata)
            assert back.image_resource == document.image_resource
            assert back.video_resource == document.video_resource
            assert back.get_content() == document.get_content()


def test_bad_files_are_named_and_the_rest_goes_on(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    clip(tmp_path / "good.mp4", 2, GREEN)
    (tmp_path / "bad.png").write_bytes(b"no picture")
    reading = UmeReader().read(tmp_path)
    assert [Path(d.metadata["source"]).name for d in reading.documents] == ["good.mp4"]
    assert [Path(f.source).name for f in reading.failures] == ["bad.png"]
    with caplog.at_level(logging.WARNING):
        assert len(UmeReader().load_data(tmp_path)) == 1
    assert "bad.png" in caplog.text
    with pytest.raises(MediaError, match=r"bad\.png"):
        UmeReader(strict=True).load_data(tmp_path)
    with pytest.raises(InputError):
        UmeReader().load_data([])


async def test_it_works_within_llama_indexs_own_reader(tmp_path: Path) -> None:
    picture(tmp_path / "a.png", BLUE)
    reader = SimpleDirectoryReader(str(tmp_path), file_extractor={".png": UmeReader()})
    [document] = reader.load_data()
    assert document.metadata["kind"] == "image"
    assert document.metadata["file_name"] == "a.png"
    assert document.id_ == UmeReader().load_data(tmp_path)[0].id_
    [twin] = await UmeReader().aload_data(tmp_path)
    assert twin.id_ == document.id_
