"""`ume demo`: draw a small world, index it, search it with and without reasoning, and write a report."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from ume_cli.indexing import Bars
from ume_cli.options import DEFAULT_MODEL, DeviceOption, JsonOption, load_embedder
from ume_cli.output import Output, command, plain
from ume_retrieval.errors import InputError

if TYPE_CHECKING:
    from ume_qdrant import Hit
    from ume_qdrant.stores.base import Store
    from ume_retrieval.pipeline.embedder import ReasoningEmbedder
    from ume_retrieval.report import ReportPage, ReportQuery
    from ume_retrieval.results import Trace
    from ume_training.shapes.benchmark import TaskSet

SEED = 20_260
QUERIES = 6
CANDIDATES = 100
SHOWN = 2
HITS = 3
"""Queries of each task that the report shows, and hits of each."""

MARKER = ".ume-demo"
"""Only a folder that contains this file is emptied."""


def demo(
    *,
    out: Annotated[Path, typer.Option(help="Folder of the world, the store and the report.")] = Path("ume-demo"),
    seed: Annotated[int, typer.Option(help="Seed of the world; the bundled pair was not trained on it.")] = SEED,
    device: DeviceOption = "auto",
    as_json: JsonOption = False,
) -> None:
    """Index and search a world of shapes with the bundled pair, with and without reasoning, and write a report."""
    with command(as_json=as_json) as output:
        from ume_qdrant import open_store
        from ume_retrieval.report import write_contact_sheet, write_html
        from ume_training.shapes.benchmark import build_benchmark
        from ume_training.shapes.world import CLIP_SECONDS

        started = time.perf_counter()
        _make_empty(out)
        output.note("drawing a world of shapes: images, clips, pages and texts …")
        tasks = build_benchmark((out / "world").resolve(), seed=seed, queries=QUERIES, candidates=CANDIDATES)
        embedder = load_embedder(DEFAULT_MODEL, "auto", device, cache=out / "traces.sqlite3")
        with open_store(out / "store", "demo") as store:
            indexed = _index(embedder, store, tasks, float(CLIP_SECONDS), output)
            answers = [_ask(embedder, store, task) for task in tasks]
        page = _page(tasks, answers, indexed)
        report = write_html(page, out / "report.html")
        sheet = write_contact_sheet(page, out / "contact-sheet.png")
        seconds = time.perf_counter() - started
        direct, reasoned = (_mean(getattr(answer, mode) for answer in answers) for mode in ("direct", "reasoned"))
        data = {
            "indexed": indexed,
            "direct": {"hit@1": round(direct, 4)},
            "reasoned": {"hit@1": round(reasoned, 4)},
            "report": str(report),
            "sheet": str(sheet),
            "seconds": round(seconds, 1),
        }
        output.result(
            data,
            _table(tasks, answers),
            f"{indexed} files in {seconds:.0f} s",
            f"open {plain(str(report))}",
            f"  or {plain(str(sheet))}",
        )


@dataclass(frozen=True, slots=True)
class Answers:
    """Results of one task.

    Attributes:
        direct: Share of queries whose first hit is correct without reasoning, 0..1.
        reasoned: The same with reasoning.
        shown: Queries for the report.
    """

    direct: float
    reasoned: float
    shown: tuple[ReportQuery, ...]


def _make_empty(out: Path) -> None:
    if out.exists() and not out.is_dir():
        raise InputError(f"{out} is not a folder", hint="name a new folder with --out")
    if out.exists() and any(out.iterdir()) and not (out / MARKER).exists():
        raise InputError(f"{out} holds something else", hint="name a new folder with --out")
    for old in ("world", "store"):
        shutil.rmtree(out / old, ignore_errors=True)
    out.mkdir(parents=True, exist_ok=True)
    (out / MARKER).touch()


def _index(
    embedder: ReasoningEmbedder, store: Store, tasks: Sequence[TaskSet], segment_s: float, output: Output
) -> int:
    from ume_qdrant import index

    corpora = [task.candidates[0].path.parent for task in tasks]
    with Bars(output) as bars:
        report = index(
            embedder,
            store,
            corpora,
            reasoning="always",
            segment_s=segment_s,
            overlap_s=0.0,
            strict=True,
            on_progress=bars.step,
        )
    return report.indexed


def _ask(embedder: ReasoningEmbedder, store: Store, task: TaskSet) -> Answers:
    """Search a task's own corpus with its queries, direct and reasoned."""
    from ume_qdrant import Filter, QueryVectors, search_vectors
    from ume_qdrant.searching.pictures import report_query

    items = [query.item for query in task.queries]
    plain = embedder.encode_query(items, reasoning="never")
    thought = embedder.encode_query(items, target=task.queries[0].target, return_traces=True)
    where = Filter(under=(str(task.candidates[0].path.parent),))
    places = {candidate.place: position for position, candidate in enumerate(task.candidates)}
    right: dict[str, list[bool]] = {"direct": [], "reasoned": []}
    shown: list[ReportQuery] = []
    for row, query in enumerate(task.queries):
        ranked: dict[str, list[bool]] = {}
        hits: dict[str, tuple[Hit, ...]] = {}
        for mode, vectors in (
            ("direct", QueryVectors(direct=plain[row])),
            ("reasoned", QueryVectors(reasoned=thought.vectors[row])),
        ):
            hits[mode] = search_vectors(store, vectors, limit=20, where=where)
            ranked[mode] = [places[hit.source, hit.start_s, hit.page] in query.relevant for hit in hits[mode]]
            right[mode].append(ranked[mode][0])
        if row < SHOWN:
            trace: Trace | None = thought.traces[row]
            shown.append(
                report_query(
                    query.item,
                    hits["reasoned"][:HITS],
                    trace,
                    budget=(embedder.reasoner or embedder.embedder).spec.budget,
                    relevant=ranked["reasoned"][:HITS],
                    task=task.name.replace("_", " "),
                    note=_note(ranked["direct"]),
                )
            )
    return Answers(_mean(right["direct"]), _mean(right["reasoned"]), tuple(shown))


