"""Evaluate any embedder on MMEB-V2 and UVRB, with and without reasoning, from published files to the papers' tables.

Example:
    >>> [task.name for task in choose("mmeb-v2", ["video MRET"])]
    ['QVHighlight', 'Charades-STA', 'MomentSeeker']
"""

import warnings
from typing import Any

from ume_eval.encoding import Shard, Stored, VectorStore
from ume_eval.layouts import read_task
from ume_eval.plots import draw_plots
from ume_eval.published import MixedVersions, Published, comparable_scores, published
from ume_eval.report import TextTable, group_table, notes, reasoning_table, task_table, to_markdown, write_report
from ume_eval.results import Cost, GroupMean, ModeScore, RunResult, TaskResult, group_means, write_result
from ume_eval.rows import RowsNotFound
from ume_eval.run import Options, ProgressCallbacks, evaluate
from ume_eval.samples import Candidate, EvalTask, Film, Problem, Query, Sample
from ume_eval.swapping import Swap
from ume_eval.tasks import Benchmark, Task, VisDoc, all_tasks, choose, classes

__all__ = [
    "Benchmark",
    "Candidate",
    "Cost",
    "EvalTask",
    "Film",
    "GroupMean",
    "MixedVersions",
    "ModeScore",
    "Options",
    "Problem",
    "ProgressCallbacks",
    "Published",
    "Query",
    "RowsNotFound",
    "RunResult",
    "Sample",
    "Shard",
    "Stored",
    "Swap",
    "Task",
    "TaskResult",
    "TextTable",
    "VectorStore",
    "VisDoc",
    "all_tasks",
    "choose",
    "classes",
    "comparable_scores",
    "draw_plots",
    "evaluate",
    "group_means",
    "group_table",
    "notes",
    "published",
    "read_task",
    "reasoning_table",
    "task_table",
    "to_markdown",
    "write_report",
    "write_result",
]


_RENAMED = {"Watch": "ProgressCallbacks", "beside": "comparable_scores"}


def __getattr__(name: str) -> Any:
    if name not in _RENAMED:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    warnings.warn(f"{__name__}.{name} is now {_RENAMED[name]}", DeprecationWarning, stacklevel=2)
    return globals()[_RENAMED[name]]
