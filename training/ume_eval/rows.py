"""Find the rows of published test files on disk and read them from Parquet, JSON lines or JSON."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Final

from ume_eval.tasks import Task
from ume_retrieval.errors import InputError, MediaNotFound, MissingExtra
from ume_retrieval.media import display_name
from ume_retrieval.util.json_text import parse_json

SUFFIXES: Final = (".parquet", ".jsonl", ".json")
BATCH_ROWS: Final = 256
"""Rows of a Parquet file in memory at once; rows of a corpus hold pictures."""


class RowsNotFound(InputError):
    """A task's rows are not in the benchmark's folder."""

    code = "rows_not_found"


@dataclass(frozen=True, slots=True)
class Row:
    """One row: its file and number (`where`), and its columns; None if it could not be parsed."""

    where: str
    values: dict[str, Any] | None

    @property
    def columns(self) -> dict[str, Any]:
        """The columns; raises InputError when the row could not be parsed."""
        if self.values is None:
            raise InputError(f"{self.where} is not a JSON object", hint="download the file again")
        return self.values


@dataclass(frozen=True, slots=True)
class PictureCell:
    """A picture in a Parquet file, by row group and row in it; the image column is a struct with the field `bytes`."""

    file: Path
    group: int
    place: int
    column: str = "image"

    def read(self) -> bytes:
        """Return the encoded picture; raises MediaNotFound when the cell is empty or its file is gone."""
        try:
            stored = _pictures(self.file, self.group, self.column)[self.place]
        except (OSError, ValueError, IndexError, KeyError) as error:  # KeyError: column missing
            raise MediaNotFound(f"cannot read {display_name(self.file)}: {error}", hint="download it again") from error
        if not isinstance(stored, bytes) or not stored:
            raise MediaNotFound(f"{display_name(self.file)} row group {self.group} row {self.place}: no picture")
        return stored


@lru_cache(maxsize=2)
def _pictures(file: Path, group: int, column: str) -> list[Any]:
    """Read the pictures of a row group; cached, since neighbours are requested one after the other."""
    with _parquet_module().ParquetFile(file) as opened:
        cells = opened.read_row_group(group, columns=[column]).column(column).to_pylist()
    return [cell.get("bytes") if isinstance(cell, dict) else None for cell in cells]


def picture_cells(file: Path, key: str, column: str = "image") -> Iterator[tuple[Any, PictureCell]]:
    """Yield a column's value and the location of the picture of each row, without reading pictures."""
    try:
        with _parquet_module().ParquetFile(file) as opened:
            for group in range(opened.num_row_groups):
                values = opened.read_row_group(group, columns=[key]).column(key).to_pylist()
                yield from ((value, PictureCell(file, group, place, column)) for place, value in enumerate(values))
    except (OSError, ValueError, KeyError) as error:
        raise InputError(f"cannot read {display_name(file)}: {error}", hint="download the file again") from error


def find_rows(folder: Path, task: Task, configuration: str | None = None) -> list[Path]:
    """Find the files with a task's rows.

    Searches `FOLDER/<area>/<repository>` (the layout that the published code reads offline), then in
    `FOLDER/<owner>/<repository>` (a snapshot of the hub), then in `FOLDER/<area>`, where the area is the first part of
    the task's media folder, such as `video-tasks`.

    Args:
        folder: The benchmark's folder.
        task: The task.
        configuration: Replaces the task's own; "queries", "corpus" and "qrels" of page tasks.

    Raises:
        RowsNotFound: When no file is found; the hint is the download command.
    """
    repository, own, split = task.rows
    configuration = configuration or own
    area = folder / task.media.split("/")[0]
    name = repository.rpartition("/")[2]
    for root in (area / name, folder / repository, area):
        if files := _files(root, configuration, split, bare=root != area):
            return files
    raise RowsNotFound(
        f"{task.name}: no rows of {repository}{f' ({configuration})' if configuration else ''}",
        hint=f"hf download {repository} --repo-type dataset --local-dir {display_name(folder / repository)}",
    )


def _files(root: Path, configuration: str | None, split: str, *, bare: bool) -> list[Path]:
    """Return data files of a configuration and split; names on the hub contain both, either, or neither."""
    places = [root, root / "data"] if bare else []
    if configuration:
        places = [root / configuration, root / "data" / configuration, root / "json", *places]
    held = [_held(place, configuration) for place in places]
    of_split = ([file for file in files if split in re.split(r"[^A-Za-z0-9]+", file.name)] for files in held)
    return next((files for files in (*of_split, *held) if files), [])


def _held(place: Path, configuration: str | None) -> list[Path]:
    """Return data files in a folder, filtered by configuration unless the folder is the configuration's own."""
    files = sorted(file for file in place.iterdir() if file.suffix in SUFFIXES) if place.is_dir() else []
    if configuration is None or place.name == configuration:
        return files
    return [file for file in files if re.match(rf"{re.escape(configuration)}[-.]", file.name)]


def read_rows(files: Sequence[Path]) -> Iterator[Row]:
    """Yield every row of the files; a line that is not a JSON object becomes a row without values."""
    for file in files:
        try:
            yield from _parquet(file) if file.suffix == ".parquet" else _json(file)
        except (OSError, ValueError) as error:
            reason = next(iter(str(error).splitlines()), type(error).__name__)
            raise InputError(f"cannot read {display_name(file)}: {reason}", hint="download the file again") from error


def _parquet_module() -> Any:
    try:
        import pyarrow.parquet
    except ImportError as error:
        raise MissingExtra("Parquet needs pyarrow", hint="pip install 'ume-retrieval[eval]'") from error
    return pyarrow.parquet


def _parquet(file: Path) -> Iterator[Row]:
    number = 0
    with _parquet_module().ParquetFile(file) as opened:
        for batch in opened.iter_batches(batch_size=BATCH_ROWS):
            for values in batch.to_pylist():
                yield Row(f"{display_name(file.name)}:{number}", values)
                number += 1


def _json(file: Path) -> Iterator[Row]:
    name = display_name(file.name)
    if file.suffix == ".json":
        whole = parse_json(file.read_text(encoding="utf-8"))
        rows = whole if isinstance(whole, list) else [whole]
        yield from (Row(f"{name}:{n}", row if isinstance(row, dict) else None) for n, row in enumerate(rows))
        return
    with file.open(encoding="utf-8", errors="replace") as lines:
        for number, line in enumerate(lines):
            if line.strip():
                yield Row(f"{name}:{number}", _object(line))


def _object(line: str) -> dict[str, Any] | None:
    try:
        value = parse_json(line)
    except ValueError:
        return None
    return value if isinstance(value, dict) else None
