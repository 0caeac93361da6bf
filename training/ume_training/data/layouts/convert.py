"""From a published layout to the pair schema."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path
from types import MappingProxyType
from typing import cast

from ume_retrieval.errors import Failure, InputError
from ume_training.data.files import Located, PairReader, key_hash, write_records
from ume_training.data.layouts import documents, embed_rl, llava_hound, mmeb
from ume_training.data.layouts.base import Found, Layout, Source
from ume_training.data.records import PairRecord
from ume_training.data.validation import OnError, PairError, forget_media, media_fault, tcot_faults


def _read_pairs(source: Source) -> Iterator[Found]:
    """Pair files themselves: another format, other shards, another folder."""
    taken = set[int]()
    for found, _ in PairReader(source.path, media=False, rule="usable").found():
        if isinstance(found, PairError):
            yield found
        else:
            record = found.record.moved(found.folder, source.out)
            if not source.leaves_out(record.dataset):
                yield replace(found, record=_renamed(record, source.dataset, taken) if source.dataset else record)


def _renamed(record: PairRecord, dataset: str, taken: set[int]) -> PairRecord:
    """Move the record to another data set; a duplicate id is prefixed with the original data set."""
    name = f"{record.dataset}/{record.id}" if key_hash(dataset, record.id) in taken else record.id
    taken.add(key_hash(dataset, name))
    return record.model_copy(update={"dataset": dataset, "id": name})


_PAIRS = Layout("pairs", "", "a pair file, into the other format or into one file", _read_pairs)
_ALL = (mmeb.LAYOUT, *llava_hound.LAYOUTS, *documents.LAYOUTS, embed_rl.LAYOUT, _PAIRS)

LAYOUTS: Mapping[str, Layout] = MappingProxyType({layout.name: layout for layout in _ALL})
"""Every layout by its name on the command line."""


@dataclass(slots=True)
class Converted:
    """Counts of a conversion.

    Attributes:
        pairs: Pairs written.
        datasets: Pairs of each data set.
        failures: Rows that were left out.
        left_out: Data sets that were met and that the paper leaves out of contrastive training.
    """

    pairs: int = 0
    datasets: Counter[str] = field(default_factory=Counter)
    failures: list[Failure] = field(default_factory=list)
    left_out: tuple[str, ...] = ()


def convert(
    layout: str,
    path: Path,
    out: Path,
    *,
    media: Path | None = None,
    dataset: str | None = None,
    keep_all: bool = False,
    on_error: OnError = "skip",
    limit: int | None = None,
    on_progress: Callable[[int], None] | None = None,
) -> Converted:
    """Read a published data set and write it as a pair file, whole or not at all.

    Media stay where they are and are named by absolute paths; pictures inside Parquet rows are written
    into `media/` next to `out`. T-CoTs are taken as they are when they have words; the filter sorts malformed ones out.

    Args:
        layout: Name of a layout of `LAYOUTS`.
        path: The downloaded file or folder.
        out: A `.jsonl` or `.parquet` file.
        media: Folder that the rows' paths start from, when it is not the layout's own.
        dataset: Name for all pairs, instead of the layout's own.
        keep_all: Keep HatefulMemes, N24News and VOC2007, which the paper leaves out of contrastive training.
        on_error: "stop" at the first row that cannot be used, or "skip" and name it.
        limit: Most pairs in all.
        on_progress: Called with the number of pairs so far.

    Raises:
        InputError: If the layout is unknown.
        PairError: For the first broken row, if `on_error` is "stop".
        TrainingError: When files cannot be read or written.
    """
    if layout not in LAYOUTS:
        raise InputError(f"unknown layout {layout!r}", hint=f"use one of {', '.join(LAYOUTS)}")
    result = Converted()
    source = Source(path=path, out=out.parent, media=media, dataset=dataset, keep_all=keep_all)
    forget_media()

    def usable() -> Iterator[PairRecord]:
        for one in LAYOUTS[layout].read(source):
            fault = one if isinstance(one, PairError) else _fault(one, out.parent)
            if fault is None:
                record = cast("Located", one).record
                result.datasets[record.dataset] += 1
                yield record
            elif on_error == "stop":
                raise fault
            else:
                result.failures.append(fault.failure())
            if on_progress is not None:
                on_progress(result.datasets.total())

    result.pairs = write_records(islice(usable(), limit), out)
    result.left_out = tuple(sorted(source.left_out))
    return result


def _fault(located: Located, folder: Path) -> PairError | None:
    fault = media_fault(located.record, folder) or next(tcot_faults(located.record, "usable"), None)
    return PairError(located.file, located.line, *fault) if fault else None
