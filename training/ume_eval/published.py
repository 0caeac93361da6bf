"""Published scores with their sources, to stand beside a run; scores of two versions of the data never do."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Final

from ume_eval.results import GroupMean, RunResult, group_means, with_average
from ume_eval.tasks import MOVED, Benchmark, Task, VisDoc, all_tasks
from ume_retrieval.errors import InputError

DEFAULT_BESIDE: Final = ("Embed-RL-2B", "Embed-RL-4B")
"""What a run stands beside unless other models are asked for: the method that this library implements."""


class MixedVersions(InputError):
    """Scores of two versions of MMEB-V2's document tasks would stand side by side."""

    code = "mixed_versions"


@dataclass(frozen=True, slots=True)
class Published:
    """One model's published scores, in percent of each task's main metric.

    Attributes:
        model: Its name.
        benchmark: On which benchmark.
        visdoc: Version of MMEB-V2's document tasks; None for UVRB.
        reasons: Whether it writes reasoning before it embeds.
        source: Where the scores are from.
        tasks: By task, where they are published.
        groups: Means as printed, where tasks are not published.
    """

    model: str
    benchmark: Benchmark
    visdoc: VisDoc | None
    reasons: bool
    source: str
    tasks: Mapping[str, float]
    groups: Mapping[str, float]

    def means(self, over: Sequence[str] | None = None) -> dict[str, GroupMean]:
        """Means by group.

        Args:
            over: Tasks to average over, so that a part of the benchmark meets the same part; None for all. Printed
                means stand in where tasks are not published, and only for the whole benchmark.
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
    """Every score that this library knows of, models in several versions included.

    Example:
        >>> models = {one.model for one in published("mmeb-v2")}
        >>> {"Embed-RL-2B", "GME-7B", "Qwen3-VL-Embedding-8B"} <= models
        True
    """
    text = files("ume_eval").joinpath("data", "published.json").read_text(encoding="utf-8")
    return tuple(
        Published(
            model=one["model"],
            benchmark=one["benchmark"],
            visdoc=one.get("visdoc"),
            reasons=one["reasons"],
            source=one["source"],
            tasks=one.get("tasks", {}),
            groups=one.get("groups", {}),
        )
        for one in json.loads(text)["scores"]
        if one["benchmark"] == benchmark
    )


def beside(
    tasks: Sequence[Task], visdoc: VisDoc = "page-fixed", models: Sequence[str] | None = None
) -> tuple[Published, ...]:
    """Published scores that may stand beside a run.

    Args:
        tasks: What runs, all of one benchmark.
        visdoc: Version of the document tasks that it runs in.
        models: Which models; for None those of `DEFAULT_BESIDE` that may.

    Raises:
        InputError: When there is no such model.
        MixedVersions: When a model was measured on other labels of a task that runs.
    """
    benchmark = tasks[0].benchmark
    chosen = []
    for name in DEFAULT_BESIDE if models is None else models:
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
    """Refuse scores that were measured on other labels.

    Raises:
        MixedVersions: When a task whose labels differ runs in another version than the scores were measured on.
    """
    moved = [task.name for task in tasks if task.name in MOVED]
    if moved and other.visdoc not in {None, visdoc}:
        raise MixedVersions(
            f"{other.model} was measured on the {other.visdoc} labels of {', '.join(moved)}, this run is on the "
            f"{visdoc} ones",
            hint=f"run with --visdoc {other.visdoc}, or leave the model or these tasks out",
        )


def means_beside(result: RunResult, other: Published) -> dict[str, float]:
    """Another model's means that may stand beside a run's: those over the very tasks that ran here as published.

    A group has none when one of its tasks here was cut or has other rows, or the other model lacks one. Printed means
    stand in when the whole benchmark ran.
    """
    ran = [task.name for task in result.tasks if task.comparable]
    ours = group_means(result.benchmark, dict.fromkeys((task.name for task in result.tasks), 0.0))
    means = other.means(ran)
    same = {name: mean.value for name, mean in means.items() if name in ours and mean.ran == ours[name].ran}
    if len(ran) == len(all_tasks(result.benchmark)):
        same = {name: mean.value for name, mean in other.means().items() if mean.ran == mean.of} | same
    return same
