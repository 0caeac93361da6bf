"""What a run found: scores of tasks, means of groups, and everything that was left out."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from ume_eval.samples import Problem
from ume_eval.scoring import Mode
from ume_eval.swapping import Swap
from ume_eval.tasks import (
    MMEB_GROUPS,
    UVRB_AVERAGED,
    UVRB_GROUPS,
    UVRB_PARTS,
    Benchmark,
    VisDoc,
    all_tasks,
)
from ume_retrieval.errors import Failure
from ume_retrieval.util.files import atomic_write


@dataclass(frozen=True, slots=True)
class ModeScore:
    """One mode's scores on one task, in percent.

    Attributes:
        score: The main metric.
        metrics: Further metrics by name.
        gap: Mean difference of a query's two best cosines; None without a query that has two.
        ties: Queries that a tie cost their main metric, see `metrics.Ties`.
    """

    score: float
    metrics: Mapping[str, float]
    gap: float | None
    ties: int


@dataclass(frozen=True, slots=True)
class Cost:
    """What reasoning took and pointed at, as means over the samples of one side that have a T-CoT.

    Attributes:
        tokens: Tokens that the Reasoner wrote.
        evidence: Crops and key frames that the Embedder saw.
        keywords: Keywords named.
        total_tokens: Tokens of all samples together, equal samples counted each time.
    """

    tokens: float
    evidence: float
    keywords: float
    total_tokens: int


@dataclass(frozen=True, slots=True)
class TaskResult:
    """One task's result.

    Attributes:
        name: Of the task.
        groups: Columns that it counts in.
        metric: Its main metric.
        queries: How many were asked, lost ones included.
        candidates: How many there are.
        modes: Scores by mode.
        gain: Reasoned - direct, in percent of the main metric; None unless both ran.
        gain_error: Its standard error over queries.
        query_cost: What reasoning on queries took; None without it.
        corpus_cost: Likewise for candidates.
        swap: The check whether T-CoTs count; None without it.
        problems: Rows and files that could not be used.
        failures: Samples that could not be embedded.
        comparable: Whether it was asked as published: all queries, and as many as the published scores stand on.
    """

    name: str
    groups: tuple[str, ...]
    metric: str
    queries: int
    candidates: int
    modes: Mapping[Mode, ModeScore]
    gain: float | None = None
    gain_error: float | None = None
    query_cost: Cost | None = None
    corpus_cost: Cost | None = None
    swap: Swap | None = None
    problems: tuple[Problem, ...] = ()
    failures: tuple[Failure, ...] = ()
    comparable: bool = True


@dataclass(frozen=True, slots=True)
class GroupMean:
    """Mean of a group's tasks, each counting the same.

    Attributes:
        value: In percent.
        ran: How many of its tasks ran.
        of: How many it has.
    """

    value: float
    ran: int
    of: int


@dataclass(frozen=True, slots=True)
class RunResult:
    """A run over tasks of one benchmark.

    Attributes:
        benchmark: Which one.
        visdoc: Version of its document tasks.
        embedder: Name and revision of the Embedder.
        reasoner: Name and revision of the Reasoner, or None.
        tasks: Results in the order of the benchmark's tables.
        absent: Tasks that were asked for and are not in the folder, or could not be read, with the reason.
    """

    benchmark: Benchmark
    visdoc: VisDoc
    embedder: str
    reasoner: str | None
    tasks: tuple[TaskResult, ...]
    absent: Mapping[str, str] = field(default_factory=dict)

    @property
    def modes(self) -> tuple[Mode, ...]:
        """Modes that every task has."""
        shared = [set(task.modes) for task in self.tasks]
        return tuple(
            mode for mode in ("direct", "reasoned", "fused") if shared and all(mode in some for some in shared)
        )

    def scores(self, mode: Mode) -> dict[str, float]:
        """Main metric by task."""
        return {task.name: task.modes[mode].score for task in self.tasks if mode in task.modes}

    def to_dict(self) -> dict[str, Any]:
        """The JSON form; figures that are not there are null."""
        plain = asdict(self)
        for task, result in zip(plain["tasks"], self.tasks, strict=True):
            if result.swap is not None:
                task["swap"]["verdict"] = result.swap.verdict
        plain["groups"] = {
            mode: {name: asdict(mean) for name, mean in group_means(self.benchmark, self.scores(mode)).items()}
            for mode in self.modes
        }
        return dict(_finite(plain))


def group_means(benchmark: Benchmark, scores: Mapping[str, float]) -> dict[str, GroupMean]:
    """Means by group, then of everything, over the tasks that have a score; groups without one are left out.

    MMEB-V2: a modality and `all` are means over tasks, not over groups. UVRB, as its own paper does it: FG is the mean
    of S, T and PR, TXT that of CG, FG and LC, and `AVG` that of the six abilities, there only when all six are
    complete; `all` is the mean over data sets.

    Args:
        benchmark: Which one.
        scores: Percent by task.

    Example:
        >>> means = group_means("mmeb-v2", {"QVHighlight": 50.0, "Charades-STA": 60.0, "K700": 10.0})
        >>> means["video MRET"], means["video"].value
        (GroupMean(value=55.0, ran=2, of=3), 40.0)
    """
    tasks = all_tasks(benchmark)
    members: dict[str, list[str]] = {}
    if benchmark == "mmeb-v2":
        for modality, groups in MMEB_GROUPS.items():
            for group in groups:
                members[group] = [task.name for task in tasks if group in task.groups]
            members[modality] = [name for group in groups for name in members[group]]
    else:
        for group in UVRB_GROUPS:
            members[group] = [task.name for task in tasks if group in task.groups]
    members["all"] = [task.name for task in tasks]
    means: dict[str, GroupMean] = {}
    for name, names in members.items():
        if ran := [scores[one] for one in names if one in scores]:
            means[name] = GroupMean(sum(ran) / len(ran), len(ran), len(names))
    return with_average(means) if benchmark == "uvrb" else means


def with_average(means: Mapping[str, GroupMean]) -> dict[str, GroupMean]:
    """UVRB's means of means: FG, TXT and, where all six abilities are complete, AVG.

    Example:
        >>> flat = {"S": GroupMean(80.0, 2, 2), "T": GroupMean(40.0, 2, 2), "FG": GroupMean(60.0, 4, 7)}
        >>> with_average(flat | {"T": GroupMean(20.0, 1, 2)})["FG"]
        GroupMean(value=50.0, ran=4, of=7)
    """
    found = dict(means)
    for name, parts in UVRB_PARTS.items():
        if name in found and (values := [found[part].value for part in parts if part in found]):
            found[name] = replace(found[name], value=sum(values) / len(values))
    if all(name in found and found[name].ran == found[name].of for name in UVRB_AVERAGED):
        found["AVG"] = GroupMean(sum(found[name].value for name in UVRB_AVERAGED) / len(UVRB_AVERAGED), 6, 6)
    return found


def write_result(result: RunResult, path: Path) -> None:
    """Write the JSON form; a reader never sees half of it.

    Raises:
        InputError: When it cannot be written.
    """
    atomic_write(path, json.dumps(result.to_dict(), indent=1, ensure_ascii=False) + "\n", what="the results")


def _finite(value: Any) -> Any:
    """JSON has no NaN."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {key: _finite(one) for key, one in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [_finite(one) for one in value]
    return value
