"""What pages show must run as it stands, from top to bottom; what cannot run is listed here and checked as well."""

from __future__ import annotations

import importlib.util
import re
import shlex
from collections import Counter
from pathlib import Path

import pytest
from docs_pages import PAGES, Snippet, inline_code, snippets
from snippet_runs import check_unrun, command_of, run_page, understand

ALL = [snippet for page in PAGES for snippet in snippets(page)]

RUNNING = sorted({snippet.page for snippet in ALL if not snippet.reason})

NOT_EXECUTED = {
    "egrl.md": ["needs weights from the hub and a GPU"],
    "evaluation.md": ["needs the benchmarks' data, weights from the hub and a GPU", "needs data from the hub"],
    "how-to/embedders.md": ["what it prints depends on the memory of the machine"]
    + ["needs weights from the hub"] * 2
    + ["needs weights from the hub and a GPU"] * 3
    + ["needs weights from the hub"],
    "how-to/engines.md": ["installs packages", "needs vLLM and a GPU", "needs vLLM and a GPU"]
    + ["needs the two servers"] * 2,
    "how-to/llama-index.md": ["needs weights from the hub and a GPU"],
    "how-to/qdrant-server.md": ["needs a Qdrant server"] * 3,
    "how-to/search.md": ["needs weights from the hub"] * 2,
    "how-to/serve.md": ["it runs until it is stopped", "it asks the server above", "it runs until it is stopped"],
    "how-to/train.md": ["takes an hour", "needs weights from the hub and a GPU"],
    "qdrant.md": ["needs a Qdrant server"],
    "scale.md": ["needs a Ray cluster"] * 2,
    "training-data.md": ["needs a downloaded data set", "needs pairs of yours"],
    "training.md": ["takes an hour", "needs several GPUs"],
    "tutorial.md": ["installs packages"],
}
"""Every snippet that no test runs. A new one is written down here too, so that none comes in unseen."""


@pytest.mark.parametrize("page", [page for page in RUNNING if page != "tutorial.md"])
def test_every_snippet_of_a_page_runs(page: str, work: Path) -> None:
    expected = [snippet for snippet in ALL if snippet.page == page and not snippet.reason]
    missing = [snippet for snippet in expected if snippet.needs and not importlib.util.find_spec(snippet.needs)]
    assert run_page(page) == [snippet for snippet in expected if snippet not in missing]
    for snippet in missing:
        check_unrun(snippet)


def test_the_tutorial_runs(after_tutorial: Path) -> None:
    """The fixture ran it; this is what a reader holds in the end."""
    left = {path.name for path in after_tutorial.iterdir()}
    assert {"photos", "films", "manuals", "ume-store", "why.html", "why.png", "evidence.png"} <= left


def test_what_is_not_executed_is_written_down() -> None:
    found: dict[str, list[str]] = {}
    for snippet in ALL:
        if snippet.reason:
            found.setdefault(snippet.page, []).append(snippet.reason)
    assert found == NOT_EXECUTED
    kinds = Counter(snippet.language for snippet in ALL if not snippet.reason)
    assert kinds["python"] >= 35
    assert kinds["sh"] >= 12


@pytest.mark.parametrize("snippet", [snippet for snippet in ALL if snippet.reason], ids=str)
def test_what_is_not_executed_names_only_what_exists(snippet: Snippet) -> None:
    check_unrun(snippet)


@pytest.mark.parametrize(
    ("language", "code", "complaint"),
    [
        ("sh", "ume serch words", "no command"),
        ("sh", "ume search words --no-such-option", "No such option"),
        ("sh", "pip install 'ume-retrieval[nothing]'", "nothing"),
        ("sh", "make coffee", "make coffee"),
        ("sh", "curl example.org", "what is curl"),
        ("python", "from ume_qdrant import opened", "opened"),
        ("python", "from ume_qdrant import search\nsearch(a, b, c, depth=3)", "takes no depth"),
        ("python", "from ume_retrieval import Item\nItem.read()", "read"),
        ("python", "from ume_retrieval import ReasoningEmbedder as R\nR.from_pretrained('qwen9')", "unknown embedder"),
        ("python", "x = = 3", "invalid syntax"),
    ],
)
def test_what_does_not_exist_is_found(language: str, code: str, complaint: str) -> None:
    with pytest.raises(Exception, match=re.escape(complaint)):
        check_unrun(Snippet("page.md", 1, language, code, "needs luck", "", None))


@pytest.mark.parametrize("page", PAGES)
def test_commands_named_in_a_sentence_exist(page: str) -> None:
    for code in inline_code(page):
        if code.startswith("ume ") and page != "reference/cli.md":
            command, options = command_of(shlex.split(code.replace("…", "x"))[1:])
            for option in options:
                assert option in command, f"{code}: {option}"


def test_a_page_that_shows_another_output_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page = tmp_path / "page.md"
    page.write_text("```python\nprint(1)\n```\n\n```text\n2\n```\n", encoding="utf-8")
    monkeypatch.setitem(PAGES, "page.md", page)
    with pytest.raises(AssertionError, match=r"page\.md, line 2 shows"):
        run_page("page.md")


def test_a_command_that_fails_fails_the_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page = tmp_path / "page.md"
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(PAGES, "page.md", page)
    for line in ("ume search words --store nowhere", "cat nothing"):
        page.write_text(f"```sh\n{line}\n```\n", encoding="utf-8")
        with pytest.raises(AssertionError, match=r"nowhere|nothing"):
            run_page("page.md")


def test_commands_are_understood_without_being_done() -> None:
    understand(["train", "plan", "shapes-small", "--gpu", "80"])
    with pytest.raises(AssertionError, match="no command 'pan'"):
        understand(["train", "pan", "shapes-small"])
