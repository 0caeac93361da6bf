"""Files that are written whole or not at all."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

from ume_retrieval.errors import InputError
from ume_retrieval.media.files import display_name


def write_whole(path: str | Path, content: str | bytes, *, what: str) -> Path:
    """Write a file beside its place and move it there: who reads sees the old file or the new one, never half of it.

    Args:
        path: The file, replaced if it exists; missing folders are made.
        content: Bytes, or words to write as UTF-8. A lone surrogate, which UTF-8 does not have, is written as its
            escape, such as JSON has it.
        what: What an error calls it, such as "the report".

    Returns:
        The file's path.

    Raises:
        InputError: When the file cannot be written; what was there before is as it was.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     written = write_whole(Path(folder) / "new" / "gate.json", "{}", what="the gate")
        ...     written.name, [file.name for file in written.parent.iterdir()]
        ('gate.json', ['gate.json'])
    """
    target = Path(path)
    data = content.encode("utf-8", "backslashreplace") if isinstance(content, str) else content
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        if target.exists() and not target.is_file():
            target.write_bytes(data)  # a pipe or a device is written to, never replaced
        else:
            _replace(target.resolve(), data)
    except OSError as error:
        raise InputError(
            f"cannot write {what} to {display_name(target)}: {error.strerror or type(error).__name__}",
            hint="choose a file in a folder that you may write to, with space left",
        ) from error
    return target


def _replace(target: Path, data: bytes) -> None:
    aside = target.with_name(f".{target.name[:100]}.{os.getpid()}")
    try:
        aside.write_bytes(data)
        aside.replace(target)
    finally:
        with suppress(OSError):
            aside.unlink(missing_ok=True)
