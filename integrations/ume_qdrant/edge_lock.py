"""A hold on a collection's folder, taken before Qdrant Edge looks at it and kept until it has let go.

The engine locks its log too, but only after it has read the segments: a process that reads them while another flushes
and closes would get the log with the segments of before, and write these back when it closes.
"""

from __future__ import annotations

import os
import weakref
from pathlib import Path
from typing import Final

LOCK_FILE: Final = ".lock"


class Hold:
    """An exclusive hold on a folder, against other processes and other holders in this one.

    Where the system has no such locks, the engine's own must do.

    Args:
        folder: The folder; it must be there.

    Raises:
        BlockingIOError: When somebody else holds it.

    Example:
        >>> import tempfile
        >>> folder = Path(tempfile.mkdtemp())
        >>> first = Hold(folder)
        >>> try:
        ...     Hold(folder)
        ... except BlockingIOError:
        ...     print("held")
        held
        >>> first.release()
        >>> Hold(folder).release()
    """

    def __init__(self, folder: Path) -> None:
        descriptor = os.open(folder / LOCK_FILE, os.O_RDWR | os.O_CREAT)
        self._close = weakref.finalize(self, os.close, descriptor)
        try:
            import fcntl
        except ImportError:
            return
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            self._close()
            raise

    def release(self) -> None:
        """Let go; once more is no error."""
        self._close()
