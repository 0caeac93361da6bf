"""What docs/qdrant.md shows must run as it stands, from top to bottom."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path

import pytest

PAGE = (Path(__file__).parents[2] / "docs" / "qdrant.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"(?:<!-- needs: (\w+) -->\n)?```python\n(.*?)```", PAGE, flags=re.DOTALL)


def test_every_snippet_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {}
    ran = 0
    for needs, block in BLOCKS:
        if not needs or importlib.util.find_spec(needs):
            exec(compile(block, f"docs/qdrant.md, snippet {ran + 1}", "exec"), names)  # noqa: S102  # the project's words
            ran += 1
    assert ran >= 6


def test_every_command_and_option_exists() -> None:
    from typer.testing import CliRunner

    from ume_retrieval.cli.app import app

    found = re.findall(r"\bume ((?:store )?\w+)((?: [^`]*)?)`", PAGE)
    assert {command for command, _ in found} == {"search", "index", "store alias", "store drop", "store migrate"}
    for command, rest in found:
        result = CliRunner().invoke(app, [*command.split(), "--help"], env={"COLUMNS": "200"})
        assert result.exit_code == 0
        for option in re.findall(r"--[\w-]+", rest):
            assert option in result.stdout, f"{command} {option}"


def test_the_table_of_the_payload_is_complete(tmp_path: Path) -> None:
    from ume_qdrant import index, open_store
    from ume_retrieval.pipeline import ReasoningEmbedder
    from ume_retrieval.testing import FakeReasoner, HashEmbedder

    (tmp_path / "note.txt").write_text("the last train home", encoding="utf-8")
    table = PAGE.split("| Field | |")[1].split("\n\n")[0]
    fields = {field for row in table.splitlines()[2:] for field in re.findall(r"`(\w+)`", row.split("|")[1])}
    with open_store(tmp_path / "vectors", "notes") as store:
        index(ReasoningEmbedder(HashEmbedder(), FakeReasoner()), store, tmp_path / "note.txt", reasoning="always")
        [point] = store.scroll()
    assert set(point.payload) <= fields
    assert fields - set(point.payload) == {"start_s", "end_s", "page", "cut"}
