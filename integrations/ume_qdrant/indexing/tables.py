"""Read metadata of files from tables: CSV, JSON or JSON lines with a file name in each row."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from ume_qdrant.stores.metadata import clean_metadata
from ume_retrieval.errors import Failure, InputError
from ume_retrieval.util.files import display_name

NAME_COLUMNS: Final = ("file_name", "file")
"""Columns that name a row's file; the first one that exists counts."""

_INTEGER: Final = re.compile(r"-?(0|[1-9][0-9]{0,17})")
_DECIMAL: Final = re.compile(r"-?(0|[1-9][0-9]{0,14})\.[0-9]{1,15}")


@dataclass(slots=True)
class Table:
    """Metadata by file name.

    Attributes:
        source: Name of the table's file.
        rows: Metadata by file name.
        places: Place of each file's row in the table, such as "meta.csv line 3".
        failures: Rows that cannot be used.
    """

    source: str
    rows: dict[str, dict[str, Any]] = field(default_factory=dict)
    places: dict[str, str] = field(default_factory=dict)
    failures: list[Failure] = field(default_factory=list)

    def add(self, place: str, row: object) -> None:
        """Add a row, or a failure that names its place."""
        where = f"{self.source} {place}"
        try:
            self.put(where, *_split(row))
        except InputError as error:
            self.failures.append(Failure.of(error, index=0, source=where))

    def put(self, where: str, name: str, values: object) -> None:
        """Add the metadata of a file; a second row for a file replaces the first one and is named.

        Raises:
            InputError: If the values are not metadata.
        """
        if not isinstance(values, Mapping):
            raise InputError(f"metadata are an object of names and values, not {_shown(values)}")
        cleaned = clean_metadata(values)
        if name in self.rows:
            message = f"{name} has a row at {self.places[name]} already; this later one counts"
            self.failures.append(Failure(0, where, InputError.code, message, "keep one row for each file"))
        self.rows[name], self.places[name] = cleaned, where


def read_table(path: Path) -> Table:
    """Read a table of metadata: `.csv`, `.jsonl`, or `.json` (a list of rows, or an object by file name).

    A row names its file in the column `file_name` or `file`. All values of JSON keep their types. A column of a CSV
    file becomes booleans if all of its values are `true` or `false`, integers or decimal numbers if all are written
    plainly (no leading zeros, plus signs or exponents, at most 18 digits), else text; an empty value is left out.

    Raises:
        InputError: If the file cannot be read as a whole: another suffix, not UTF-8, no header, broken JSON.
    """
    shown = display_name(path)
    readers: dict[str, Callable[[Table, str], None]] = {".csv": _csv, ".jsonl": _jsonl, ".json": _json}
    reader = readers.get(path.suffix.lower())
    if reader is None:
        raise InputError(
            f"{shown} is not a table of metadata", hint=f"give a file that ends in {', '.join(sorted(readers))}"
        )
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is not UTF-8 text"
        raise InputError(f"the metadata {shown} cannot be read: {reason}", hint="check the path") from error
    table = Table(shown)
    reader(table, text)
    return table


def _split(row: object) -> tuple[str, dict[str, Any]]:
    """Return the file's name and the values of a row.

    Raises:
        InputError: If it is not an object, or names no file.
    """
    if not isinstance(row, Mapping):
        raise InputError(f"a row is an object of names and values, not {_shown(row)}")
    column = next((name for name in NAME_COLUMNS if name in row), "")
    name = row.get(column)
    if not isinstance(name, str) or not name.strip():
        raise InputError("the row names no file", hint=f"give the file in {' or '.join(NAME_COLUMNS)}")
    return name, {key: value for key, value in row.items() if key != column}


def _csv(table: Table, text: str) -> None:
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    header = _header(table, reader)
    rows: list[tuple[str, list[str]]] = []
    try:
        for row in reader:
            place = f"line {reader.line_num}"
            if not row:
                continue
            if len(row) != len(header):
                message = f"the row has {len(row)} values for {len(header)} columns"
                table.failures.append(Failure(0, f"{table.source} {place}", InputError.code, message, _QUOTES))
            else:
                rows.append((place, row))
    except csv.Error as error:
        place = f"{table.source} line {reader.line_num}"
        message = f"the rest cannot be read: {error}"
        table.failures.append(Failure(0, place, InputError.code, message, _QUOTES))
    columns = [_typed(name, [row[number] for _, row in rows]) for number, name in enumerate(header)]
    for number, (place, _) in enumerate(rows):
        values = {name: column[number] for name, column in zip(header, columns, strict=True)}
        table.add(place, {name: value for name, value in values.items() if value is not None})


_QUOTES: Final = "put values with commas, quotes or line breaks in double quotes"


def _header(table: Table, reader: Iterator[list[str]]) -> list[str]:
    try:
        header = [name.strip() for name in next(reader, [])]
    except csv.Error as error:
        raise InputError(f"{table.source} has no header: {error}", hint="name the columns in the first line") from error
    if not set(header) & set(NAME_COLUMNS) or len(set(header)) < len(header):
        raise InputError(
            f"the first line of {table.source} does not name the columns, each once",
            hint=f"name them there; {' or '.join(NAME_COLUMNS)} holds the file's name",
        )
    return header


def _typed(name: str, values: Sequence[str]) -> Sequence[str | int | float | bool | None]:
    """Convert a column of a CSV file; see `read_table`."""
    given = [value for value in values if value]
    convert: Callable[[str], str | int | float | bool] = str
    if name not in NAME_COLUMNS:
        if given and all(value in {"true", "false"} for value in given):
            convert = "true".__eq__
        elif given and all(_INTEGER.fullmatch(value) for value in given):
            convert = int
        elif given and all(_INTEGER.fullmatch(value) or _DECIMAL.fullmatch(value) for value in given):
            convert = float
    return [convert(value) if value else None for value in values]


def plain_value(text: str) -> str | int | float | bool:
    """Convert one text as a column of a CSV file that holds nothing else.

    Example:
        >>> plain_value("7"), plain_value("007"), plain_value("true"), plain_value("2.50"), plain_value("1e3")
        (7, '007', True, 2.5, '1e3')
    """
    [value] = _typed("", [text])
    return text if value is None else value


def _jsonl(table: Table, text: str) -> None:
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            message = f"the line is not JSON: {error}"
            failure = Failure(0, f"{table.source} line {number}", InputError.code, message, "write one object a line")
            table.failures.append(failure)
        else:
            table.add(f"line {number}", row)


def _json(table: Table, text: str) -> None:
    try:
        data = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InputError(
            f"{table.source} is not JSON: {error}", hint="write a list of rows, or rows by file"
        ) from error
    if isinstance(data, list):
        for number, row in enumerate(data, 1):
            table.add(f"row {number}", row)
    elif isinstance(data, dict):
        for name, values in data.items():
            where = f"{table.source} {name!r}"
            try:
                table.put(where, name, values)
            except InputError as error:
                table.failures.append(Failure.of(error, index=0, source=where))
    else:
        raise InputError(
            f"{table.source} is neither a list nor an object", hint="write a list of rows, or rows by file"
        )


def _shown(value: object) -> str:
    return "null" if value is None else f"a {type(value).__name__}"
