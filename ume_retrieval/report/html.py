"""The report as one HTML page that needs no network and runs no script."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import jinja2

from ume_retrieval.report.content import ReportPage
from ume_retrieval.report.views import query_view
from ume_retrieval.report.wording import legible, one_line
from ume_retrieval.util.files import atomic_write


def write_html(page: ReportPage, path: str | Path) -> Path:
    """Write a report as one self-contained HTML file.

    Args:
        page: What to show. Its texts may come from models and from file names: whatever they hold is shown as text.
        path: The file to write, replaced if it exists; missing folders are made.

    Returns:
        The file's path.

    Raises:
        InputError: When the file cannot be written.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     write_html(ReportPage("Holiday photos"), Path(folder) / "report.html").name
        'report.html'
    """
    return atomic_write(path, render_html(page), what="the report")


def render_html(page: ReportPage) -> str:
    """Render a report as HTML text, for an app that serves it itself.

    Example:
        >>> "<script>" in render_html(ReportPage("<script>alert(1)</script>"))
        False
    """
    queries = [query_view(number, query) for number, query in enumerate(page.queries, start=1)]
    facts = [(one_line(name), one_line(value)) for name, value in page.facts]
    notes = [legible(note) for note in page.notes]
    document = _template().render(
        title=one_line(page.title), facts=facts, table=page.table, notes=notes, queries=queries, legible=legible
    )
    return document.lstrip()


@cache
def _template() -> jinja2.Template:
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("ume_retrieval.report", "."),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template("template.html.j2")
