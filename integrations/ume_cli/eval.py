"""`ume eval mmeb-v2` and `ume eval uvrb`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, cast

import typer
from rich.table import Table

from ume_cli.option_groups import ModelOptions, grouped
from ume_cli.options import JsonOption
from ume_cli.output import Output, command, plain
from ume_retrieval.errors import InputError, MissingExtra

if TYPE_CHECKING:
    from ume_eval import Benchmark, Options, Published, RunResult, TextTable, VisDoc
    from ume_eval.run import Reasoning

FolderArgument = Annotated[
    Path, typer.Argument(help="The benchmark's files, see docs/evaluation.md.", show_default=False)
]
OutOption = Annotated[Path, typer.Option("--out", help="The run's folder; the same folder resumes a run.")]
VisDocOption = Annotated[str, typer.Option("--visdoc", help="Labels of the document tasks: page-fixed or original.")]


@dataclass(frozen=True, slots=True)
class RunOptions:
    """Options of every benchmark."""

    tasks: Annotated[str, typer.Option("--tasks", help="Tasks, groups or patterns, separated by commas.")] = ""
    reasoning: Annotated[str, typer.Option("--reasoning", help="both, always or never.")] = "both"
    limit: Annotated[int | None, typer.Option("--limit", min=1, help="Most queries per task, for a smoke run.")] = None
    shard: Annotated[
        str | None, typer.Option("--shard", help="i/n: only embed this part. Then run without it to score.")
    ] = None
    merge: Annotated[
        list[Path] | None,
        typer.Option("--merge", help="Folder of another machine's run to take vectors from; repeatable."),
    ] = None
    beside: Annotated[
        str | None, typer.Option("--beside", help="Published models to compare with, separated by commas, or `none`.")
    ] = None
    swap: Annotated[
        bool, typer.Option("--swap/--no-swap", help="Check that swapping T-CoTs between queries costs accuracy.")
    ] = True

    def parsed(self) -> Options:
        """Return the options of a run.

        Raises:
            InputError: If one cannot be parsed.
        """
        from ume_eval import Options, Shard

        part = None if self.shard is None else Shard.parse(self.shard)
        return Options(reasoning=cast("Reasoning", self.reasoning), limit=self.limit, swap=self.swap, shard=part)


@grouped
def mmeb_v2(
    folder: FolderArgument,
    *,
    out: OutOption = Path("runs/mmeb-v2"),
    visdoc: VisDocOption = "page-fixed",
    options: RunOptions,
    models: ModelOptions,
    as_json: JsonOption = False,
) -> None:
    """MMEB-V2: 78 tasks over images, videos and documents, direct, reasoned and fused, next to published scores."""
    with command(as_json=as_json) as output:
        Run(output, "mmeb-v2", folder, out, options.tasks, cast("VisDoc", visdoc)).go(models, options)


@grouped
def uvrb(
    folder: FolderArgument,
    *,
    out: OutOption = Path("runs/uvrb"),
    options: RunOptions,
    models: ModelOptions,
    as_json: JsonOption = False,
) -> None:
    """UVRB: 16 sets of universal video retrieval, direct, reasoned and fused, next to published scores."""
    with command(as_json=as_json) as output:
        Run(output, "uvrb", folder, out, options.tasks, "page-fixed").go(models, options)


@dataclass(frozen=True, slots=True)
class Run:
    """One call of a command.

    Attributes:
        output: Prints the results.
        benchmark: Name of the benchmark.
        folder: The benchmark's files.
        out: The run's folder.
        wanted: Tasks, as given.
        visdoc: Version of the document tasks.
    """

    output: Output
    benchmark: Benchmark
    folder: Path
    out: Path
    wanted: str
    visdoc: VisDoc

    def merge(self, runs: Sequence[Path]) -> None:
        """Copy vectors from other runs."""
        from ume_eval import VectorStore
        from ume_eval.run import VECTORS_FILE

        for run in runs:
            new = VectorStore(self.out / VECTORS_FILE).merge(run / VECTORS_FILE)
            self.output.note(f"{new} vectors from {run}")

    def go(self, models: ModelOptions, given: RunOptions) -> None:
        """Run the benchmark, write the report, and print the tables.

        Raises:
            InputError: If the folder, the tasks or the published models are invalid; raised before models are loaded.
        """
        from ume_eval import ProgressCallbacks, choose, comparable_scores, evaluate
        from ume_eval.run import TRACES_FILE

        options = given.parsed()
        self.merge(given.merge or [])
        tasks = choose(self.benchmark, names(self.wanted), self.visdoc)
        if not self.folder.is_dir():
            raise InputError(f"{self.folder} is not a folder", hint="docs/evaluation.md says what to download")
        named = None if given.beside is None else names(given.beside)
        others = () if named == ["none"] else comparable_scores(tasks, self.visdoc, named)
        if options.reasoning == "never":
            models = replace(models, reasoner="none", prompts=None)
        embedder = models.load(cache=self.out / TRACES_FILE)
        with self.output.progress() as progress:
            overall = progress.add_task("tasks", total=len(tasks))
            bar = progress.add_task("vectors", total=0)

            def begin(name: str, position: int, _count: int) -> None:
                progress.update(overall, completed=position)
                progress.reset(bar, total=0, description=name[:24])

            watch = ProgressCallbacks(
                begin, lambda count: progress.update(bar, total=count), lambda count: progress.advance(bar, count)
            )
            result = evaluate(embedder, tasks, self.folder, self.out, options=options, visdoc=self.visdoc, watch=watch)
            progress.update(overall, completed=len(tasks))
        if options.shard is not None:
            shard = {"number": options.shard.number, "of": options.shard.of}
            said = "embedded; run the same command without --shard to judge"
            self.output.result({"shard": shard, "out": str(self.out)}, said)
            return
        self.show(result, others)

    def show(self, result: RunResult, others: Sequence[Published]) -> None:
        """Print tables; write the report and plots to the run's folder."""
        from ume_eval import group_table, notes, task_table, write_report

        pictures = self.plots(result, others)
        _, page = write_report(result, self.out, others, pictures)
        data = result.to_dict() | {
            "beside": {
                other.model: {"source": other.source, "visdoc": other.visdoc, "tasks": dict(other.tasks)}
                for other in others
            },
            "report": str(page),
        }
        tables = (rich_table(table) for table in (group_table(result, others), task_table(result, others)))
        said = "\n".join(f"[dim]{plain(note)}[/dim]" for note in (*notes(result, others), f"Report: {page}"))
        self.output.result(data, *tables, said)
        self.output.failures(tuple(failure for task in result.tasks for failure in task.failures))

    def plots(self, result: RunResult, others: Sequence[Published]) -> tuple[Path, ...]:
        """Draw plots if matplotlib is installed."""
        from ume_eval import draw_plots

        try:
            return draw_plots(result, self.out, others)
        except MissingExtra as missing:
            self.output.note(f"no plots: {missing.message} ({missing.hint})")
            return ()


def names(text: str) -> list[str]:
    """Split names at commas.

    Example:
        >>> names("CIRR, video QA,")
        ['CIRR', 'video QA']
    """
    return [name.strip() for name in text.split(",") if name.strip()]


def rich_table(table: TextTable) -> Table:
    """Convert a table for the terminal."""
    made = Table(title=plain(table.title), title_justify="left", title_style="bold", box=None, pad_edge=False)
    for place, head in enumerate(table.columns):
        made.add_column(plain(head), justify="right" if place else "left", overflow="fold")
    for place, row in enumerate(table.rows):
        made.add_row(*map(plain, row), style="bold" if place in table.strong else "")
    return made
