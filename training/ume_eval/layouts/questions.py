"""MMEB-V2's video question answering: a video, a question with its options, and the options as candidates.

Each data set has columns of its own, and the published code writes each prompt in its own way.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final, TypeAlias

from ume_eval.layouts.building import Building
from ume_eval.layouts.media import film
from ume_eval.rows import Row, RowsNotFound, find_rows, read_rows
from ume_eval.samples import EvalTask, Sample
from ume_eval.tasks import Task
from ume_retrieval.errors import InputError

SUBSETS: Final = (
    "episodic_reasoning",
    "action_sequence",
    "action_prediction",
    "action_antonym",
    "fine_grained_action",
    "unexpected_action",
    "object_existence",
    "object_interaction",
    "object_shuffle",
    "moving_direction",
    "action_localization",
    "scene_transition",
    "action_count",
    "moving_count",
    "moving_attribute",
    "state_change",
    "fine_grained_pose",
    "character_order",
    "egocentric_navigation",
    "counterfactual_inference",
)
"""MVBench's parts, 200 questions each, in the published order."""

YES_OR_NO: Final = ("yes", "no")

_LETTER = re.compile(r"^\(?[A-Z][.)]\s+")


@dataclass(frozen=True, slots=True)
class Question:
    """One question as its data set writes it.

    Attributes:
        film: The video's folder of frames.
        text: The question with its options.
        options: Candidates in order.
        answer: Position of the right one.
    """

    film: str
    text: str
    options: tuple[str, ...]
    answer: int


Reading: TypeAlias = Callable[[dict[str, Any]], Question]


def mvbench(task: Task, folder: Path, limit: int | None) -> EvalTask:
    """20 parts in files of their own; candidates keep their letters."""
    return _read(task, folder, limit, _parts(task, folder), _mvbench)


def video_mme(task: Task, folder: Path, limit: int | None) -> EvalTask:
    """Options with letters ("A. …"), which candidates lose; the answer is a letter."""
    return _read(task, folder, limit, read_rows(find_rows(folder, task)), _video_mme)


def nextqa(task: Task, folder: Path, limit: int | None) -> EvalTask:
    """Five options in columns `a0` to `a4`; the answer is a position."""
    return _read(task, folder, limit, read_rows(find_rows(folder, task)), _nextqa)


def egoschema(task: Task, folder: Path, limit: int | None) -> EvalTask:
    """Options with letters, which candidates lose; the answer is a position."""
    return _read(task, folder, limit, read_rows(find_rows(folder, task)), _egoschema)


def activitynet_qa(task: Task, folder: Path, limit: int | None) -> EvalTask:
    """Yes or no."""
    return _read(task, folder, limit, read_rows(find_rows(folder, task)), _activitynet_qa)


def with_options(question: str, options: Sequence[str]) -> str:
    r"""A question followed by its lettered options.

    Example:
        >>> with_options("Why?", ["rain", "sun"])
        'Why?\nOptions:\n(A) rain\n(B) sun'
    """
    return "\n".join([question, "Options:", *(lettered(place, option) for place, option in enumerate(options))])


def lettered(place: int, option: str) -> str:
    """An option with its letter."""
    return f"({chr(ord('A') + place)}) {option}"


def bare(option: str) -> str:
    """An option without letter and full stop.

    The published code cuts at the first ". " and leaves the last character alone where there is none.

    Example:
        >>> bare("A. A man vs. a dog."), bare("Apples")
        ('A man vs. a dog', 'Apples')
    """
    return _LETTER.sub("", option.strip()).strip(". ")


def _read(task: Task, folder: Path, limit: int | None, rows: Iterator[Row], reading: Reading) -> EvalTask:
    building = Building(task, limit)
    for row in building.rows(rows):
        with building.query_row():
            one = reading(row.columns)
            if not 0 <= one.answer < len(one.options):
                raise InputError(f"answer {one.answer} of {len(one.options)} options", hint="check the row")
            video = film(folder / task.media, one.film)
            for option in one.options:
                building.candidate(option, partial(Sample, option))
            building.query(
                Sample(one.text, videos=(video,), instruction=task.instruction("video")),
                {one.options[one.answer]: 1.0},
                one.options,
            )
    return building.done()


def _parts(task: Task, folder: Path) -> Iterator[Row]:
    """Rows of all parts that are there, each with its part's name."""
    found = False
    for subset in SUBSETS:
        try:
            files = find_rows(folder, task, subset)
        except RowsNotFound:
            continue
        found = True
        for row in read_rows(files):
            yield Row(row.where, None if row.values is None else {**row.values, "subset": subset})
    if not found:
        find_rows(folder, task, SUBSETS[0])


def _mvbench(values: dict[str, Any]) -> Question:
    options = [str(option) for option in values["candidates"]]
    return Question(
        film=f"{values['subset']}/{values['video']}",
        text=with_options(values["question"], options),
        options=tuple(lettered(place, option) for place, option in enumerate(options)),
        answer=options.index(str(values["answer"])),
    )


def _video_mme(values: dict[str, Any]) -> Question:
    options = [str(option) for option in values["options"]]
    return Question(
        film=str(values["videoID"]),
        text="\n".join([values["question"], *options]),
        options=tuple(map(bare, options)),
        answer="ABCD".index(values["answer"]),
    )


def _nextqa(values: dict[str, Any]) -> Question:
    options = [str(values[f"a{place}"]) for place in range(5)]
    answer = int(values["answer"])
    return Question(str(values["video"]), with_options(values["question"], options), tuple(options), answer)


def _egoschema(values: dict[str, Any]) -> Question:
    options = [str(option) for option in values["option"]]
    # The published prompt sets options off by blanks alone, and the first not at all.
    text = values["question"] + " ".join(options)
    return Question(str(values["video_idx"]), text, tuple(map(bare, options)), int(values["answer"]))


def _activitynet_qa(values: dict[str, Any]) -> Question:
    text = f"{values['question']}? (A) yes; (B) no."
    return Question(f"v_{values['video_name']}", text, YES_OR_NO, YES_OR_NO.index(values["answer"]))
