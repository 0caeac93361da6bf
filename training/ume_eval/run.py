"""Runs tasks: read, embed what has no vector yet, judge. Killed at any point and started again, it goes on."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final, Literal, TypeAlias, get_args

import numpy as np

from ume_eval.encoding import Bench, Sided, Vectors
from ume_eval.layouts import read_task
from ume_eval.results import Cost, ModeScore, RunResult, TaskResult, write_result
from ume_eval.samples import EvalTask
from ume_eval.scoring import Judged, Mode, fuse, judge_all, paired, similarities
from ume_eval.store import Encoding, Shard, VectorStore
from ume_eval.swapping import Swap, swap_traces
from ume_eval.tasks import Benchmark, Task, VisDoc
from ume_retrieval.errors import Failure, InputError
from ume_retrieval.pipeline.embedder import ReasoningEmbedder
from ume_retrieval.report.sanitize import one_line

Reasoning: TypeAlias = Literal["both", "always", "never"]
"""Direct, reasoned and fused; reasoned alone; direct alone."""

VECTORS_FILE: Final = "vectors.sqlite3"
TRACES_FILE: Final = "traces.sqlite3"

_ENCODINGS: Final[dict[Reasoning, tuple[Encoding, ...]]] = {
    "both": ("direct", "reasoned"),
    "always": ("reasoned",),
    "never": ("direct",),
}


@dataclass(frozen=True, slots=True)
class Options:
    """How to run.

    Attributes:
        reasoning: Which modes.
        limit: Most queries a task, for a smoke run; None for all.
        swap: Whether to check that T-CoTs count, when both their vectors and direct ones are there.
        shard: Embed this part only, and judge nothing; None embeds all that is missing and judges.
    """

    reasoning: Reasoning = "both"
    limit: int | None = None
    swap: bool = True
    shard: Shard | None = None

    def __post_init__(self) -> None:
        if self.reasoning not in get_args(Reasoning):
            raise InputError(f"unknown reasoning {self.reasoning!r}", hint="use both, always or never")


@dataclass(frozen=True, slots=True)
class Watch:
    """Who is told how far a run is.

    Attributes:
        task: Called with a task's name, its position from 0 and how many there are, before it is read.
        vectors: Called with how many vectors a task is missing, before they are made.
        advance: Called with how many more are done.
    """

    task: Callable[[str, int, int], None] = lambda _name, _position, _count: None
    vectors: Callable[[int], None] = lambda _count: None
    advance: Callable[[int], None] = lambda _count: None


def evaluate(
    embedder: ReasoningEmbedder,
    tasks: Sequence[Task],
    folder: str | Path,
    out: str | Path,
    *,
    options: Options | None = None,
    visdoc: VisDoc = "page-fixed",
    watch: Watch | None = None,
) -> RunResult:
    """Run tasks of one benchmark and write `results.json` after each.

    Vectors go to `vectors.sqlite3` in `out` under their content, T-CoTs to the embedder's own cache; make that
    `out/traces.sqlite3` to have a run in one folder. Another call with the same folder embeds nothing again.

    Args:
        embedder: What is measured.
        tasks: From `tasks.choose`, all of one benchmark.
        folder: The benchmark's folder on disk.
        out: The run's folder, made when it is not there.
        options: How to run.
        visdoc: Version that `tasks` were chosen in.
        watch: Who is told of progress.

    Raises:
        InputError: When there are no tasks, none of them can be read, or reasoning is asked for without a Reasoner.
        CacheError: When the run's folder cannot be used.
    """
    chosen, told = options or Options(), watch or Watch()
    if not tasks:
        raise InputError("there are no tasks to run", hint="choose some with ume_eval.choose")
    if chosen.reasoning != "never" and embedder.reasoner is None:
        raise InputError("reasoning needs a Reasoner, and this embedder has none", hint="use reasoning 'never'")
    bench = Bench(embedder, VectorStore(Path(out) / VECTORS_FILE))
    done: list[TaskResult] = []
    absent: dict[str, str] = {}
    result = _result(embedder, tasks[0].benchmark, visdoc, done, absent)
    last: InputError | None = None
    for position, task in enumerate(tasks):
        told.task(task.name, position, len(tasks))
        try:
            read = read_task(task, folder, limit=chosen.limit)
        except InputError as error:
            absent[task.name], last = error.message, error
            continue
        if (finished := evaluate_task(bench, read, chosen, told)) is not None:
            done.append(finished)
        result = _result(embedder, task.benchmark, visdoc, done, absent)
        if chosen.shard is None:
            write_result(result, Path(out) / "results.json")
    if last is not None and len(absent) == len(tasks):
        raise last
    return result


def evaluate_task(bench: Bench, read: EvalTask, options: Options, watch: Watch) -> TaskResult | None:
    """Embed what one task is missing and judge it; None when only a shard was embedded."""
    task = read.task
    queries = Sided.of("query", task.target, [(f"{task.name} query {one.key}", one.sample) for one in read.queries])
    corpus = Sided.of(
        "corpus", None, [(one_line(f"{task.name} candidate {one.key}"), one.sample) for one in read.candidates]
    )
    encodings = _ENCODINGS[options.reasoning]
    work = [(side, code, bench.missing(side, code, options.shard)) for code in encodings for side in (queries, corpus)]
    watch.vectors(sum(len(wanted) for _, _, wanted in work))
    failures = [*queries.failures, *corpus.failures]
    for side, code, wanted in work:
        # What is the same on both sides was missing on both, and is there by now on one.
        fresh = bench.missing(side, code, options.shard) if wanted else wanted
        watch.advance(len(wanted) - len(fresh))
        failures += bench.embed(side, code, fresh, watch.advance)
    if options.shard is not None:
        return None
    return _judge(bench, read, (queries, corpus), options, failures)


def _judge(
    bench: Bench, read: EvalTask, sides: tuple[Sided, Sided], options: Options, failures: Sequence[Failure]
) -> TaskResult:
    encodings = _ENCODINGS[options.reasoning]
    asked, offered = ({code: bench.gather(side, code) for code in encodings} for side in sides)
    rows = {code: similarities(read, asked[code].rows, offered[code].rows) for code in encodings}
    judged: dict[Mode, Judged] = {code: judge_all(read, rows[code]) for code in encodings}
    if options.reasoning == "both":
        judged["fused"] = judge_all(read, fuse(rows["direct"], rows["reasoned"]))
    task = read.task
    result = TaskResult(
        name=task.name,
        groups=task.groups,
        metric=task.metric,
        queries=len(read.queries) + read.lost,
        candidates=len(read.candidates),
        modes={mode: _mode(one, task.metric) for mode, one in judged.items()},
        problems=read.problems,
        failures=_once(failures),
        comparable=not read.limited and task.queries in {None, len(read.queries) + read.lost},
    )
    if "reasoned" not in judged:
        return result
    swap: Swap | None = None
    if options.swap:
        swap = swap_traces(bench, read, sides[0], asked["reasoned"], offered["reasoned"])
    result = replace(result, query_cost=_cost(asked["reasoned"]), corpus_cost=_cost(offered["reasoned"]), swap=swap)
    if "direct" not in judged:
        return result
    gain, error = paired(judged["reasoned"].main, judged["direct"].main)
    # Lost queries are misses in both modes.
    share = len(read.queries) / max(1, result.queries)
    return replace(result, gain=gain * share, gain_error=error * share)


def _mode(judged: Judged, metric: str) -> ModeScore:
    gap = None if np.isnan(judged.gap) else judged.gap
    return ModeScore(judged.metrics[metric], judged.metrics, gap, judged.ties)


def _cost(vectors: Vectors) -> Cost:
    thought = np.array([bool(trace) for trace in vectors.traces], dtype=bool)
    if not thought.any():
        return Cost(0.0, 0.0, 0.0, 0)
    tokens, evidence, keywords = (
        float(one[thought].mean()) for one in (vectors.tokens, vectors.evidence, vectors.keywords)
    )
    return Cost(tokens, evidence, keywords, int(vectors.tokens.sum()))


def _once(failures: Sequence[Failure]) -> tuple[Failure, ...]:
    """A sample that fails in both encodings for one reason is named once."""
    return tuple({(failure.source, failure.message): failure for failure in failures}.values())


def _result(
    embedder: ReasoningEmbedder,
    benchmark: Benchmark,
    visdoc: VisDoc,
    tasks: Sequence[TaskResult],
    absent: dict[str, str],
) -> RunResult:
    info = embedder.info
    reasoner = f"{info.reasoner.name}@{info.reasoner.revision}" if info.reasoner else None
    name = f"{info.embedder.name}@{info.embedder.revision}"
    return RunResult(benchmark, visdoc, name, reasoner, tuple(tasks), dict(absent))
