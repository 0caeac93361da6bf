"""Report a run: tables of text, a Markdown file, and one HTML page with the plots."""

from __future__ import annotations

import base64
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import jinja2

from ume_eval.published import Published, comparable_means
from ume_eval.results import RunResult, TaskResult, group_means
from ume_retrieval.report.sanitize import one_line
from ume_retrieval.util.files import atomic_write

MOST_NAMED: Final = 200
"""Most broken rows and failed samples that a report lists; it counts all."""

NONE: Final = "-"

WHOLES: Final = frozenset({"image", "video", "visdoc", "all", "AVG"})
"""Rows that summarise others."""


@dataclass(frozen=True, slots=True)
class TextTable:
    """A table as text; the first column names the rows, and `strong` holds positions of rows that summarise others."""

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    strong: frozenset[int] = frozenset()


def group_table(result: RunResult, others: Sequence[Published] = ()) -> TextTable:
    """Tabulate means by group over the tasks that ran here: each mode of the run, and other models.

    Other models appear where they have a score for each of these tasks; their printed means if all tasks ran.
    """
    ours = {mode: group_means(result.benchmark, result.scores(mode)) for mode in result.modes}
    first = next(iter(ours.values()), {})
    theirs = [comparable_means(result, other) for other in others]
    rows = []
    for name, mean in first.items():
        count = str(mean.of) if mean.ran == mean.of else f"{mean.ran} of {mean.of}"
        cells = [figure(ours[mode][name].value if name in ours[mode] else None) for mode in result.modes]
        rows.append((name, count, *cells, *(figure(some.get(name)) for some in theirs)))
    heads = ("group", "tasks", *result.modes, *(other.model for other in others))
    strong = frozenset(place for place, row in enumerate(rows) if row[0] in WHOLES)
    return TextTable(f"{result.benchmark}, percent", heads, tuple(rows), strong)


def task_table(result: RunResult, others: Sequence[Published] = ()) -> TextTable:
    """Tabulate tasks: size, each mode of the run, gain and cost of reasoning, and other models."""
    both = "direct" in result.modes and "reasoned" in result.modes
    heads = ["task", "metric", "queries", "candidates", *result.modes]
    heads += [*(["gain"] if both else []), *(["tokens/query", "T-CoT"] if "reasoned" in result.modes else [])]
    heads += ["left out", *(other.model for other in others)]
    rows = []
    for task in result.tasks:
        cells = [task.name, task.metric, str(task.queries), str(task.candidates)]
        cells += [figure(task.modes[mode].score) for mode in result.modes]
        if both:
            cells.append(gain_of(task))
        if "reasoned" in result.modes:
            cells += [figure(task.query_cost.tokens if task.query_cost else None, 0), trace_of(task)]
        cells += [str(len(task.problems) + len(task.failures)) if task.problems or task.failures else ""]
        rows.append((*cells, *(figure(other.tasks.get(task.name) if task.comparable else None) for other in others)))
    return TextTable("by task, percent", tuple(heads), tuple(rows))


def reasoning_table(result: RunResult) -> TextTable:
    """Tabulate the effect of reasoning by task: gain, lead of the best hit, cost and evidence.

    Gaps are differences of cosines; tokens, evidence (crops and key frames) and keywords are means per sample; the last
    columns are the main metric with queries' own T-CoTs and with swapped ones.
    """
    sides = ("tokens/query", "tokens/candidate", "evidence/query", "evidence/candidate", "keywords/query")
    heads = ("task", "gain", "gap direct", "gap reasoned", *sides, "own T-CoT", "swapped T-CoT", "T-CoT")
    rows = []
    for task in result.tasks:
        if task.query_cost is None or task.corpus_cost is None:
            continue
        gaps = [task.modes[mode].gap if mode in task.modes else None for mode in ("direct", "reasoned")]
        query, corpus, swap = task.query_cost, task.corpus_cost, task.swap
        rows.append(
            (
                task.name,
                gain_of(task),
                *(figure(gap, 3) for gap in gaps),
                figure(query.tokens, 0),
                figure(corpus.tokens, 0),
                *(figure(value) for value in (query.evidence, corpus.evidence, query.keywords)),
                figure(swap.own if swap else None),
                figure(swap.swapped if swap else None),
                swap.verdict if swap else NONE,
            )
        )
    return TextTable("effect of reasoning", heads, tuple(rows))


