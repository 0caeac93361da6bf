"""Pair files: JSONL and Parquet, or a folder of such shards, read a line at a time and written whole or not at all."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, get_args

from ume_retrieval.checkpoint import VisualBudget
from ume_retrieval.errors import Failure, InputError, TrainingError
from ume_retrieval.util.files import atomic_path, display_name
from ume_training.data.pairs import TrainingPair
from ume_training.data.parquet import count_rows, read_rows, write_rows
from ume_training.data.records import PairRecord
from ume_training.data.validation import OnError, PairError, TCotRule, check, forget_media, read_line
from ume_training.run_folder import make_folder

SUFFIXES = (".jsonl", ".parquet")


@dataclass(frozen=True, slots=True)
class Located:
    """A record and its place in a file.

    Attributes:
        record: The record.
        file: Its shard; relative paths start from the shard's folder.
        line: Line or row, 1-based.
    """

    record: PairRecord
    file: Path
    line: int

    @property
    def folder(self) -> Path:
        """Base of relative paths."""
        return self.file.parent

    def pair(self, budget: VisualBudget | None = None) -> TrainingPair:
        """As a `TrainingPair`; see `PairRecord.pair`."""
        return self.record.pair(self.folder, budget)


def shards(path: Path) -> tuple[Path, ...]:
    """Return the files that a pair file consists of: itself, or the shards of a folder in the order of their names.

    Raises:
        TrainingError: When there is nothing to read.
    """
    if path.is_dir():
        found = tuple(sorted(file for file in path.iterdir() if file.suffix in SUFFIXES and file.is_file()))
        if not found:
            raise TrainingError(f"the folder {display_name(path)} holds no .jsonl or .parquet file")
        return found
    if not path.is_file():
        raise TrainingError(f"there is not a pair file {display_name(path)}", hint="check the path")
    if path.suffix not in SUFFIXES:
        raise TrainingError(
            f"{display_name(path)} is not a pair file", hint=f"its name must end in {' or '.join(SUFFIXES)}"
        )
    return (path,)


def count_lines(path: Path) -> int:
    """Return how many lines or rows a pair file has, broken ones included: for progress bars."""
    total = 0
    for file in shards(path):
        if file.suffix == ".parquet":
            total += count_rows(file)
        else:
            with file.open("rb") as handle:
                last = b"\n"
                for block in iter(lambda: handle.read(1 << 20), b""):
                    total, last = total + block.count(b"\n"), block
            total += not last.endswith(b"\n")
    return total


class PairReader:
    r"""Reads a pair file from start to end, one record in memory at a time (Parquet: one row group).

    Args:
        path: A `.jsonl` or `.parquet` file, or a folder of such shards.
        on_error: "stop" raises the first fault; "skip" keeps it in `failures` and goes on.
        media: Look for the files that are referred to.
        rule: Which T-CoTs pass.

    Attributes:
        failures: Lines that were left out since the last start, in order.

    Raises:
        InputError: When an option is unknown.
        PairError: While reading, for a broken line, if `on_error` is "stop".
        TrainingError: While reading, when the file cannot be opened.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = Path(folder) / "pairs.jsonl"
        ...     _ = path.write_text('{"id": "1", "dataset": "d", "query": {"text": "?"}}\n')
        ...     reader = PairReader(path, on_error="skip")
        ...     list(reader), reader.failures[0].message.rpartition("line ")[2]
        ([], '1, positive: is missing')
    """

    def __init__(
        self, path: Path, *, on_error: OnError = "stop", media: bool = True, rule: TCotRule = "strict"
    ) -> None:
        for name, value, choices in (("on_error", on_error, OnError), ("rule", rule, TCotRule)):
            if value not in get_args(choices):
                raise InputError(f"unknown {name} {value!r}", hint=f"use one of {', '.join(get_args(choices))}")
        self.path = path
        self.on_error = on_error
        self.media = media
        self.rule = rule
        self.failures: list[Failure] = []

    def __iter__(self) -> Iterator[Located]:
        return (located for located, _ in self.with_offsets())

    def with_offsets(self) -> Iterator[tuple[Located, int]]:
        """Records, each with the byte at which its line starts (Parquet: its row, 0-based)."""
        self.failures = []
        for found, offset in self.found():
            if isinstance(found, Located):
                yield found, offset
            elif self.on_error == "stop":
                raise found
            else:
                self.failures.append(found.failure())

    def found(self) -> Iterator[tuple[Located | PairError, int]]:
        """Yield every line as its record, or as what is wrong with it."""
        forget_media()
        seen = set[int]()
        for file in shards(self.path):
            rows: Iterator[tuple[int, str | bytes]]
            rows = read_rows(file) if file.suffix == ".parquet" else _lines(file)
            for line, (offset, text) in enumerate(rows, start=1):
                if text.strip():
                    yield self._read(text, file, line, seen), offset

    def _read(self, text: str | bytes, file: Path, line: int, seen: set[int]) -> Located | PairError:
        try:
            record = read_line(text, file, line)
            check(record, file, line, media=self.media, rule=self.rule)
            _note_id(record, seen, file, line)
        except PairError as error:
            return error
        return Located(record, file, line)


def _note_id(record: PairRecord, seen: set[int], file: Path, line: int) -> None:
    """Refuse an id that a data set has twice. 64 bits an id clash by chance in one of 37 million files of a million."""
    key = key_hash(*record.key)
    if key in seen:
        raise PairError(file, line, "id", f"{record.id!r} occurs before in {record.dataset!r}")
    seen.add(key)


def key_hash(dataset: str, name: str) -> int:
    """Return a 64-bit digest of data set and id."""
    digest = hashlib.blake2b(json.dumps([dataset, name]).encode("utf-8", "surrogatepass"), digest_size=8)
    return int.from_bytes(digest.digest(), "big")


def read_pairs(path: Path, *, on_error: OnError = "stop", budget: VisualBudget | None = None) -> Iterator[TrainingPair]:
    """Return pairs of a file, in order, with their paths resolved. `PairReader` tells what was left out as well.

    Raises:
        PairError: For a broken line, if `on_error` is "stop".
    """
    return (located.pair(budget) for located in PairReader(path, on_error=on_error))


def write_records(records: Iterable[PairRecord], path: Path) -> int:
    """Write a pair file whole: under another name first, so that a killed run leaves the old file or none.

    Args:
        records: In order; relative paths are meant from `path`'s folder.
        path: A `.jsonl` or `.parquet` file; its folder is made.

    Returns:
        How many were written.

    Raises:
        TrainingError: If the name ends otherwise, is a folder's, or lies in a file.
        InputError: If the disk refuses the file.
    """
    if path.suffix not in SUFFIXES:
        raise TrainingError(f"cannot write {display_name(path)}", hint=f"its name must end in {' or '.join(SUFFIXES)}")
    write = write_rows if path.suffix == ".parquet" else _write_jsonl
    make_folder(path.parent)
    if path.is_dir():
        raise TrainingError(f"{display_name(path)} is a folder", hint="name a file")
    with atomic_path(path, what="the pairs") as part:
        return write(records, part)


def write_pairs(pairs: Iterable[TrainingPair], path: Path) -> int:
    """`write_records` for pairs.

    Media must be paths; a relative one is meant from the working folder and is rewritten for the file's folder.

    Raises:
        InputError: When a pair holds pixels.
    """
    return write_records((PairRecord.of(pair).moved(Path(), path.parent) for pair in pairs), path)


def _write_jsonl(records: Iterable[PairRecord], path: Path) -> int:
    count = 0
    with path.open("w", encoding="utf-8", newline="\n") as file:
        for count, record in enumerate(records, start=1):  # noqa: B007 - the last count is the answer
            file.write(record.line() + "\n")
    return count


def settle(file: IO[Any]) -> None:
    """Hand what was written to the disk."""
    file.flush()
    os.fsync(file.fileno())


def _lines(file: Path) -> Iterator[tuple[int, str | bytes]]:
    offset = 0
    with file.open("rb") as handle:
        for line in handle:
            yield offset, line
            offset += len(line)
