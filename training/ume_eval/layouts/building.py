"""A task while it is being read: rows become queries and candidates, and what cannot be used becomes a problem."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Final

from ume_eval.rows import Row
from ume_eval.samples import Candidate, EvalTask, Problem, ProblemName, Query, Sample
from ume_eval.tasks import Task
from ume_retrieval.errors import InputError, MediaNotFound
from ume_retrieval.report.sanitize import one_line

BROKEN: Final = (KeyError, TypeError, ValueError, AttributeError, IndexError, OSError, InputError)
"""What reading a row of another form than the layout's may raise; no system has a file of some names."""


class Building:
    """Collects a task.

    Args:
        task: What is read.
        limit: Most queries, or None for all.
    """

    def __init__(self, task: Task, limit: int | None) -> None:
        self.task = task
        self.limit = limit
        self.queries: list[Query] = []
        self._candidates: dict[str, Candidate | None] = {}
        self._problems: list[Problem] = []
        self._left_out = False
        self._others = 0

    def rows(self, rows: Iterator[Row]) -> Iterator[Row]:
        """Rows that stand for queries, as many as the limit allows."""
        for number, row in enumerate(rows):
            if self.limit is not None and number >= self.limit:
                self._left_out = True
                return
            yield row

    @contextmanager
    def query_row(self) -> Iterator[None]:
        """Guard the reading of one query: what goes wrong costs this query, which then counts as a miss."""
        where = f"{self.task.name} query {len(self.queries) + sum(p.costs_query for p in self._problems)}"
        try:
            yield
        except MediaNotFound as error:
            self.problem("missing_media", where, error.message, costs_query=True)
        except BROKEN as error:
            self.problem("broken_row", where, _said(error), costs_query=True)

    @contextmanager
    def other_row(self, where: str) -> Iterator[None]:
        """Guard the reading of a judgement or a candidate: what goes wrong costs this row."""
        try:
            yield
        except BROKEN as error:
            self.problem("broken_row", where, _said(error))

    def problem(self, name: ProblemName, where: str, message: str, *, costs_query: bool = False) -> None:
        """Note something that cannot be used; rows and files may have odd names."""
        self._problems.append(Problem(name, one_line(where), one_line(message), costs_query))

    def candidate(self, key: str, sample: Callable[[], Sample]) -> None:
        """Add a candidate unless it is known; one whose files are not there is noted, and can never be found."""
        if key in self._candidates:
            return
        self._candidates[key] = None
        try:
            self._candidates[key] = Candidate(key, sample())
        except MediaNotFound as error:
            self.problem("missing_media", f"{self.task.name} candidate {key}", error.message)
        except (InputError, OSError) as error:
            self.problem("broken_row", f"{self.task.name} candidate {key}", _said(error))

    def query(self, sample: Sample, answers: Mapping[str, float], among: Sequence[str] | None = None) -> None:
        """Add a query; a name that is listed twice among its candidates counts once.

        Raises:
            InputError: When its own list of candidates is empty, or nothing answers it.
        """
        key = f"{len(self.queries)}"
        if among is not None and not among:
            self.problem("no_candidates", f"{self.task.name} query {key}", "it has no candidates", costs_query=True)
        elif not answers:
            self.problem("no_answer", f"{self.task.name} query {key}", "nothing answers it", costs_query=True)
        else:
            names = None if among is None else tuple(dict.fromkeys(among))
            if names is not None and not answers.keys() & set(names):
                self.problem("no_answer", f"{self.task.name} query {key}", "its answer is not among its candidates")
            self.queries.append(Query(key, sample, dict(answers), names))

    def wants(self, key: str) -> bool:
        """Whether a candidate of a common corpus is read: all without a limit, else answers and as many others."""
        if self.limit is None or any(key in query.answers or key in (query.among or ()) for query in self.queries):
            return True
        self._others += 1
        self._left_out |= self._others > self.limit
        return self._others <= self.limit

    def done(self) -> EvalTask:
        """The task as far as it could be read."""
        candidates = tuple(one for one in self._candidates.values() if one is not None)
        known = {one.key for one in candidates}
        for query in self.queries:
            if query.among is None and not query.answers.keys() & known:
                where = f"{self.task.name} query {query.key}"
                self.problem("no_answer", where, "its answer is not among the candidates")
        return EvalTask(self.task, tuple(self.queries), candidates, tuple(self._problems), limited=self._left_out)


def _said(error: Exception) -> str:
    return f"no column {error}" if isinstance(error, KeyError) else str(error) or type(error).__name__
