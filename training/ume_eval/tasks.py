"""The tasks of MMEB-V2 and UVRB: their files, instructions and metrics.

The data is in `data/*.json`, each file with its source, a commit or a paper.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatch
from functools import cache
from importlib.resources import files
from typing import Any, Final, Literal, TypeAlias, get_args

from ume_retrieval.errors import InputError
from ume_retrieval.inputs import Modality

Benchmark: TypeAlias = Literal["mmeb-v2", "uvrb"]

Scope: TypeAlias = Literal["own", "all"]
"""Rank a query against its own list of candidates, if it has one, or against all candidates of the task."""

VisDoc: TypeAlias = Literal["page-fixed", "original"]
"""Version of MMEB-V2's document tasks. Until November 2025 the labels of ViDoSeek-page and MMLongBench-page were wrong
(TIGER-AI-Lab/VLM2Vec, issue 167): the best models scored about 23 and 16 then, and 84 and 55 since. Scores of the two
versions are not comparable."""

MOVED: Final = ("ViDoSeek-page", "MMLongBench-page")
"""Tasks whose labels differ between the versions of `VisDoc`."""

MMEB_GROUPS: Final[Mapping[str, tuple[str, ...]]] = {
    "image": ("image CLS", "image QA", "image RET", "image GD"),
    "video": ("video CLS", "video QA", "video RET", "video MRET"),
    "visdoc": ("visdoc VDRv1", "visdoc VDRv2", "visdoc VR", "visdoc OOD"),
}
"""Columns of the paper's table (arXiv 2602.13823, table 1), by modality."""

UVRB_GROUPS: Final = ("TXT", "CMP", "VIS", "CG", "FG", "LC", "S", "T", "PR")
"""Abilities (arXiv 2510.27571, table 2): by form of the query, by domain, and the parts of FG."""

UVRB_PARTS: Final[Mapping[str, tuple[str, ...]]] = {"FG": ("S", "T", "PR"), "TXT": ("CG", "FG", "LC")}
"""Abilities that are means of other abilities, in the order of computation. Only this reproduces the printed table of
UVRB; Embed-RL's paper also prints flat means over data sets."""

UVRB_AVERAGED: Final = UVRB_GROUPS[:6]
"""Abilities whose mean is the published AVG, which differs from the mean over data sets."""


@dataclass(frozen=True, slots=True)
class Task:
    """One task as published.

    Attributes:
        name: Name in the leaderboard and the papers.
        benchmark: Its benchmark.
        groups: Columns of the result table that it counts in: one for MMEB-V2, one to three for UVRB.
        layout: Name of the reader in `layouts`.
        rows: Hub repository, configuration or None, and split of the rows.
        media: Folder of its pictures or frames, relative to the benchmark's folder.
        scope: Candidates that its queries are ranked against.
        target: Modality of the candidates.
        metric: Main metric by name, see `metrics.measure`.
        instructions: Instructions for queries by modality; "" for all. Rows of image tasks hold their own.
        candidate_instruction: Instruction for candidates, or None.
        columns: Names of the columns of a row's video and text, for layouts that differ in them.
        labels: Name of its list of classes in `data/video-labels.json`, or None.
        queries: Number of queries of the published scores; None if unknown.
        subsets: Parts with files of their own, in the published order.
    """

    name: str
    benchmark: Benchmark
    groups: tuple[str, ...]
    layout: str
    rows: tuple[str, str | None, str]
    media: str
    scope: Scope
    target: Modality
    metric: str
    instructions: Mapping[str, str] = field(default_factory=dict)
    candidate_instruction: str | None = None
    columns: tuple[str, ...] = ()
    labels: str | None = None
    queries: int | None = None
    subsets: tuple[str, ...] = ()

    @property
    def group_names(self) -> set[str]:
        """Groups that it counts in, with MMEB-V2's modalities."""
        return {*self.groups, *(group.partition(" ")[0] for group in self.groups)}

    def instruction(self, modality: Modality) -> str | None:
        """Return the instruction for a query of this modality, or None."""
        return self.instructions.get(modality) or self.instructions.get("")


def all_tasks(benchmark: Benchmark, visdoc: VisDoc = "page-fixed") -> tuple[Task, ...]:
    """Return every task of a benchmark, in the order of its tables.

    Raises:
        InputError: When the benchmark or version is unknown.

    Example:
        >>> len(all_tasks("mmeb-v2")), len(all_tasks("uvrb"))
        (78, 16)
    """
    if benchmark not in get_args(Benchmark) or visdoc not in get_args(VisDoc):
        raise InputError(
            f"unknown benchmark {benchmark} or version {visdoc}", hint="mmeb-v2 (page-fixed, original) or uvrb"
        )
    return tuple(_task(benchmark, facts, visdoc) for facts in _data(f"{benchmark}.json")["tasks"])


def choose(benchmark: Benchmark, wanted: Sequence[str] = (), visdoc: VisDoc = "page-fixed") -> tuple[Task, ...]:
    """Choose tasks by name, group ("video QA", "CG"), modality ("image") or pattern ("ViDoRe_*"); all if none is given.

    Raises:
        InputError: When a name or pattern matches no task.

    Example:
        >>> [task.name for task in choose("mmeb-v2", ["video MRET", "MSCOCO_*"])]
        ['MSCOCO_t2i', 'MSCOCO_i2t', 'QVHighlight', 'Charades-STA', 'MomentSeeker']
    """
    tasks = all_tasks(benchmark, visdoc)
    for name in wanted:
        if not any(_fits(task, name) for task in tasks):
            raise InputError(
                f"unknown task or group {name!r} of {benchmark}", hint="such as `image`, `video QA` or `CIRR`"
            )
    return tuple(task for task in tasks if not wanted or any(_fits(task, name) for name in wanted))


def classes(task: Task) -> tuple[str, ...]:
    """Return every class of a classification task, including those without a row."""
    return tuple(_data("video-labels.json")[task.labels]) if task.labels else ()


def _fits(task: Task, name: str) -> bool:
    wanted = name.casefold()
    return wanted in {one.casefold() for one in task.group_names} or fnmatch(task.name.casefold(), wanted)


def _task(benchmark: Benchmark, facts: Mapping[str, Any], visdoc: VisDoc) -> Task:
    instructions = facts.get("query_instruction", {})
    rows = facts["rows"] if visdoc == "page-fixed" else facts.get("original_rows", facts["rows"])
    repository, configuration, split = rows
    return Task(
        name=facts["name"],
        benchmark=benchmark,
        groups=(facts["group"],) if benchmark == "mmeb-v2" else tuple(facts["group"].split()),
        layout=facts["layout"],
        rows=(repository, configuration, split),
        media=facts["media"],
        scope=facts["scope"],
        target=facts["target"],
        metric=facts["metric"],
        instructions=instructions if isinstance(instructions, dict) else {"": instructions},
        candidate_instruction=facts.get("candidate_instruction"),
        columns=tuple(facts.get("columns", ())),
        labels=facts.get("labels"),
        queries=facts.get("queries"),
        subsets=tuple(facts.get("subsets", ())),
    )


@cache
def _data(name: str) -> dict[str, Any]:
    text = files("ume_eval").joinpath("data", name).read_text(encoding="utf-8")
    return dict(json.loads(text))
