"""Run tasks: read them, embed what is missing, judge. A killed run resumes where it stopped."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final, Literal, TypeAlias, get_args

import numpy as np

from ume_eval.encoding import Encoding, SampleSet, Shard, StoredEncoder, Vectors, VectorStore
from ume_eval.layouts import read_task
from ume_eval.metrics import Judged, Mode, judge_all, paired, similarities
from ume_eval.results import Cost, ModeScore, RunResult, TaskResult, write_result
from ume_eval.samples import EvalTask
from ume_eval.swapping import Swap, swap_traces
from ume_eval.tasks import Task, VisDoc
from ume_retrieval.errors import Failure, InputError
from ume_retrieval.pipeline.embedder import ReasoningEmbedder
from ume_retrieval.report.sanitize import one_line
from ume_retrieval.vectors import fuse

Reasoning: TypeAlias = Literal["both", "always", "never"]
"""Which modes to run: "both" runs direct, reasoned and fused; "always" reasoned only; "never" direct only."""

VECTORS_FILE: Final = "vectors.sqlite3"
TRACES_FILE: Final = "traces.sqlite3"

_ENCODINGS: Final[dict[Reasoning, tuple[Encoding, ...]]] = {
    "both": ("direct", "reasoned"),
    "always": ("reasoned",),
    "never": ("direct",),
}


@dataclass(frozen=True, slots=True)
class Options:
    """Settings of a run.

    Attributes:
        reasoning: Which modes to run.
        limit: Most queries per task, for a smoke run; None for all.
        swap: Whether to test that T-CoTs are used; needs reasoned vectors.
        shard: Embed only this part and judge nothing; None embeds all that is missing and judges.
    """

    reasoning: Reasoning = "both"
    limit: int | None = None
    swap: bool = True
    shard: Shard | None = None

    def __post_init__(self) -> None:
        if self.reasoning not in get_args(Reasoning):
            raise InputError(f"unknown reasoning {self.reasoning!r}", hint="use both, always or never")


@dataclass(frozen=True, slots=True)
class ProgressCallbacks:
    """Callbacks for the progress of a run.

    Attributes:
        task: Called before a task is read, with its name, its position from 0 and the number of tasks.
        vectors: Called with the number of vectors that a task lacks, before they are computed.
        advance: Called with the number of further vectors that are done.
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
    watch: ProgressCallbacks | None = None,
) -> RunResult:
    """Run tasks of one benchmark and write `results.json` after each.

    Vectors are kept in `vectors.sqlite3` in `out`, keyed by their content, T-CoTs in the embedder's own cache; use
    `out/traces.sqlite3` for it to have a run in one folder. A second call with the same folder embeds nothing again.

    Args:
        embedder: The embedder to evaluate.
        tasks: From `tasks.choose`, all of one benchmark.
        folder: The benchmark's folder on disk.
        out: The run's folder, created if missing.
        options: Settings of the run.
        visdoc: Version of the document tasks for which `tasks` were chosen.
        watch: Callbacks for progress.

    Raises:
        InputError: When `tasks` is empty, no task can be read, or reasoning is requested without a Reasoner.
        CacheError: When the run's folder cannot be used.
    """
    chosen, callbacks = options or Options(), watch or ProgressCallbacks()
    if not tasks:
        raise InputError("no tasks to run", hint="choose some with ume_eval.choose")
    if chosen.reasoning != "never" and embedder.reasoner is None:
        raise InputError("reasoning needs an embedder with a Reasoner", hint="use reasoning 'never'")
    encoder = StoredEncoder(embedder, VectorStore(Path(out) / VECTORS_FILE))
    info = embedder.info
    reasoner = f"{info.reasoner.name}@{info.reasoner.revision}" if info.reasoner else None
    result = RunResult(tasks[0].benchmark, visdoc, f"{info.embedder.name}@{info.embedder.revision}", reasoner, ())
    last: InputError | None = None
    for position, task in enumerate(tasks):
        callbacks.task(task.name, position, len(tasks))
        try:
            read = read_task(task, folder, limit=chosen.limit)
        except InputError as error:
            result, last = replace(result, absent={**result.absent, task.name: error.message}), error
            continue
        if (finished := evaluate_task(encoder, read, chosen, callbacks)) is not None:
            result = replace(result, tasks=(*result.tasks, finished))
        if chosen.shard is None:
            write_result(result, Path(out) / "results.json")
    if last is not None and len(result.absent) == len(tasks):
        raise last
    return result


def evaluate_task(
    encoder: StoredEncoder, read: EvalTask, options: Options, watch: ProgressCallbacks
) -> TaskResult | None:
    """Embed what one task lacks and judge it; return None if only a shard was embedded."""
    task = read.task
    queries = SampleSet.of("query", task.target, [(f"{task.name} query {one.key}", one.sample) for one in read.queries])
    candidates = [(one_line(f"{task.name} candidate {one.key}"), one.sample) for one in read.candidates]
    corpus = SampleSet.of("corpus", None, candidates)
    encodings = _ENCODINGS[options.reasoning]
    work = [
        (side, code, encoder.missing(side, code, options.shard)) for code in encodings for side in (queries, corpus)
    ]
    watch.vectors(sum(len(wanted) for _, _, wanted in work))
    failures = [*queries.failures, *corpus.failures]
    for side, code, wanted in work:
        # A sample on both sides was missing twice; the first side has stored it by now.
        fresh = encoder.missing(side, code, options.shard) if wanted else wanted
        watch.advance(len(wanted) - len(fresh))
        failures += encoder.embed(side, code, fresh, watch.advance)
    if options.shard is not None:
        return None
    return _judge(encoder, read, (queries, corpus), options, failures)


def _judge(
    encoder: StoredEncoder,
    read: EvalTask,
    sides: tuple[SampleSet, SampleSet],
    options: Options,
    failures: Sequence[Failure],
) -> TaskResult:
    encodings = _ENCODINGS[options.reasoning]
    asked, offered = ({code: encoder.gather(side, code) for code in encodings} for side in sides)
    rows = {code: similarities(read, asked[code].rows, offered[code].rows) for code in encodings}
    judged: dict[Mode, Judged] = {code: judge_all(read, rows[code]) for code in encodings}
    if options.reasoning == "both":
        judged["fused"] = judge_all(read, list(map(fuse, rows["direct"], rows["reasoned"])))
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
        swap = swap_traces(encoder, read, sides[0], asked["reasoned"], offered["reasoned"])
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
    reasoned = np.array([bool(trace) for trace in vectors.traces], dtype=bool)
    if not reasoned.any():
        return Cost(0.0, 0.0, 0.0, 0)
    counts = (vectors.tokens, vectors.evidence, vectors.keywords)
    tokens, evidence, keywords = (float(one[reasoned].mean()) for one in counts)
    return Cost(tokens, evidence, keywords, int(vectors.tokens.sum()))


def _once(failures: Sequence[Failure]) -> tuple[Failure, ...]:
    """Name a sample once that fails in both encodings for the same reason."""
    return tuple({(failure.source, failure.message): failure for failure in failures}.values())
