"""What docs/qdrant.md says of the payload must be all of it."""

from __future__ import annotations

import re
from pathlib import Path

PAGE = (Path(__file__).parents[2] / "docs" / "qdrant.md").read_text(encoding="utf-8")


def test_the_table_of_the_payload_is_complete(tmp_path: Path) -> None:
    from ume_qdrant import index, open_store
    from ume_retrieval.testing import fake_embedder

    (tmp_path / "note.txt").write_text("the last train home", encoding="utf-8")
    table = PAGE.split("| Field | |")[1].split("\n\n")[0]
    fields = {field for row in table.splitlines()[2:] for field in re.findall(r"`(\w+)`", row.split("|")[1])}
    with open_store(tmp_path / "vectors", "notes") as store:
        index(fake_embedder(), store, tmp_path / "note.txt", reasoning="always")
        [point] = store.scroll()
    assert set(point.payload) <= fields
    assert fields - set(point.payload) == {"start_s", "end_s", "page", "cut", "split_from"}
