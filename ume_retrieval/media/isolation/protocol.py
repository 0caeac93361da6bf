"""Messages between this process and its decoding workers: a JSON header and raw bytes behind it.

Nothing is pickled: a worker that a hostile file has taken over can send wrong pixels and false numbers, not code.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

MAX_HEADER_BYTES = 4 * 1024**2
"""Far more than the times of `Limits.max_frames` frames need."""

_LENGTH = struct.Struct(">I")


class Reader(Protocol):
    """An unbuffered pipe that is read."""

    def readinto(self, buffer: memoryview, /) -> int | None:
        """Read at least one byte, or none at the end."""


class Writer(Protocol):
    """An unbuffered pipe that is written."""

    def write(self, data: bytes | memoryview, /) -> int | None:
        """Write some of the bytes."""


def send(pipe: Writer, header: Mapping[str, Any], bodies: Sequence[bytes] = ()) -> None:
    """Write one message; who reads it must know from the header how long each body is.

    Raises:
        OSError: When nobody reads any more.
    """
    text = json.dumps(header).encode("ascii")
    for part in (_LENGTH.pack(len(text)), text, *bodies):
        left = memoryview(part)
        while left:
            left = left[pipe.write(left) or 0 :]


def receive(pipe: Reader) -> dict[str, Any]:
    """Read a header; its bodies follow and are read with `receive_bytes`.

    Raises:
        EOFError: When the other side has gone.
        ValueError: When what came is no header.
    """
    [length] = _LENGTH.unpack(receive_bytes(pipe, _LENGTH.size))
    if length > MAX_HEADER_BYTES:
        raise ValueError(f"a header of {length} bytes")
    header = json.loads(receive_bytes(pipe, length))
    if not isinstance(header, dict):
        raise ValueError("a header that is no object")  # noqa: TRY004  # all that is malformed is a ValueError
    return header


def receive_bytes(pipe: Reader, count: int) -> bytearray:
    """Read exactly `count` bytes.

    Raises:
        EOFError: When the other side has gone before.
    """
    data = bytearray(count)
    left = memoryview(data)
    while left:
        got = pipe.readinto(left)
        if not got:
            raise EOFError(f"{len(left)} of {count} bytes are missing")
        left = left[got:]
    return data
