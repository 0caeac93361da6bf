"""The pages of docs/ as values: their snippets, their links, and the commands that they name."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from markdown_it import MarkdownIt

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
PAGES = {page.relative_to(DOCS).as_posix(): page for page in sorted(DOCS.rglob("*.md"))}

SHELLS = ("sh", "bash", "shell")
MARK = re.compile(r"<!-- not executed: (.+?) -->")
NEEDS = re.compile(r"<!-- needs: (\w+) -->")


@dataclass(frozen=True, slots=True)
class Snippet:
    """A fenced block of code.

    Attributes:
        page: The page that it stands on, below docs/.
        line: The line of its first word, 1-based.
        language: As its fence says.
        code: What is in it.
        reason: Why the tests do not run it, or "".
        needs: A package without which it cannot run, or "".
        output: What it prints, where the page shows it in a `text` block right behind, else None.
    """

    page: str
    line: int
    language: str
    code: str
    reason: str
    needs: str
    output: str | None

    def __str__(self) -> str:
        return f"docs/{self.page}, line {self.line}"


def markdown(name: str) -> str:
    return PAGES[name].read_text(encoding="utf-8")


def snippets(name: str) -> list[Snippet]:
    """Every block of Python or shell on a page, in order; a comment before a block speaks of that block."""
    tokens = MarkdownIt().enable("table").parse(markdown(name))
    found: list[Snippet] = []
    for place, token in enumerate(tokens):
        if token.type != "fence" or token.map is None or token.info not in ("python", *SHELLS):
            continue
        before = tokens[place - 1].content if place and tokens[place - 1].type == "html_block" else ""
        behind = tokens[place + 1] if place + 1 < len(tokens) else None
        output = behind.content if behind and behind.type == "fence" and behind.info == "text" else None
        mark, needs = MARK.search(before), NEEDS.search(before)
        found.append(
            Snippet(
                name,
                token.map[0] + 2,
                "python" if token.info == "python" else "sh",
                token.content,
                mark[1] if mark else "",
                needs[1] if needs else "",
                output,
            )
        )
    return found


def inline_code(name: str) -> Iterator[str]:
    """What stands in backticks between words."""
    for token in MarkdownIt().enable("table").parse(markdown(name)):
        for child in token.children or ():
            if child.type == "code_inline":
                yield child.content


def links(name: str) -> Iterator[str]:
    """Targets of links and pictures."""
    for token in MarkdownIt().enable("table").parse(markdown(name)):
        for child in token.children or ():
            if child.type in {"link_open", "image"}:
                yield str(child.attrs["href" if child.type == "link_open" else "src"])


def anchors(name: str) -> set[str]:
    """What a link may point at on a page: its headings, as MkDocs (and GitHub) name them."""
    tokens = MarkdownIt().parse(markdown(name))
    headings = [tokens[place + 1].content for place, token in enumerate(tokens) if token.type == "heading_open"]
    return {re.sub(r"[-\s]+", "-", re.sub(r"[^\w\s-]", "", words).strip().lower()) for words in headings}
