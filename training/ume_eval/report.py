"""A run as a Markdown file and as one HTML page, with its plots where they were drawn."""

from __future__ import annotations

import base64
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import jinja2

from ume_eval.published import Published
from ume_eval.results import RunResult
from ume_eval.table import TextTable, group_table, notes, reasoning_table, task_table
from ume_retrieval.report.wording import one_line
from ume_retrieval.util.files import atomic_write

MOST_NAMED: Final = 200
"""Broken rows and failed samples that a report names; it counts them all."""

_PAGE: Final = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>{{ title }}</title><style>
body { font: 15px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 75rem; padding: 0 1rem; color: #222; }
h1 { font-size: 1.5rem; } h2 { font-size: 1.1rem; margin-top: 2rem; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; white-space: nowrap; }
th, td { padding: .2rem .7rem; text-align: right; border-bottom: 1px solid #e4e4e4; }
th:first-child, td:first-child { text-align: left; }
tr.strong td { font-weight: 600; border-top: 1px solid #999; }
ul { padding-left: 1.2rem; } img { max-width: 100%; margin: 1rem 1rem 0 0; }
@media (prefers-color-scheme: dark) { body { background: #1b1b1d; color: #ddd; } th, td { border-color: #3a3a3d; }
img { background: #fff; } }
</style></head><body><h1>{{ title }}</h1>
<ul>{% for note in notes %}<li>{{ note }}</li>{% endfor %}</ul>
{% for name, data in pictures %}<img alt="{{ name }}" src="data:image/png;base64,{{ data }}">{% endfor %}
{% for table in tables %}<h2>{{ table.title }}</h2><div class="wide"><table><tr>
{% for head in table.columns %}<th>{{ head }}</th>{% endfor %}</tr>
{% for row in table.rows %}<tr{% if loop.index0 in table.strong %} class="strong"{% endif %}>
{% for cell in row %}<td>{{ cell }}</td>{% endfor %}</tr>
{% endfor %}</table></div>{% endfor %}
{% if left_out %}<h2>Left out ({{ left_out_count }})</h2>
<ul>{% for one in left_out %}<li>{{ one }}</li>{% endfor %}</ul>{% endif %}</body></html>
"""


def write_report(
    result: RunResult, folder: Path, others: Sequence[Published] = (), pictures: Sequence[Path] = ()
) -> tuple[Path, Path]:
    """Write `report.md` and `report.html` into a folder.

    Args:
        result: The run.
        folder: Where to write.
        others: Published scores to stand beside it, from `published.beside`.
        pictures: Plots in the same folder; the page holds them, the Markdown file points at them.

    Returns:
        Both paths.

    Raises:
        InputError: When they cannot be written.
    """
    markdown, page = folder / "report.md", folder / "report.html"
    atomic_write(markdown, to_markdown(result, others, [picture.name for picture in pictures]), what="the report")
    atomic_write(page, to_html(result, others, pictures), what="the report")
    return markdown, page


def to_markdown(result: RunResult, others: Sequence[Published] = (), pictures: Sequence[str] = ()) -> str:
    """The report as Markdown."""
    parts = [f"# {_plain(_title(result))}", "\n".join(f"- {_plain(note)}" for note in notes(result, others))]
    parts += [f"![{name}]({name})" for name in pictures]
    for table in _tables(result, others):
        parts += [f"## {table.title}", _markdown(table)]
    if named := left_out(result):
        parts += [f"## Left out ({_count(result)})", "\n".join(f"- {_plain(one)}" for one in named)]
    return "\n\n".join(parts) + "\n"


def to_html(result: RunResult, others: Sequence[Published] = (), pictures: Sequence[Path] = ()) -> str:
    """The report as one page that needs no network and runs no script; whatever it names is shown as text."""
    return (
        jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined)
        .from_string(_PAGE)
        .render(
            title=_title(result),
            notes=notes(result, others),
            pictures=[(path.stem, base64.b64encode(path.read_bytes()).decode()) for path in pictures],
            tables=_tables(result, others),
            left_out=left_out(result),
            left_out_count=_count(result),
        )
    )


def _tables(result: RunResult, others: Sequence[Published]) -> list[TextTable]:
    tables = (group_table(result, others), task_table(result, others), reasoning_table(result))
    return [table for table in tables if table.rows]


def left_out(result: RunResult) -> list[str]:
    """What could not be used, by name."""
    named = [
        one_line(f"{where}: {message}")
        for task in result.tasks
        for where, message in (
            *((problem.where, f"{problem.name}, {problem.message}") for problem in task.problems),
            *((failure.source, f"{failure.error}, {failure.message}") for failure in task.failures),
        )
    ]
    return named[:MOST_NAMED]


def _count(result: RunResult) -> int:
    return sum(len(task.problems) + len(task.failures) for task in result.tasks)


def _title(result: RunResult) -> str:
    return f"{result.benchmark}: {result.embedder.partition('@')[0]}"


def _markdown(table: TextTable) -> str:
    lines = [_line(table.columns), _line([":---", *["---:"] * (len(table.columns) - 1)])]
    for place, row in enumerate(table.rows):
        cells = [_plain(cell) for cell in row]
        lines.append(_line([f"**{cell}**" if cell and place in table.strong else cell for cell in cells]))
    return "\n".join(lines)


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _plain(text: str) -> str:
    r"""Text that Markdown shows as it is.

    Example:
        >>> _plain("a|b <img> [x]")
        'a\\|b \\<img> \\[x]'
    """
    return re.sub(r"([\\`*_\[<|])", r"\\\1", " ".join(text.split()))
