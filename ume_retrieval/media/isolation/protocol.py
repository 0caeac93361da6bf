"""Exchange messages with decoding workers: a JSON header followed by raw bytes.

Messages are not pickled: a worker that a hostile file controls can send wrong pixels and numbers, but not code.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from ume_retrieval.util.json_text import parse_json

MAX_HEADER_BYTES = 4 * 1024**2
"""Enough for the times of `Limits.max_frames` frames."""

_LENGTH = struct.Struct(">I")


class PipeReader(Protocol):
    """An unbuffered pipe for reading."""

    def readinto(self, buffer: memoryview, /) -> int | None:
        """Read at least one byte; 0 at the end."""


class PipeWriter(Protocol):
    """An unbuffered pipe for writing."""

    def write(self, data: bytes | memoryview, /) -> int | None:
        """Write some of the bytes."""


def send(pipe: PipeWriter, header: Mapping[str, Any], bodies: Sequence[bytes] = ()) -> None:
    """Write one message; the header must tell the reader the length of each body."""
    text = json.dumps(header).encode("ascii")
    for part in (_LENGTH.pack(len(text)), text, *bodies):
        left = memoryview(part)
        while left:
            left = left[pipe.write(left) or 0 :]


def receive(pipe: PipeReader) -> dict[str, Any]:
    """Read a header; read the bodies that follow with `receive_bytes`.

    Raises:
        EOFError: When the pipe is closed.
        ValueError: When the header is malformed.
    """
    [length] = _LENGTH.unpack(receive_bytes(pipe, _LENGTH.size))
    if length > MAX_HEADER_BYTES:
        raise ValueError(f"a header of {length} bytes")
    header = parse_json(receive_bytes(pipe, length))
    if not isinstance(header, dict):
        raise ValueError("the header is not an object")  # noqa: TRY004  # any malformed message is a ValueError
    return header


def receive_bytes(pipe: PipeReader, count: int) -> bytearray:
    """Read exactly `count` bytes; raises EOFError when the pipe is closed before."""
    data = bytearray(count)
    left = memoryview(data)
    while left:
        got = pipe.readinto(left)
        if not got:
            raise EOFError(f"{len(left)} of {count} bytes are missing")
        left = left[got:]
    return data
