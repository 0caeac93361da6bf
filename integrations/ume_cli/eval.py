"""`ume eval mmeb-v2` and `ume eval uvrb`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, cast

import typer
from rich.table import Table

from ume_cli.options import (
    DEFAULT_MODEL,
    DeviceOption,
    EngineOption,
    JsonOption,
    ModelOption,
    PromptsOption,
    ReasonerOption,
    load_embedder,
)
from ume_cli.output import Output, command, plain
from ume_retrieval.errors import InputError, MissingExtra

if TYPE_CHECKING:
    from ume_eval import Benchmark, Options, Published, RunResult, TextTable, VisDoc
    from ume_eval.run import Reasoning
    from ume_retrieval.pipeline.embedder import ReasoningEmbedder

FolderArgument = Annotated[
    Path, typer.Argument(help="The benchmark's files, see docs/evaluation.md.", show_default=False)
]
OutOption = Annotated[Path, typer.Option("--out", help="The run's folder; the same one goes on where a run stopped.")]
TasksOption = Annotated[
    str, typer.Option("--tasks", help="Tasks, groups or patterns, with commas between; all by default.")
]
LimitOption = Annotated[int | None, typer.Option("--limit", min=1, help="Most queries a task, for a smoke run.")]
ReasoningOption = Annotated[str, typer.Option("--reasoning", help="both, always or never.")]
ShardOption = Annotated[
    str | None, typer.Option("--shard", help="i/n: embed this part only. Run without it afterwards to judge.")
]
MergeOption = Annotated[
    list[Path] | None, typer.Option("--merge", help="Folder of another machine's run to take vectors from; repeatable.")
]
BesideOption = Annotated[
    str | None, typer.Option("--beside", help="Published models to print beside, with commas between, or `none`.")
]
SwapOption = Annotated[
    bool, typer.Option("--swap/--no-swap", help="Check that swapping T-CoTs between queries costs accuracy.")
]
VisDocOption = Annotated[str, typer.Option("--visdoc", help="Labels of the document tasks: page-fixed or original.")]


def mmeb_v2(
    folder: FolderArgument,
    *,
    out: OutOption = Path("runs/mmeb-v2"),
    tasks: TasksOption = "",
    model: ModelOption = DEFAULT_MODEL,
    reasoner: ReasonerOption = "auto",
    prompts: PromptsOption = None,
    reasoning: ReasoningOption = "both",
    limit: LimitOption = None,
    shard: ShardOption = None,
    merge: MergeOption = None,
    visdoc: VisDocOption = "page-fixed",
    beside: BesideOption = None,
    swap: SwapOption = True,
    device: DeviceOption = "auto",
    engine: EngineOption = "auto",
    as_json: JsonOption = False,
) -> None:
    """MMEB-V2: 78 tasks over images, videos and documents, direct, reasoned and fused, beside published scores."""
    with command(as_json=as_json) as output:
        options = read_options(reasoning, limit, shard, swap=swap)
        run = Run(output, "mmeb-v2", folder, out, tasks, cast("VisDoc", visdoc))
        run.merge(merge or [])
        run.go(Models(model, reasoner, device, engine, prompts), options, beside)


def uvrb(
    folder: FolderArgument,
    *,
    out: OutOption = Path("runs/uvrb"),
    tasks: TasksOption = "",
    model: ModelOption = DEFAULT_MODEL,
    reasoner: ReasonerOption = "auto",
    prompts: PromptsOption = None,
    reasoning: ReasoningOption = "both",
    limit: LimitOption = None,
    shard: ShardOption = None,
    merge: MergeOption = None,
    beside: BesideOption = None,
    swap: SwapOption = True,
    device: DeviceOption = "auto",
    engine: EngineOption = "auto",
    as_json: JsonOption = False,
) -> None:
    """UVRB: 16 sets of universal video retrieval, direct, reasoned and fused, beside published scores."""
    with command(as_json=as_json) as output:
        options = read_options(reasoning, limit, shard, swap=swap)
        run = Run(output, "uvrb", folder, out, tasks, "page-fixed")
        run.merge(merge or [])
        run.go(Models(model, reasoner, device, engine, prompts), options, beside)


@dataclass(frozen=True, slots=True)
class Models:
    """Names of what is measured, as `load_embedder` takes them."""

    model: str
    reasoner: str
    device: str
    engine: str
    prompts: Path | None

    def load(self, reasoning: Reasoning, cache: Path) -> ReasoningEmbedder:
        """The models; no Reasoner where none is asked."""
        if reasoning == "never":
            return load_embedder(self.model, "none", self.device, self.engine, cache=cache)
        return load_embedder(self.model, self.reasoner, self.device, self.engine, self.prompts, cache=cache)


@dataclass(frozen=True, slots=True)
class Run:
    """One call of a command.

    Attributes:
        output: Where its words go.
        benchmark: Which one.
        folder: The benchmark's files.
        out: The run's folder.
        wanted: Tasks as the user wrote them.
        visdoc: Version of the document tasks.
    """

    output: Output
    benchmark: Benchmark
    folder: Path
    out: Path
    wanted: str
    visdoc: VisDoc

    def merge(self, runs: Sequence[Path]) -> None:
        """Take vectors from other runs."""
        from ume_eval import VectorStore
        from ume_eval.run import VECTORS_FILE

        for run in runs:
            new = VectorStore(self.out / VECTORS_FILE).merge(run / VECTORS_FILE)
            self.output.note(f"{new} vectors from {run}")

    def go(self, models: Models, options: Options, wanted_beside: str | None) -> None:
        """Run, write the report, and print the tables.

        Raises:
            InputError: When folder, tasks or models beside cannot be used, before a model is loaded where possible.
        """
        from ume_eval import ProgressCallbacks, choose, comparable_scores, evaluate
        from ume_eval.run import TRACES_FILE

        tasks = choose(self.benchmark, names(self.wanted), self.visdoc)
        if not self.folder.is_dir():
            raise InputError(f"{self.folder} is no folder", hint="docs/evaluation.md says what to download")
        named = None if wanted_beside is None else names(wanted_beside)
        others = () if named == ["none"] else comparable_scores(tasks, self.visdoc, named)
        embedder = models.load(options.reasoning, self.out / TRACES_FILE)
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
        """Tables on the screen, report and plots in the run's folder."""
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
        """Plots, where matplotlib is installed."""
        from ume_eval import draw_plots

        try:
            return draw_plots(result, self.out, others)
        except MissingExtra as missing:
            self.output.note(f"no plots: {missing.message} ({missing.hint})")
            return ()


def read_options(reasoning: str, limit: int | None, shard: str | None, *, swap: bool) -> Options:
    """Options as the user wrote them.

    Raises:
        InputError: When one cannot be understood.
    """
    from ume_eval import Options, Shard

    part = None if shard is None else Shard.parse(shard)
    return Options(reasoning=cast("Reasoning", reasoning), limit=limit, swap=swap, shard=part)


def names(text: str) -> list[str]:
    """Names with commas between.

    Example:
        >>> names("CIRR, video QA,")
        ['CIRR', 'video QA']
    """
    return [name.strip() for name in text.split(",") if name.strip()]


def rich_table(table: TextTable) -> Table:
    """A table for the terminal."""
    made = Table(title=plain(table.title), title_justify="left", title_style="bold", box=None, pad_edge=False)
    for place, head in enumerate(table.columns):
        made.add_column(plain(head), justify="right" if place else "left", overflow="fold")
    for place, row in enumerate(table.rows):
        made.add_row(*map(plain, row), style="bold" if place in table.strong else "")
    return made
