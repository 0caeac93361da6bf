"""Validate lines of training data; errors name file, line, field and reason."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import Literal, TypeAlias

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from ume_retrieval.errors import Failure, TrainingError
from ume_retrieval.media.files import is_remote
from ume_retrieval.tcot.grammar import is_usable, parse, validate
from ume_retrieval.util.files import display_name
from ume_training.data.records import TAGS, FramesRef, ItemRecord, PairRecord

OnError: TypeAlias = Literal["stop", "skip"]
"""Treatment of a broken line: raise its error, or skip it and list it."""

TCotRule: TypeAlias = Literal["strict", "usable", "any"]
"""Which T-CoTs pass: "strict" those without a problem of `BROKEN` and with the cue of their modality, "usable" all that
have words to embed, "any" whatever is written. Annotation and the filter read "usable", contrastive training "strict",
and EG-RL, whose Reasoner writes its own, "any"."""

BROKEN = frozenset(
    {
        *("missing_thinking", "missing_rethink", "missing_answer", "empty_thinking", "empty_answer"),
        *("unclosed_thinking", "unclosed_rethink", "unclosed_answer", "out_of_order", "broken_json"),
        *("missing_keywords", "missing_boxes", "missing_key_frames"),
        *("bad_box", "fractional_box", "box_out_of_range", "degenerate_box", "box_image_out_of_range"),
        *("bad_frame", "frame_out_of_range"),
    }
)
"""Problems (of `ume_retrieval.tcot.PROBLEMS`) that make a T-CoT malformed: a part is missing or a cue had to be
guessed, clamped or dropped. What is merely odd (quotes, fences, words outside the blocks) is read as it is meant."""


class PairError(TrainingError):
    """A line of training data cannot be used.

    Attributes:
        file: The file as it was named.
        line: Line of a JSONL file or row of a Parquet file, 1-based.
        field: Where in the record, such as "positive.images[0]"; "" for the line as a whole.
        reason: What is wrong there.
    """

    code = "bad_pair"

    def __init__(self, file: Path, line: int, field: str, reason: str, *, hint: str = "") -> None:
        where = f"{display_name(file)}, line {line}" + (f", {field}" if field else "")
        super().__init__(f"{where}: {reason}", hint=hint or "correct the line, or leave broken lines out (skip)")
        self.file = file
        self.line = line
        self.field = field
        self.reason = reason

    def failure(self) -> Failure:
        """As a value for a report; the source is "file:line"."""
        return Failure.of(self, index=self.line - 1, source=f"{display_name(self.file)}:{self.line}")


def read_line(text: str | bytes, file: Path, line: int) -> PairRecord:
    """Read one record from JSON.

    Raises:
        PairError: When it is not JSON, has a wrong type, an unknown key, or says nothing where it must.
    """
    try:
        return PairRecord.model_validate_json(text)
    except ValidationError as error:
        raise pair_error(error, file, line) from error


def pair_error(error: ValidationError, file: Path, line: int) -> PairError:
    """Return the first error that pydantic found, as a `PairError`."""
    first = error.errors(include_url=False, include_input=True)[0]
    return PairError(file, line, field_of(first["loc"]), _reason(first))


def field_of(place: tuple[int | str, ...]) -> str:
    """Write one of pydantic's locations as a path of keys.

    Example:
        >>> field_of(("positive", "images", 0, "object", "page"))
        'positive.images[0].page'
    """
    written = ""
    for position, part in enumerate(place):
        if isinstance(part, int):
            written += f"[{part}]"
        elif not (part in TAGS and position and isinstance(place[position - 1], int)):
            written += f".{part}" if written else part
    return written


_REASONS = {
    "missing": "is missing",
    "extra_forbidden": "is not a field of the schema",
    "string_pattern_mismatch": "is empty text",
    "string_too_short": "is empty text",
    "too_short": "is empty",
}


def _reason(error: ErrorDetails) -> str:
    kind, message, value = error["type"], error["msg"], error["input"]
    if kind == "json_invalid":
        return f"is not JSON: {message.removeprefix('Invalid JSON: ').replace(' line 1 column', ' column')}"
    if kind in _REASONS:
        return _REASONS[kind]
    if kind == "value_error":
        return str(message.removeprefix("Value error, "))
    shown = repr(value)
    return f"{message[0].lower()}{message[1:]}, not {shown if len(shown) <= 60 else shown[:59] + '…'}"


def media_fault(record: PairRecord, folder: Path) -> tuple[str, str] | None:
    """Return the first medium that is not there, as (field, reason); files are looked for and not opened."""
    for side, item in record.sides():
        for place, written in item.paths():
            if is_remote(written):
                return f"{side}.{place}", "is an address, and nothing is fetched"
            if reason := _absence(os.fspath(folder / written)):
                return f"{side}.{place}", f"{display_name(written)} {reason}"
    return None


@lru_cache(maxsize=65_536)
def _absence(path: str) -> str | None:
    try:
        status = Path(path).stat()
    except (OSError, ValueError):
        return "does not exist"
    if not stat.S_ISREG(status.st_mode):
        return "is not a regular file"
    return None if status.st_size else "is an empty file"


def forget_media() -> None:
    """Look for files anew; what was found before may have changed."""
    _absence.cache_clear()


def tcot_problems(text: str, item: ItemRecord, frames: int | None = None) -> tuple[str, ...]:
    """Return names of everything that is wrong with a T-CoT, in order of discovery.

    Args:
        text: The T-CoT as written.
        item: What it is about.
        frames: How many frames its videos were sampled to, when known.

    Example:
        >>> tcot_problems("<thinking>a cat</thinking><answer>a cat</answer>", ItemRecord(text="a cat"))
        ('missing_rethink', 'empty_rethink', 'missing_keywords')
    """
    listed = [len(video.frames) for video in item.videos if isinstance(video, FramesRef)]
    most = frames if frames is not None else (sum(listed) if listed and len(listed) == len(item.videos) else None)
    tcot = parse(text, images=len(item.images), frames=most)
    return tuple(dict.fromkeys(problem.name for problem in (*tcot.problems, *validate(tcot, item.modality))))


def tcot_faults(record: PairRecord, rule: TCotRule) -> Iterator[tuple[str, str]]:
    """T-CoTs that do not pass, as (field, reason)."""
    if rule == "any":
        return
    for field, item, text in record.tcots():
        problems = tcot_problems(text, item)
        if not is_usable(parse(text, images=len(item.images))):
            yield field, f"says nothing ({', '.join(problems)})"
        elif rule == "strict" and (serious := [name for name in problems if name in BROKEN]):
            yield field, f"is malformed ({', '.join(serious)})"


def check(record: PairRecord, file: Path, line: int, *, media: bool, rule: TCotRule) -> None:
    """Look for everything that can be seen without decoding.

    Raises:
        PairError: For the first fault.
    """
    fault = media_fault(record, file.parent) if media else None
    fault = fault or next(tcot_faults(record, rule), None)
    if fault:
        raise PairError(file, line, *fault)
