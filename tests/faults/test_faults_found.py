"""What the harness has found, each as the smallest case that shows it."""

from __future__ import annotations

import shutil
import struct
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from fault_seeds import seeds
from fault_work import models
from small_media import fill

from ume_qdrant import EdgeStore, Filter, enrich, index
from ume_qdrant.stores.edge_folder import MIN_FREE
from ume_retrieval import Failure, Sampling, StoreError
from ume_retrieval.chat import Chat
from ume_retrieval.engines.base import Generation
from ume_retrieval.engines.server.embedder import _read
from ume_retrieval.errors import BrokenMedia, MediaTooLarge, ServerError
from ume_retrieval.media import discover, open_image, probe_video
from ume_retrieval.testing import FakeReasoner, fake_embedder


def test_times_that_no_clock_can_hold_are_broken_media(tmp_path: Path) -> None:
    """An AVI whose seconds do not fit into 64 bits ended the whole run with an OverflowError."""
    data = bytearray(seeds(tmp_path / "seeds")["e.avi"])
    place = data.index(b"strh") + 8
    struct.pack_into("<II", data, place + 20, 0x7FFFFFFF, 1)  # so many seconds a frame
    struct.pack_into("<I", data, place + 32, 0x7FFFFFFF)  # so many frames
    path = tmp_path / "slow.avi"
    path.write_bytes(data)
    with pytest.raises((BrokenMedia, MediaTooLarge)):
        probe_video(path)
    assert [type(found) for found in discover([path])] == [Failure]


@pytest.mark.parametrize("rows", [[], [[1.0, 2.0]] * 2, [[1.0, 2.0, 3.0]], [[1.0]]])
def test_the_wrong_number_of_vectors_is_no_answer(rows: list[list[float]]) -> None:
    """A vector of another length ended the whole run with a ValueError of numpy's."""
    import base64

    packed = [{"embedding": base64.b64encode(np.array(row, dtype="<f4").tobytes()).decode()} for row in rows]
    with pytest.raises(ValueError, match=r"vector|unpack"):  # which the client takes for half an answer
        _read({"data": packed, "usage": {"prompt_tokens": 1}}, dimension=2)


def test_a_wrong_key_for_a_while_does_not_mark_points(tmp_path: Path) -> None:
    """Points were marked as failed for good because their request met a server that refused the key."""

    class Refused(FakeReasoner):
        def generate(self, chats: Sequence[Chat], sampling: Sampling) -> list[Generation]:
            raise ServerError("the server answered 401: wrong key")

    folder = fill(tmp_path / "things")
    with EdgeStore(tmp_path / "vectors", "things") as store:
        index(models(None), store, folder)
        report = enrich(fake_embedder(reasoner=Refused()), store)
        assert (report.enriched, report.remaining) == (0, 8)
        assert report.failed
        assert enrich(models(None), store).enriched == 8
        assert store.count(Filter(reasoning=("done",))) == 8


def test_a_disc_that_is_nearly_full_is_not_written_to(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Qdrant Edge writes through memory maps: a full disc killed the process with SIGBUS."""
    folder = fill(tmp_path / "things")
    usage = shutil.disk_usage(tmp_path)
    free = [10 * MIN_FREE] * 2 + [MIN_FREE - 1]
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=free.pop(0) if free[1:] else free[0]))
    with EdgeStore(tmp_path / "vectors", "things") as store:
        with pytest.raises(StoreError, match=r"67\.1 MB left; writing needs 67") as caught:
            index(models(tmp_path / "traces.sqlite3"), store, folder, reasoning="always", batch_size=3)
        assert "free some space" in caught.value.hint
        assert store.count() == 3
        monkeypatch.undo()
        index(models(tmp_path / "traces.sqlite3"), store, folder, reasoning="always")
        assert store.count(Filter(reasoning=("done",))) == 8


def test_memory_that_runs_out_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    from PIL import Image

    def exhausted(*_: object) -> None:
        raise MemoryError

    monkeypatch.setattr(Image.Image, "convert", exhausted)
    with pytest.raises(MediaTooLarge, match="more memory than available"):
        open_image(Image.new("L", (4, 4)))
