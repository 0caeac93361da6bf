"""Parquet as a form of pair file: the same records as rows, a row group in memory at a time."""

from __future__ import annotations

import json
from bisect import bisect_right
from collections.abc import Iterable, Iterator
from functools import lru_cache
from itertools import accumulate
from pathlib import Path
from typing import Any

from ume_retrieval.errors import MissingExtra, TrainingError
from ume_retrieval.util.files import display_name
from ume_training.data.records import PairRecord

PARQUET_ROWS = 1024
"""Rows of a Parquet row group: so many are in memory at once."""


def pyarrow_parquet() -> Any:
    """`pyarrow.parquet`.

    Raises:
        MissingExtra: When it is not installed.
    """
    try:
        import pyarrow.parquet
    except ImportError as error:
        raise MissingExtra("Parquet needs pyarrow", hint="pip install 'ume-retrieval[train]'") from error
    return pyarrow.parquet


def read_rows(file: Path) -> Iterator[tuple[int, str | bytes]]:
    """Return rows of a pair file as (row, JSON), 0-based.

    Raises:
        TrainingError: When the file cannot be read.
    """
    return ((row, _json(values)) for row, values in enumerate(parquet_dicts(file)))


def _json(values: dict[str, Any]) -> str:
    # What JSON cannot say (bytes, dates) becomes an object that no field takes, so that the row is named as wrong.
    return json.dumps(_bare(values), default=lambda value: {type(value).__name__: None})


def count_rows(file: Path) -> int:
    """Return how many rows a file has.

    Raises:
        TrainingError: When it cannot be read.
    """
    return int(_metadata(file).num_rows)


def _metadata(file: Path) -> Any:
    parquet = pyarrow_parquet()
    try:
        return parquet.read_metadata(file)
    except (OSError, ValueError) as error:
        raise _unreadable(file, error) from error


def _unreadable(file: Path, error: Exception) -> TrainingError:
    first_line = next(iter(str(error).splitlines()), type(error).__name__)
    return TrainingError(f"cannot read {display_name(file)}: {first_line}", hint="download or write it again")


class RowReader:
    """Reads single rows of pair files; the row groups read last stay in memory, so that neighbours cost nothing."""

    def __init__(self, kept: int = 4) -> None:
        self._group = lru_cache(maxsize=kept)(_group_of_rows)
        self._starts = lru_cache(maxsize=1024)(_group_starts)

    def read(self, file: Path, row: int) -> str:
        """Return one row as JSON, 0-based.

        Raises:
            TrainingError: When the file cannot be read.
        """
        starts = self._starts(file)
        group = bisect_right(starts, row) - 1
        return _json(self._group(file, group)[row - starts[group]])


def _group_of_rows(file: Path, group: int) -> list[dict[str, Any]]:
    return list(parquet_dicts(file, group=group))


def _group_starts(file: Path) -> list[int]:
    metadata = _metadata(file)
    return [0, *accumulate(metadata.row_group(i).num_rows for i in range(metadata.num_row_groups - 1))]


def parquet_dicts(file: Path, columns: list[str] | None = None, group: int | None = None) -> Iterator[dict[str, Any]]:
    """Yield rows of a Parquet file as dictionaries, `PARQUET_ROWS` at a time.

    Args:
        file: The file.
        columns: Which columns, or all.
        group: Only this row group.

    Raises:
        TrainingError: When it cannot be read.
    """
    parquet = pyarrow_parquet()
    try:
        with parquet.ParquetFile(file) as opened:
            groups = None if group is None else [group]
            for batch in opened.iter_batches(PARQUET_ROWS, row_groups=groups, columns=columns):
                yield from batch.to_pylist()
    except (OSError, ValueError) as error:
        raise _unreadable(file, error) from error


def _bare(value: Any) -> Any:
    """Without the empty fields that a table has for every row; a medium that is its path alone becomes the path."""
    if isinstance(value, list):
        return [_bare(one) for one in value]
    if not isinstance(value, dict):
        return value
    kept = {key: _bare(one) for key, one in value.items() if one is not None}
    return kept["path"] if set(kept) == {"path"} else kept


def write_rows(records: Iterable[PairRecord], path: Path) -> int:
    """Write records as a Parquet file and return how many there were."""
    parquet = pyarrow_parquet()
    import pyarrow as pa

    schema, count = _schema(pa), 0
    with parquet.ParquetWriter(path, schema) as writer:
        rows: list[dict[str, Any]] = []

        def write_group() -> None:
            writer.write_table(pa.Table.from_pylist(rows, schema=schema), row_group_size=PARQUET_ROWS)
            rows.clear()

        for count, record in enumerate(records, start=1):  # noqa: B007 - the last count is the answer
            rows.append(_row(record))
            if len(rows) == PARQUET_ROWS:
                write_group()
        if rows or not count:
            write_group()
    return count


def _row(record: PairRecord) -> dict[str, Any]:
    def item(values: dict[str, Any]) -> dict[str, Any]:
        media = {name: [{"path": one} if isinstance(one, str) else one for one in values[name]] for name in MEDIA}
        return {**values, **media}

    row = record.model_dump(mode="json")
    return {
        **row,
        "query": item(row["query"]),
        "positive": item(row["positive"]),
        "negatives": [item(negative) for negative in row["negatives"]],
    }


MEDIA = ("images", "videos")


def _schema(pa: Any) -> Any:
    """Build the schema. A medium has the fields of all kinds, mostly empty, because Parquet cannot store unions."""
    text, number = pa.string(), pa.float64()
    image = pa.struct([("path", text), ("page", pa.int32())])
    video = pa.struct(
        [("path", text), ("start_s", number), ("end_s", number), ("frames", pa.list_(text)), ("fps", number)]
    )
    item = pa.struct([("text", text), ("images", pa.list_(image)), ("videos", pa.list_(video)), ("instruction", text)])
    return pa.schema(
        [
            ("id", text),
            ("dataset", text),
            ("query", item),
            ("positive", item),
            ("negatives", pa.list_(item)),
            *((name, text) for name in ("group", "target", "query_tcot", "positive_tcot")),
            ("leaked", pa.bool_()),
        ]
    )