def _note(direct: list[bool]) -> str:
    if direct[0]:
        return "Found first without reasoning too."
    rank = direct.index(True) + 1 if True in direct else None
    return f"Without reasoning: in place {rank}." if rank else "Without reasoning: not among 20."


def _mean(values: Iterable[float]) -> float:
    numbers = list(values)
    return sum(numbers) / len(numbers)


def _table(tasks: Sequence[TaskSet], answers: Sequence[Answers]) -> Table:
    table = Table(box=None, pad_edge=False)
    table.add_column("hit@1")
    for name in ("queries", "candidates", "direct", "reasoned"):
        table.add_column(name, justify="right")
    for row in _rows(tasks, answers):
        table.add_row(*row)
    return table


def _rows(tasks: Sequence[TaskSet], answers: Sequence[Answers]) -> list[tuple[str, ...]]:
    rows = [
        (
            task.name.replace("_", " "),
            str(len(task.queries)),
            str(len(task.candidates)),
            f"{answer.direct:.2f}",
            f"{answer.reasoned:.2f}",
        )
        for task, answer in zip(tasks, answers, strict=True)
    ]
    direct, reasoned = (_mean(getattr(answer, mode) for answer in answers) for mode in ("direct", "reasoned"))
    asked = sum(len(task.queries) for task in tasks)
    return [*rows, ("all tasks", str(asked), "", f"{direct:.3f}", f"{reasoned:.3f}")]


def _page(tasks: Sequence[TaskSet], answers: Sequence[Answers], indexed: int) -> ReportPage:
    from ume_retrieval.report import ReportPage, ReportTable

    rows = _rows(tasks, answers)
    return ReportPage(
        title="A world of shapes, searched with reasons",
        queries=tuple(query for answer in answers for query in answer.shown),
        facts=(("files indexed", str(indexed)), ("direct hit@1", rows[-1][3]), ("reasoned hit@1", rows[-1][4])),
        table=ReportTable(
            ("task", "queries", "candidates", "direct", "reasoned"),
            tuple(rows),
            caption="Share of queries whose first hit is right.",
        ),
        notes=(
            "Made with ume-tiny, the demonstration pair that ships with the library.",
            "It knows this world of shapes and nothing else; for photographs, name a real model.",
        ),
    )
