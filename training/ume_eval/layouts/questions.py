"""MMEB-V2's video question answering: a video, a question with its options, and the options as candidates.

Each data set has its own columns, and the published code writes each prompt in its own way.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final

from ume_eval.layouts.builder import TaskBuilder, film
from ume_eval.rows import Row, RowsNotFound, find_rows, read_rows
from ume_eval.samples import Sample
from ume_eval.tasks import Task
from ume_retrieval.errors import InputError

YES_OR_NO: Final = ("yes", "no")

_LETTER = re.compile(r"^\(?[A-Z][.)]\s+")


def mvbench(builder: TaskBuilder, folder: Path) -> None:
    """Read 20 parts in files of their own; candidates keep their letters."""
    builder.read_queries(_parts(builder.task, folder), _mvbench)


def video_mme(builder: TaskBuilder, values: dict[str, Any]) -> None:
    """Read options with letters ("A. …"), which candidates lose; the answer is a letter."""
    options = [str(option) for option in values["options"]]
    text = "\n".join([values["question"], *options])
    _add(builder, str(values["videoID"]), text, [bare(option) for option in options], "ABCD".index(values["answer"]))


def nextqa(builder: TaskBuilder, values: dict[str, Any]) -> None:
    """Read five options in columns `a0` to `a4`; the answer is a position."""
    options = [str(values[f"a{place}"]) for place in range(5)]
    answer = int(values["answer"])
    _add(builder, str(values["video"]), with_options(values["question"], options), options, answer)


def egoschema(builder: TaskBuilder, values: dict[str, Any]) -> None:
    """Read options with letters, which candidates lose; the answer is a position."""
    options = [str(option) for option in values["option"]]
    # The published prompt separates options by blanks alone, and the first option not at all.
    text = values["question"] + " ".join(options)
    _add(builder, str(values["video_idx"]), text, [bare(option) for option in options], int(values["answer"]))


def activitynet_qa(builder: TaskBuilder, values: dict[str, Any]) -> None:
    """Read a question that is answered by yes or no."""
    text = f"{values['question']}? (A) yes; (B) no."
    _add(builder, f"v_{values['video_name']}", text, YES_OR_NO, YES_OR_NO.index(values["answer"]))


def with_options(question: str, options: Sequence[str]) -> str:
    r"""Return a question followed by its lettered options.

    Example:
        >>> with_options("Why?", ["rain", "sun"])
        'Why?\nOptions:\n(A) rain\n(B) sun'
    """
    return "\n".join([question, "Options:", *_lettered(options)])


def bare(option: str) -> str:
    """Remove the letter and the full stop of an option.

    The published code cuts at the first ". " and keeps only the last character of an option without it.

    Example:
        >>> bare("A. A man vs. a dog."), bare("Apples")
        ('A man vs. a dog', 'Apples')
    """
    return _LETTER.sub("", option.strip()).strip(". ")


def _lettered(options: Sequence[str]) -> list[str]:
    return [f"({chr(ord('A') + place)}) {option}" for place, option in enumerate(options)]


def _add(builder: TaskBuilder, name: str, text: str, options: Sequence[str], answer: int) -> None:
    """Add a question on the video in folder `name`; `answer` is the position of the correct option."""
    if not 0 <= answer < len(options):
        raise InputError(f"answer {answer} of {len(options)} options", hint="check the row")
    sample = Sample(text, videos=(film(builder.media, name),), instruction=builder.task.instruction("video"))
    builder.texts(options)
    builder.query(sample, {options[answer]: 1.0}, options)


def _parts(task: Task, folder: Path) -> Iterator[Row]:
    """Yield rows of all parts that exist, each with its part's name in the column `subset`."""
    found = False
    for subset in task.subsets:
        try:
            files = find_rows(folder, task, subset)
        except RowsNotFound:
            continue
        found = True
        for row in read_rows(files):
            yield Row(row.where, None if row.values is None else {**row.values, "subset": subset})
    if not found:
        find_rows(folder, task, task.subsets[0])  # raises with the command to download it


def _mvbench(builder: TaskBuilder, values: dict[str, Any]) -> None:
    options = [str(option) for option in values["candidates"]]
    name, text = f"{values['subset']}/{values['video']}", with_options(values["question"], options)
    _add(builder, name, text, _lettered(options), options.index(str(values["answer"])))
