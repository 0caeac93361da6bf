# ruff: noqa: INP001  # MkDocs loads it by its path
"""What the site shows otherwise than a checkout does; a hook of MkDocs."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

NOT_EXECUTED = re.compile(r"^<!-- not executed: (.+?) -->$", re.MULTILINE)
LINK = re.compile(r"(?<!!)\[([^\]]+)\]\(([^)#:\s]+)\)")
DOCS = Path(__file__).parents[1]


def on_page_markdown(markdown: str, *, page: Any, **_: Any) -> str:
    """Show why a snippet is not run by the tests, and name files outside of the site instead of linking to them."""

    def named(link: re.Match[str]) -> str:
        words, target = link.groups()
        path = (DOCS / page.file.src_uri).parent.joinpath(target).resolve()
        if path.is_relative_to(DOCS) or not path.is_relative_to(DOCS.parent):
            return link[0]
        where = f"`{path.relative_to(DOCS.parent).as_posix()}`"
        return where if words.strip("`") in where else f"{words} ({where})"

    markdown = NOT_EXECUTED.sub(r'<small class="not-executed">The tests do not run this: \1.</small>\n', markdown)
    return LINK.sub(named, markdown)
