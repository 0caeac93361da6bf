"""An app with a server for its vectors, and models on a server too, needs neither torch nor transformers."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

APP = """
import sys
from pathlib import Path
from qdrant_client import QdrantClient
from ume_qdrant import ClientStore, index, search
from ume_retrieval.testing import fake_embedder
embedder = fake_embedder()
store = ClientStore(QdrantClient(":memory:"), "notes")
assert index(embedder, store, sys.argv[1], reasoning="always").indexed == 1
assert len(search(embedder, store, "train").hits) == 1
assert not {"torch", "transformers"} & sys.modules.keys(), sorted(sys.modules)
"""


def test_indexing_and_searching_import_no_model_library(tmp_path: Path) -> None:
    (tmp_path / "note.txt").write_text("the last train home")
    subprocess.run([sys.executable, "-c", APP, str(tmp_path)], check=True)  # noqa: S603  # our own text
