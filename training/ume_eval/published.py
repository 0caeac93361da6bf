"""Published scores with their sources, for comparison with a run on the same version of the data."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from importlib.resources import files
from typing import Final

from ume_eval.results import GroupMean, RunResult, group_means, with_average
from ume_eval.tasks import MOVED, Benchmark, Task, VisDoc, all_tasks
from ume_retrieval.errors import InputError

DEFAULT_MODELS: Final = ("Embed-RL-2B", "Embed-RL-4B")
"""Models to compare with by default: the method that this library implements."""


class MixedVersions(InputError):
    """Scores of two versions of MMEB-V2's document tasks would be compared."""

    code = "mixed_versions"


@dataclass(frozen=True, slots=True)
class Published:
    """One model's published scores, in percent of each task's main metric.

    Attributes:
        model: Name of the model.
        benchmark: The benchmark.
        reasons: Whether it writes reasoning before it embeds.
        source: Publication of the scores.
        visdoc: Version of MMEB-V2's document tasks; None for UVRB.
        tasks: Scores by task, where they are published.
        groups: Means as printed, where scores by task are not published.
    """

    model: str
    benchmark: Benchmark
    reasons: bool
    source: str
    visdoc: VisDoc | None = None
    tasks: Mapping[str, float] = field(default_factory=dict)
    groups: Mapping[str, float] = field(default_factory=dict)

    def means(self, over: Sequence[str] | None = None) -> dict[str, GroupMean]:
        """Average scores by group.

        Args:
            over: Tasks to average over; None for the whole benchmark, where printed means replace those of tasks that
                are not published.
        """
        known = {name: score for name, score in self.tasks.items() if over is None or name in over}
        means = group_means(self.benchmark, known)
        if over is None:
            for name, value in self.groups.items():
                if name not in means or means[name].ran < means[name].of:
                    means[name] = GroupMean(value, 1, 1)
        return with_average(means) if self.benchmark == "uvrb" else means


@cache
def published(benchmark: Benchmark) -> tuple[Published, ...]:
    """Return all published scores of a benchmark that this library has; a model may have several versions.

    Example:
        >>> models = {one.model for one in published("mmeb-v2")}
        >>> {"Embed-RL-2B", "GME-7B", "Qwen3-VL-Embedding-8B"} <= models
        True
    """
    text = files("ume_eval").joinpath("data", "published.json").read_text(encoding="utf-8")
    return tuple(Published(**one) for one in json.loads(text)["scores"] if one["benchmark"] == benchmark)


def comparable_scores(
    tasks: Sequence[Task], visdoc: VisDoc = "page-fixed", models: Sequence[str] | None = None
) -> tuple[Published, ...]:
    """Choose published scores that can be compared with a run.

    Args:
        tasks: Tasks of the run, all of one benchmark.
        visdoc: Version of the run's document tasks.
        models: Names of models; None for those of `DEFAULT_MODELS` that are comparable.

    Raises:
        InputError: When a model is unknown.
        MixedVersions: When a model was evaluated on other labels of a task of the run.
    """
    benchmark = tasks[0].benchmark
    chosen = []
    for name in DEFAULT_MODELS if models is None else models:
        fitting = [one for one in published(benchmark) if one.model.casefold() == name.casefold()]
        if not fitting:
            known = ", ".join(dict.fromkeys(one.model for one in published(benchmark)))
            raise InputError(f"no published scores of {name!r} on {benchmark}", hint=f"known: {known}")
        one = next((one for one in fitting if one.visdoc in {None, visdoc}), fitting[0])
        try:
            check_versions(tasks, visdoc, one)
        except MixedVersions:
            if models is not None:
                raise
        else:
            chosen.append(one)
    return tuple(chosen)


def check_versions(tasks: Sequence[Task], visdoc: VisDoc, other: Published) -> None:
    """Check that published scores were measured on the labels of the run; raises MixedVersions otherwise."""
    moved = [task.name for task in tasks if task.name in MOVED]
    if moved and other.visdoc not in {None, visdoc}:
        raise MixedVersions(
            f"{other.model} was measured on the {other.visdoc} labels of {', '.join(moved)}, this run is on the "
            f"{visdoc} ones",
            hint=f"run with --visdoc {other.visdoc}, or leave the model or these tasks out",
        )


def comparable_means(result: RunResult, other: Published) -> dict[str, float]:
    """Average another model's scores over the tasks of the run that are comparable.

    A group is left out if one of its tasks was limited or has other rows, or if the other model lacks one. Printed
    means are used if the whole benchmark ran.
    """
    ran = [task.name for task in result.tasks if task.comparable]
    ours = group_means(result.benchmark, dict.fromkeys((task.name for task in result.tasks), 0.0))
    means = other.means(ran)
    same = {name: mean.value for name, mean in means.items() if name in ours and mean.ran == ours[name].ran}
    if len(ran) == len(all_tasks(result.benchmark)):
        same = {name: mean.value for name, mean in other.means().items() if mean.ran == mean.of} | same
    return same