def notes(result: RunResult, others: Sequence[Published] = ()) -> tuple[str, ...]:
    """Return notes that a reader needs to interpret the tables."""
    said = [f"Embedder {result.embedder}; Reasoner {result.reasoner or 'none'}."]
    if result.benchmark == "mmeb-v2" and any(task.name.startswith(("ViDo", "MMLong", "Vis")) for task in result.tasks):
        said.append(f"Document tasks in the version {result.visdoc}.")
    if other_rows := [task.name for task in result.tasks if not task.comparable]:
        said.append(
            f"{len(other_rows)} of {len(result.tasks)} tasks were cut by --limit or have another number of queries "
            "than published; they are not compared with published scores."
        )
    if result.absent:
        said.append(f"Not run: {', '.join(f'{name} ({why})' for name, why in result.absent.items())}.")
    lost = sum(problem.costs_query for task in result.tasks for problem in task.problems)
    failed = sum(len(task.failures) for task in result.tasks)
    if lost or failed:
        said.append(
            f"{lost} queries could not be read and {failed} samples not embedded: as queries they are misses, as "
            "candidates they are never found."
        )
    ties = sum(score.ties for task in result.tasks for score in task.modes.values())
    if ties:
        said.append(f"{ties} judgements were decided by a tie, against the answer.")
    unused = [task.name for task in result.tasks if task.swap and task.swap.verdict == "not shown to be used"]
    if unused:
        said.append(
            f"T-CoTs are not shown to be used in {', '.join(unused)}: another query's T-CoT costs nothing there."
        )
    said += [f"{other.model}: {other.source}." for other in others]
    return tuple(said)


def figure(value: float | None, decimals: int = 1) -> str:
    """Format a figure, or a dash for None.

    Example:
        >>> figure(66.78), figure(None), figure(41.7, 0)
        ('66.8', '-', '42')
    """
    return NONE if value is None else f"{value:.{decimals}f}"


def gain_of(task: TaskResult) -> str:
    """Format the gain of reasoning with its standard error."""
    return NONE if task.gain is None else f"{task.gain:+.1f} ± {task.gain_error or 0:.1f}"


def trace_of(task: TaskResult) -> str:
    """Format whether T-CoTs are used, with the loss from swapping them."""
    if task.swap is None or task.swap.verdict == "too few queries":
        return NONE
    return f"{'used' if task.swap.verdict == 'used' else 'not used'} ({-task.swap.drop:+.1f})"


def write_report(
    result: RunResult, folder: Path, others: Sequence[Published] = (), pictures: Sequence[Path] = ()
) -> tuple[Path, Path]:
    """Write `report.md` and `report.html` into a folder.

    Args:
        result: The run.
        folder: The folder.
        others: Published scores to compare with, from `published.comparable_scores`.
        pictures: Plots in the same folder; the page embeds them, the Markdown file links to them.

    Returns:
        Both paths.

    Raises:
        InputError: When a file cannot be written.
    """
    markdown, page = folder / "report.md", folder / "report.html"
    atomic_write(markdown, to_markdown(result, others, [picture.name for picture in pictures]), what="the report")
    atomic_write(page, to_html(result, others, pictures), what="the report")
    return markdown, page


def to_markdown(result: RunResult, others: Sequence[Published] = (), pictures: Sequence[str] = ()) -> str:
    """Return the report as Markdown."""
    parts = [f"# {_plain(_title(result))}", "\n".join(f"- {_plain(note)}" for note in notes(result, others))]
    parts += [f"![{name}]({name})" for name in pictures]
    for table in _tables(result, others):
        parts += [f"## {table.title}", _markdown(table)]
    if named := left_out(result):
        parts += [f"## Left out ({_count(result)})", "\n".join(f"- {_plain(one)}" for one in named)]
    return "\n\n".join(parts) + "\n"


def to_html(result: RunResult, others: Sequence[Published] = (), pictures: Sequence[Path] = ()) -> str:
    """Return the report as one HTML page without scripts and external resources; all names are escaped."""
    return (
        jinja2.Environment(
            loader=jinja2.PackageLoader("ume_eval", "."), autoescape=True, undefined=jinja2.StrictUndefined
        )
        .get_template("report.html.j2")
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
    """List unusable rows and failed samples."""
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
    r"""Escape text for Markdown.

    Example:
        >>> _plain("a|b <img> [x]")
        'a\\|b \\<img> \\[x]'
    """
    return re.sub(r"([\\`*_\[<|])", r"\\\1", " ".join(text.split()))
