"""Read rows of published layouts, write their media, and name broken rows."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

from pydantic import ValidationError

from ume_retrieval.errors import InputError, TrainingError
from ume_retrieval.media.formats import FORMAT_NAMED, HEAD_BYTES, IMAGE_FORMATS, sniff
from ume_retrieval.util.files import atomic_write, display_name
from ume_training.data.files import Located
from ume_training.data.parquet import parquet_dicts
from ume_training.data.records import ItemRecord, PairRecord
from ume_training.data.validation import PairError, pair_error

LEFT_OUT = frozenset({"HatefulMemes", "N24News", "VOC2007"})
"""Data sets that the paper leaves out of contrastive training: few labels, so in-batch negatives are often positives
(arXiv 2602.13823, supplement)."""


Row: TypeAlias = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Source:
    """Files of a layout, and the folders of its media.

    Attributes:
        path: A file, or a folder of files.
        media: Folder that relative paths in the rows start from; None takes the layout's own place for it.
        out: Folder of the pair file; pictures that are inside of rows are written below it.
        dataset: Name of the data set, or None for the layout's own.
        keep_all: Keep the data sets of `LEFT_OUT` too.
        left_out: Data sets that were met and left out.
    """

    path: Path
    out: Path
    media: Path | None = None
    dataset: str | None = None
    keep_all: bool = False
    left_out: set[str] = field(default_factory=set)

    @property
    def root(self) -> Path:
        """The folder that is read, or the file's folder."""
        return self.path if self.path.is_dir() else self.path.parent

    def row_name(self, file: Path, line: int) -> str:
        """Return an id for a row that has none, unlike that of any other row of the source."""
        return f"{file.relative_to(self.root).with_suffix('').as_posix()}-{line}"

    def files(self, *suffixes: str) -> tuple[Path, ...]:
        """Return the file itself, or all files below the folder with one of the suffixes, in the order of their paths.

        Raises:
            TrainingError: If no file is found.
        """
        if self.path.is_file():
            return (self.path,)
        found = tuple(sorted(file for file in self.path.rglob("*") if file.suffix in suffixes and file.is_file()))
        if not found:
            raise TrainingError(
                f"{display_name(self.path)} holds no {' or '.join(suffixes)} file", hint="check path and layout"
            )
        return found

    def leaves_out(self, dataset: str) -> bool:
        """Return whether to leave out a data set, as the paper does, and note its name."""
        if self.keep_all or dataset not in LEFT_OUT:
            return False
        self.left_out.add(dataset)
        return True

    def picture(self, value: Any) -> str:
        """Write a picture that a row holds as bytes, named by its content, and return its path from `out`.

        Args:
            value: `{"bytes": …, "path": …}` as the `datasets` library stores images, or bare bytes.

        Raises:
            InputError: When it holds no picture.
        """
        data = value.get("bytes") if isinstance(value, dict) else value
        if not isinstance(data, bytes):
            raise InputError("holds no picture")
        form = sniff(data[:HEAD_BYTES])
        if form is None or form not in IMAGE_FORMATS:
            raise InputError("holds bytes in no known picture format")
        name = hashlib.sha256(data).hexdigest()[:32]
        # Two levels, so that no folder holds half a million files.
        suffix, *_ = FORMAT_NAMED[form].suffixes.split()
        written = f"media/{name[:2]}/{name}{suffix}"
        path = self.out / written
        if not path.exists():
            atomic_write(path, data, what="a picture", durable=False)
        return written


Found: TypeAlias = Located | PairError
"""A pair with the row that it was read from, or what is wrong with the row. Paths are absolute, or start at `out`."""

Read: TypeAlias = Callable[[Source], Iterator[Found]]


@dataclass(frozen=True, slots=True)
class Layout:
    """A published layout.

    Attributes:
        name: As on the command line.
        hub: Where the data set is published.
        about: One line for people.
        read: Its reader.
    """

    name: str
    hub: str
    about: str
    read: Read


