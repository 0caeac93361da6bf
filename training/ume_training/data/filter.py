"""Split annotated pairs into kept ones and rejected ones (for EG-RL), in files that can be resumed after a kill."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any, Literal, TypeAlias

from ume_retrieval.errors import Failure, InputError
from ume_retrieval.tcot.grammar import parse
from ume_retrieval.tcot.trace import TCot
from ume_retrieval.util.files import atomic_path
from ume_training.data.append_log import RecordLog, claim, cut_torn_line
from ume_training.data.files import PairReader, key_hash, settle
from ume_training.data.judge import Judge, Judgement
from ume_training.data.records import PairRecord
from ume_training.data.validation import BROKEN, OnError, tcot_problems

Undecided: TypeAlias = Literal["keep", "reject"]
"""Treatment of pairs that the judge calls neither contradictory nor consistent."""

BATCH = 32
"""Pairs that are judged and written together."""

REASONS = {
    "agrees": "the judge finds no contradiction",
    "contradicts": "the judge finds the T-CoTs irrelevant to each other or contradictory",
    "undecided": "the judge said neither yes nor no",
    "no_tcot": "a side lacks its T-CoT",
    "malformed": "a T-CoT lacks a part, or has a cue that cannot be used",
}
"""Why a pair was kept or rejected."""


@dataclass(slots=True)
class FilterReport:
    """Counts of the filter over this run and those that it resumed.

    Attributes:
        kept: Pairs kept.
        rejected: Pairs rejected.
        reasons: How many pairs for each reason of `REASONS`.
        datasets: The same for each data set, with "kept" and "rejected".
        failures: Lines that were left out.
        tokens: Tokens that the judge read and wrote in this run.
        judged: Pairs that went through in this run.
    """

    kept: int = 0
    rejected: int = 0
    reasons: Counter[str] = field(default_factory=Counter)
    datasets: dict[str, Counter[str]] = field(default_factory=lambda: defaultdict(Counter))
    failures: list[Failure] = field(default_factory=list)
    tokens: int = 0
    judged: int = 0

    def count(self, dataset: str, reason: str, *, kept: bool) -> None:
        """Count one pair."""
        self.kept += kept
        self.rejected += not kept
        self.reasons[reason] += 1
        self.datasets[dataset].update((reason, "kept" if kept else "rejected"))

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "kept": self.kept,
            "rejected": self.rejected,
            "kept_share": round(self.kept / (self.kept + self.rejected), 4) if self.kept + self.rejected else None,
            "reasons": dict(self.reasons),
            "datasets": {name: dict(counts) for name, counts in self.datasets.items()},
            "tokens": self.tokens,
            "judged": self.judged,
            "failures": [asdict(one) for one in self.failures],
        }


def filter_pairs(
    pairs: Path,
    kept: Path,
    rejected: Path,
    judge: Judge,
    *,
    undecided: Undecided = "reject",
    resume: bool = False,
    on_error: OnError = "stop",
    on_progress: Callable[[int], None] | None = None,
) -> FilterReport:
    """Judge every pair and write it to one of two files.

    Pairs without two T-CoTs, or with a malformed one (`BROKEN`), are rejected without asking: the RL split needs
    no T-CoTs, and training would refuse malformed ones. A file `.verdicts.jsonl` next to `kept` lists the judge's
    reply and the decision for every pair.

    Args:
        pairs: An annotated pair file or folder of shards.
        kept: A `.jsonl` file for contrastive training.
        rejected: A `.jsonl` file for EG-RL.
        judge: Who decides.
        undecided: Whether pairs are kept that the judge is undecided about; the paper keeps on "No" alone.
        resume: Go on with the files. Pairs in them are not judged again.
        on_error: What to do with a broken line: stop, or leave it out and name it.
        on_progress: Called with the number of pairs that are through.

    Raises:
        InputError: When both files are one, or `undecided` is unknown.
        TrainingError: When a file exists and is not to be resumed, or was written with another judge.
        PairError: For the first broken line, if `on_error` is "stop".
        UmeError: When the judge cannot answer.
    """
    if undecided not in ("keep", "reject"):
        raise InputError(f"unknown choice {undecided!r}", hint="use keep or reject")
    if len({pairs.resolve(), kept.resolve(), rejected.resolve()}) < 3:
        raise InputError("the pairs, the kept and the rejected ones need three different files")
    for out in (kept, rejected):
        claim(out, {"judge": judge.name, "undecided": undecided, "split": out is kept}, resume=resume)
    logs = {True: RecordLog(kept), False: RecordLog(rejected)}
    verdicts = kept.with_name(f"{kept.name}.verdicts.jsonl")
    report = FilterReport()
    _recall(verdicts, logs[True].done | logs[False].done, report)
    reader = PairReader(pairs, on_error=on_error, media=False, rule="usable")
    through = 0
    try:
        with verdicts.open("a", encoding="utf-8", newline="\n") as book:
            rows = iter(reader)
            while batch := list(islice(rows, BATCH)):
                waiting = [one for one in batch if not any(one.record in log for log in logs.values())]
                judged = _judge([one.record for one in waiting], judge, undecided, report)
                # First the book, then the pairs: a kill between leaves lines that `_recall` finds without a pair.
                book.write("".join(json.dumps(entry) + "\n" for entry in judged))
                settle(book)
                for keep, log in logs.items():
                    log.append(
                        one.record.moved(one.folder, log.path.parent)
                        for one, entry in zip(waiting, judged, strict=True)
                        if entry["kept"] is keep
                    )
                for entry in judged:
                    report.count(entry["dataset"], entry["reason"], kept=entry["kept"])
                report.judged += len(judged)
                through += len(batch)
                if on_progress is not None:
                    on_progress(through)
    finally:
        for log in logs.values():
            log.close()
    report.failures = list(reader.failures)
    return report


def _judge(
    records: Sequence[PairRecord], judge: Judge, undecided: Undecided, report: FilterReport
) -> list[dict[str, Any]]:
    """Judge each record, and return its line of the verdicts file."""
    reasons = [_unjudged(record) for record in records]
    asked = [record for record, reason in zip(records, reasons, strict=True) if reason is None]
    answers = iter(judge.judge([_parsed(record) for record in asked]) if asked else [])
    entries: list[dict[str, Any]] = []
    for record, unjudged in zip(records, reasons, strict=True):
        reason, keep, reply = unjudged, False, ""
        if reason is None:
            judgement: Judgement = next(answers)
            reason = {"keep": "agrees", "reject": "contradicts"}.get(judgement.verdict, "undecided")
            keep = judgement.verdict == "keep" or (judgement.verdict == "undecided" and undecided == "keep")
            reply = judgement.reply
            report.tokens += judgement.tokens
        entries.append({"dataset": record.dataset, "id": record.id, "kept": keep, "reason": reason, "reply": reply})
    return entries


def _unjudged(record: PairRecord) -> str | None:
    """Why a pair is rejected without asking, or None."""
    if record.query_tcot is None or record.positive_tcot is None:
        return "no_tcot"
    broken = any(BROKEN.intersection(tcot_problems(text, item)) for _, item, text in record.tcots())
    return "malformed" if broken else None


def _parsed(record: PairRecord) -> tuple[TCot, TCot]:
    query, positive = (parse(text, images=len(item.images)) for _, item, text in record.tcots())
    return query, positive


def _recall(verdicts: Path, done: set[int], report: FilterReport) -> None:
    """Count what earlier runs decided, and drop lines of the book whose pairs were not written."""
    if not verdicts.exists():
        return
    cut_torn_line(verdicts)
    seen = set[int]()
    with (
        atomic_path(verdicts, what="the decisions") as part,
        part.open("w", encoding="utf-8", newline="\n") as fresh,
        verdicts.open(encoding="utf-8") as book,
    ):
        for line in book:
            entry = _entry(line)
            key = key_hash(entry["dataset"], entry["id"]) if entry else 0
            if entry and key in done and key not in seen:
                seen.add(key)
                report.count(entry["dataset"], entry["reason"], kept=entry["kept"])
                fresh.write(line)


def _entry(line: str) -> dict[str, Any] | None:
    try:
        entry = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return entry if isinstance(entry, dict) and {"dataset", "id", "reason", "kept"} <= entry.keys() else None
