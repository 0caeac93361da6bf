"""A run as rows of text: ours beside published scores, by group and by task. What prints it decides how it looks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from ume_eval.published import Published, means_beside
from ume_eval.results import RunResult, TaskResult, group_means

NONE: Final = "-"

WHOLES: Final = frozenset({"image", "video", "visdoc", "all", "AVG"})
"""Rows that sum up others."""


@dataclass(frozen=True, slots=True)
class TextTable:
    """A table.

    Attributes:
        title: What it shows.
        columns: Heads; the first names rows.
        rows: One cell a column.
        strong: Positions of rows that sum up others.
    """

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    strong: frozenset[int] = frozenset()


def group_table(result: RunResult, others: Sequence[Published] = ()) -> TextTable:
    """Means by group, ours by mode and others', over the tasks that ran here.

    Others stand there where they have a score for every one of those tasks; printed means where all tasks ran.
    """
    ours = {mode: group_means(result.benchmark, result.scores(mode)) for mode in result.modes}
    first = next(iter(ours.values()), {})
    theirs = [means_beside(result, other) for other in others]
    rows = []
    for name, mean in first.items():
        count = str(mean.of) if mean.ran == mean.of else f"{mean.ran} of {mean.of}"
        cells = [figure(ours[mode][name].value if name in ours[mode] else None) for mode in result.modes]
        rows.append((name, count, *cells, *(figure(some.get(name)) for some in theirs)))
    heads = ("group", "tasks", *result.modes, *(other.model for other in others))
    strong = frozenset(place for place, row in enumerate(rows) if row[0] in WHOLES)
    return TextTable(f"{result.benchmark}, percent", heads, tuple(rows), strong)


def task_table(result: RunResult, others: Sequence[Published] = ()) -> TextTable:
    """Every task: what was asked, ours by mode, what reasoning gained and took, and others."""
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
    """What reasoning did in each task that ran with it: its gain, how clear the best hit is, its cost, its evidence.

    Gaps are differences of cosines; tokens, evidence (crops and key frames) and keywords are means a sample; the last
    columns are the main metric with queries' own T-CoTs and with others'.
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
    return TextTable("what reasoning does", heads, tuple(rows))


def notes(result: RunResult, others: Sequence[Published] = ()) -> tuple[str, ...]:
    """What a reader must know to read the tables right."""
    said = [f"Embedder {result.embedder}; Reasoner {result.reasoner or 'none'}."]
    if result.benchmark == "mmeb-v2" and any(task.name.startswith(("ViDo", "MMLong", "Vis")) for task in result.tasks):
        said.append(f"Document tasks in the version {result.visdoc}.")
    if other_rows := [task.name for task in result.tasks if not task.comparable]:
        said.append(
            f"{len(other_rows)} of {len(result.tasks)} tasks were cut by --limit or have another number of queries "
            "than published; no published scores stand beside them."
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
    """A figure, or a dash for none.

    Example:
        >>> figure(66.78), figure(None), figure(41.7, 0)
        ('66.8', '-', '42')
    """
    return NONE if value is None else f"{value:.{decimals}f}"


def gain_of(task: TaskResult) -> str:
    """What reasoning gained, with its standard error."""
    return NONE if task.gain is None else f"{task.gain:+.1f} ± {task.gain_error or 0:.1f}"


def trace_of(task: TaskResult) -> str:
    """Whether T-CoTs count, with what swapping them costs."""
    if task.swap is None or task.swap.verdict == "too few queries":
        return NONE
    return f"{'used' if task.swap.verdict == 'used' else 'not used'} ({-task.swap.drop:+.1f})"
