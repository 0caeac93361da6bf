"""Where the snippets of the pages run: a folder in which someone has just finished the tutorial."""

from __future__ import annotations

import asyncio
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from snippet_runs import run_page


@pytest.fixture(scope="session")
def docs_home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder with a cache of traces of its own, for all pages."""
    home = tmp_path_factory.mktemp("docs")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("UME_CACHE_DIR", str(home / "cache"))
        patch.setenv("HF_HUB_OFFLINE", "1")
        patch.setenv("COLUMNS", "200")  # long paths on one line
        for variable in ("UME_ENGINE", "UME_REASONER_URL", "UME_EMBEDDER_URL", "QDRANT_API_KEY"):
            patch.delenv(variable, raising=False)
        yield home


@pytest.fixture(scope="session")
def after_tutorial(docs_home: Path) -> Path:
    """A copy of what the tutorial leaves behind, when every word of it was followed."""
    work = docs_home / "work"
    work.mkdir()
    before = Path.cwd()
    os.chdir(work)
    try:
        run_page("tutorial.md")
    finally:
        os.chdir(before)
    return Path(shutil.copytree(work, docs_home / "after-tutorial"))


@pytest.fixture
def work(docs_home: Path, after_tutorial: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The same folder as the tutorial left it; its collections name files by their absolute paths."""
    # LlamaIndex's blocking calls leave the event loop of their thread open; this one is closed for them.
    loop = asyncio.new_event_loop()
    asyncio.set_event_loop(loop)
    folder = docs_home / "work"
    shutil.rmtree(folder)
    shutil.copytree(after_tutorial, folder)
    monkeypatch.chdir(folder)
    yield folder
    asyncio.set_event_loop(None)
    loop.close()
