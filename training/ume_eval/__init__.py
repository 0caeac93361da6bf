"""MMEB-V2 and UVRB with any embedder: from published files on disk to the papers' tables, with and without reasoning.

Example:
    >>> [task.name for task in choose("mmeb-v2", ["video MRET"])]
    ['QVHighlight', 'Charades-STA', 'MomentSeeker']
"""

from ume_eval.layouts import read_task
from ume_eval.published import MixedVersions, Published, beside, published
from ume_eval.report import write_report
from ume_eval.results import RunResult, TaskResult, group_means
from ume_eval.rows import RowsNotFound
from ume_eval.run import Options, Watch, evaluate
from ume_eval.samples import Candidate, EvalTask, Problem, Query, Sample
from ume_eval.store import Shard, VectorStore
from ume_eval.tasks import Task, all_tasks, choose

__all__ = [
    "Candidate",
    "EvalTask",
    "MixedVersions",
    "Options",
    "Problem",
    "Published",
    "Query",
    "RowsNotFound",
    "RunResult",
    "Sample",
    "Shard",
    "Task",
    "TaskResult",
    "VectorStore",
    "Watch",
    "all_tasks",
    "beside",
    "choose",
    "evaluate",
    "group_means",
    "published",
    "read_task",
    "write_report",
]