def read_rows(file: Path) -> Iterator[tuple[int, Any]]:
    """Yield rows of a file with their numbers, 1-based: Parquet, JSONL, or one JSON array.

    A line that is not JSON becomes its error.

    Raises:
        TrainingError: When the file cannot be read.
    """
    if file.suffix == ".parquet":
        yield from enumerate(parquet_dicts(file), start=1)
    elif file.suffix == ".jsonl":
        with file.open("rb") as lines:
            for number, line in enumerate(lines, start=1):
                if line.strip():
                    yield number, _json(line, file, number)
    else:
        yield from enumerate(json_array(file), start=1)


def _json(line: bytes, file: Path, number: int) -> Any:
    try:
        return json.loads(line.decode("utf-8"))
    except (ValueError, RecursionError) as error:
        return PairError(file, number, "", f"is not JSON: {error}")


def json_array(file: Path, chunk: int = 1 << 20) -> Iterator[Any]:
    """Yield elements of a file that is one JSON array, each parsed alone: released files hold hundreds of megabytes.

    Raises:
        TrainingError: If the file is not an array, or breaks off.
    """
    decoder = json.JSONDecoder()
    # Bytes that are not UTF-8 become lone surrogates, which no record takes: one element is refused, and the rest read.
    with file.open(encoding="utf-8", errors="surrogateescape") as handle:
        text, more = handle.read(chunk).lstrip("\ufeff \t\r\n"), True
        if not text.startswith("["):
            raise TrainingError(f"{display_name(file)} is not a JSON array")
        text, number = text[1:], 0
        while True:
            text = text.lstrip(" \t\r\n,")
            if text.startswith("]"):
                return
            try:
                value, end = decoder.raw_decode(text)
            except ValueError as error:
                wrong = str(error)
            except RecursionError as error:
                raise TrainingError(f"{display_name(file)}, element {number + 1}: {error}") from error
            else:
                # What was read may end inside a number: an element is whole when a comma or the array's end follows.
                if text[end:].lstrip(" \t\r\n")[:1] in {",", "]"}:
                    number += 1
                    yield value
                    text = text[end:]
                    continue
                wrong = "no comma and no end of the array after it"
            if not more:
                raise TrainingError(f"{display_name(file)} breaks off or is not JSON after element {number}: {wrong}")
            # Doubling keeps the work linear in the length of an element.
            added = handle.read(max(chunk, len(text)))
            text, more = text + added, bool(added)


def item(*, text: str | None = None, images: tuple[str, ...] = (), videos: tuple[Any, ...] = ()) -> dict[str, Any]:
    """Return one side of a pair as plain values; blank text becomes None."""
    return {"text": (text or "").strip() or None, "images": images, "videos": videos}


def found(file: Path, line: int, values: Mapping[str, Any]) -> Found:
    """Build a record, or return the row's error."""
    try:
        sides = {key: _side(one) for key, one in values.items()}
        return Located(PairRecord.model_validate(sides), file, line)
    except ValidationError as error:
        return pair_error(error, file, line)


def _side(value: Any) -> Any:
    if isinstance(value, tuple):
        return tuple(map(_side, value))
    return ItemRecord.model_validate(value) if isinstance(value, dict) else value


def under(media: Path, path: str) -> str:
    """Return a row's path as an absolute one."""
    return str((media / path).resolve())


def text_of(row: Row, key: str) -> str:
    """Return a text field; absent and null are empty.

    Raises:
        InputError: When it is something else.
    """
    value = row.get(key)
    if value is None:
        return ""
    if not isinstance(value, str):
        raise InputError(f"{key} is a {type(value).__name__} and no text")
    return value


def read_each(file: Path, convert: Callable[[Row, int], Found]) -> Iterator[Found]:
    """Convert every row of a file; a row that cannot be converted becomes its error."""
    for number, row in read_rows(file):
        if isinstance(row, PairError):
            yield row
        elif not isinstance(row, dict):
            yield PairError(file, number, "", f"is a {type(row).__name__} and no object")
        else:
            try:
                yield convert(row, number)
            except InputError as error:
                yield PairError(file, number, "", error.message, hint=error.hint)
