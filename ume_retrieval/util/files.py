"""Replace files atomically: a reader sees the old content or the new one, never a part."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from uuid import uuid4

from ume_retrieval.errors import InputError

_DISK_ERRORS = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EROFS}
"""Failures of a write itself. Other errors of a writer, such as a lost connection, are not about the file."""


def atomic_write(path: str | Path, data: str | bytes, *, what: str = "the file", durable: bool = True) -> Path:
    """Write a file atomically, with its missing folders.

    Args:
        path: The file, replaced if it exists. A link is followed; a pipe or device is written to directly.
        data: Bytes, or text to write as UTF-8. A lone surrogate, which UTF-8 cannot hold, is written as its escape,
            as in JSON.
        what: Name of the file's role in an error, such as "the report".
        durable: Sync the file to disk before it replaces the old one. Without it a crash of the machine, not of the
            process, can lose the content: for thousands of files that can be made again.

    Returns:
        The file's path.

    Raises:
        InputError: If the file cannot be written; its previous content is kept.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     written = atomic_write(Path(folder) / "new" / "gate.json", "{}", what="the gate")
        ...     written.name, [file.name for file in written.parent.iterdir()]
        ('gate.json', ['gate.json'])
    """
    raw = data.encode("utf-8", "backslashreplace") if isinstance(data, str) else data
    with atomic_path(path, what=what, durable=durable) as part:
        try:
            part.write_bytes(raw)
        except OSError as error:
            raise _cannot_write(Path(path), what, error) from error
    return Path(path)


@contextmanager
def atomic_path(path: str | Path, *, what: str = "the file", durable: bool = True) -> Iterator[Path]:
    """Yield a temporary path for a writer; it replaces `path` once the block succeeds.

    The temporary file lies in the same folder under a unique name, so that writers never share one. It is removed if
    the block raises.

    Args:
        path: The file, replaced if it exists. A link is followed; a pipe or device is yielded itself.
        what: Name of the file's role in an error.
        durable: As in `atomic_write`.

    Raises:
        InputError: If the disk refuses the file; its previous content is kept. Other errors of the block pass through.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     with atomic_path(Path(folder) / "rows.txt") as part, part.open("w") as file:
        ...         _ = file.write("row")
        ...     [(file.name, file.read_text()) for file in Path(folder).iterdir()]
        [('rows.txt', 'row')]
    """
    target = Path(path)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        if target.is_dir():
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
        direct = target.exists() and not target.is_file()
        final = target if direct else target.resolve()
    except OSError as error:
        raise _cannot_write(target, what, error) from error
    # A name of at most 40 characters (160 bytes) leaves room for the rest within the 255 bytes of a file's name. The
    # file is opened by name, not by mkstemp, so that its permissions follow the umask as those of any other file.
    part = final if direct else final.with_name(f".{final.name[:40]}.{uuid4().hex}.tmp")
    try:
        yield part
        if not direct:
            if durable:
                _sync(part, os.O_RDWR)
            part.replace(final)
            if durable:
                with suppress(OSError):  # some file systems cannot sync a folder
                    _sync(final.parent, os.O_RDONLY)
    except OSError as error:
        if error.errno in _DISK_ERRORS or error.filename == str(part):
            raise _cannot_write(target, what, error) from error
        raise
    finally:
        if not direct:
            with suppress(OSError):
                part.unlink(missing_ok=True)


def _sync(path: Path, mode: int) -> None:
    descriptor = os.open(path, mode)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _cannot_write(target: Path, what: str, error: OSError) -> InputError:
    return InputError(
        f"cannot write {what} to {display_name(target)}: {error.strerror or type(error).__name__}",
        hint="choose a file in a folder that you may write to, with space left",
    )


def display_name(path: str | os.PathLike[str]) -> str:
    r"""Escape a path so that a terminal, a log or JSON can show it, without making two paths look the same.

    Printable characters are kept. A byte that is not UTF-8 becomes `\xNN`, any other character (controls, terminal
    escapes, text direction marks) `\uNNNN`, and a backslash is doubled.

    Example:
        >>> print(display_name("holiday\x1b[31m.jpg"), display_name("caf\udce9.jpg"))
        holiday\u001b[31m.jpg caf\xe9.jpg
    """
    return "".join(map(_display_character, os.fspath(path)))


def _display_character(character: str) -> str:
    code = ord(character)
    if character == "\\" and os.sep != "\\":
        return "\\\\"
    if character.isprintable():
        return character
    if 0xDC80 <= code <= 0xDCFF:
        return f"\\x{code - 0xDC00:02x}"
    return f"\\u{code:04x}" if code <= 0xFFFF else f"\\U{code:08x}"
