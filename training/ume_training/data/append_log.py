"""Pair files that grow: what is written stays, and the same command goes on after a kill."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from ume_retrieval.errors import TrainingError
from ume_retrieval.util.files import atomic_write, display_name
from ume_training.data.files import PairReader, key_hash, settle
from ume_training.data.records import PairRecord
from ume_training.run_folder import changed_settings, make_folder


class RecordLog:
    """A JSONL pair file that grows: what is written stays, and a killed run goes on where it was.

    A last line without its end is what a kill left of a write; opening cuts it off.

    Args:
        path: The `.jsonl` file; made, with its folder, when it is not there.

    Attributes:
        done: Digests (`key_hash`) of the pairs that the file holds.
        cut: Bytes of a torn last line that were cut off.

    Raises:
        TrainingError: When the name does not end in .jsonl.
        PairError: When a line that is there is broken.
    """

    def __init__(self, path: Path) -> None:
        if path.suffix != ".jsonl":
            raise TrainingError(f"cannot append to {display_name(path)}", hint="its name must end in .jsonl")
        make_folder(path.parent)
        self.path = path
        self.cut = cut_torn_line(path)
        known = PairReader(path, media=False, rule="usable") if path.exists() else ()
        self.done = {key_hash(*located.record.key) for located in known}
        self._file = path.open("a", encoding="utf-8", newline="\n")

    def __contains__(self, record: PairRecord) -> bool:
        return key_hash(*record.key) in self.done

    def append(self, records: Iterable[PairRecord]) -> None:
        """Write records and hand them to the system, in one piece."""
        added = list(records)
        self._file.write("".join(record.line() + "\n" for record in added))
        settle(self._file)
        self.done.update(key_hash(*record.key) for record in added)

    def close(self) -> None:
        """Close the file."""
        self._file.close()


def cut_torn_line(path: Path) -> int:
    """Cut off an incomplete last line, and return how many bytes it had."""
    if not path.exists():
        return 0
    with path.open("r+b") as file:
        end = size = file.seek(0, os.SEEK_END)
        tail = b""
        while end and b"\n" not in tail:
            start = max(0, end - 65_536)
            file.seek(start)
            tail = file.read(end - start)
            end = start
        keep = end + tail.rfind(b"\n") + 1
        file.truncate(keep)
    return size - keep


def claim(out: Path, identity: dict[str, Any], *, resume: bool) -> None:
    """Make sure that a growing file is new, or was begun by the same settings (named in its `.run.json`).

    Raises:
        TrainingError: When it is neither.
    """
    make_folder(out.parent)
    settings_file = out.with_name(f"{out.name}.run.json")
    if out.exists() and not resume:
        raise TrainingError(f"{display_name(out)} exists", hint="go on with --resume, or name another file")
    if out.is_dir() or (out.exists() and out.stat().st_size and not settings_file.exists()):
        raise TrainingError(
            f"{display_name(out)} was not begun by this command: {display_name(settings_file)} is not there",
            hint="name another file",
        )
    if out.exists() and settings_file.exists():
        try:
            before = json.loads(settings_file.read_text(encoding="utf-8"))
        except ValueError:
            before = None
        if before != identity:
            changed = changed_settings(before if isinstance(before, dict) else {}, identity)
            raise TrainingError(
                f"{display_name(out)} was begun with other settings ({', '.join(changed) or 'unreadable'})",
                hint="name another file, or take the settings that it was begun with",
            )
    atomic_write(settings_file, json.dumps(identity, indent=2) + "\n", what="the settings")
