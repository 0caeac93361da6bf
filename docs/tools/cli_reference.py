# ruff: noqa: INP001  # a script
"""Writes the reference of the command line, `docs/reference/cli.md`, from the Typer app.

`python docs/tools/cli_reference.py` does it; a test compares the page with what the app says.
"""

from __future__ import annotations

import re
from pathlib import Path

import typer
from typer.cli import get_docs_for_click

PAGE = Path(__file__).parents[1] / "reference" / "cli.md"

SECTION = re.compile(r"^(?=#)", re.MULTILINE)
HEADING = re.compile(r"#+ `ume (.+)`\n\n(.+)\n")
LISTED = re.compile(r"^\* `([\w-]+)`: .+\.\.\.$", re.MULTILINE)


def cli_page() -> str:
    """The page, as Typer writes it, with whole sentences where Typer cuts them off in lists of commands."""
    from ume_cli.app import app

    command = typer.main.get_command(app)
    page = get_docs_for_click(obj=command, ctx=typer.Context(command), name="ume", title="Command line")
    said: dict[str, str] = dict(HEADING.findall(page))
    sections = []
    for section in SECTION.split(page):
        heading = HEADING.match(section)
        above = f"{heading[1]} " if heading else ""
        sections.append(LISTED.sub(lambda line, above=above: f"* `{line[1]}`: {said[above + line[1]]}", section))
    return "".join(sections).strip() + "\n"


if __name__ == "__main__":
    PAGE.write_text(cli_page(), encoding="utf-8")
