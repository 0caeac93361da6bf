"""Messages between processes that share a collection: JSON with vectors in base64, each preceded by its length.

No message can name code: only the values below are rebuilt, by their own constructors, so their checks apply.
"""

from __future__ import annotations

import base64
import datetime as dt
import json
import socket
import struct
from collections.abc import Callable, Iterator, Mapping
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any, Final, get_args

import numpy as np

from ume_qdrant.stores.base import Point, Scored
from ume_qdrant.stores.conditions import Condition
from ume_qdrant.stores.filters import Filter, Tenants
from ume_qdrant.stores.layout import SearchEffort
from ume_qdrant.stores.schema import CollectionMeta
from ume_retrieval.errors import StoreError, UmeError

TAG: Final = "$"
"""Key that marks a value which JSON does not have; the mapping holds its content under "value"."""

VALUES: Final[Mapping[str, type[Any]]] = {
    kind.__name__: kind for kind in (Point, Scored, Filter, SearchEffort, CollectionMeta, *get_args(Condition))
}
"""Dataclasses that messages may contain."""

TEXTS: Final[Mapping[str, tuple[type[Any], Callable[[Any], str], Callable[[str], Any]]]] = {
    "path": (Path, str, Path),
    "tenants": (Tenants, lambda tenants: str(tenants.value), Tenants),
    "datetime": (dt.datetime, dt.datetime.isoformat, dt.datetime.fromisoformat),
    "date": (dt.date, dt.date.isoformat, dt.date.fromisoformat),
}
"""Values that are sent as a text: their types, how they are written and read."""

LENGTH: Final = struct.Struct(">Q")

MOST_BYTES: Final = 1 << 30
"""Largest message; a page of 1,000 points with two vectors of 8,192 values has 90 MB."""

CHUNK: Final = 1 << 20


def pack(value: Any) -> bytes:
    """Encode a value of JSON, tuples, paths, float32 arrays and `VALUES`.

    Raises:
        TypeError: For any other value.

    Example:
        >>> unpack(pack({"where": Filter(kinds=("image",)), "ids": ("a", "b")}))["where"].kinds
        ('image',)
        >>> unpack(pack(np.ones(2, dtype=np.float32)))
        array([1., 1.], dtype=float32)
    """
    return json.dumps(_plain(value), ensure_ascii=True, separators=(",", ":")).encode()


def unpack(data: bytes) -> Any:
    """Decode what `pack` wrote.

    Raises:
        StoreError: If the bytes are no such message.
    """
    try:
        return _rebuilt(json.loads(data))
    except UmeError:
        raise
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise StoreError(f"a message of another process cannot be read: {error}") from error


def _plain(value: Any) -> Any:  # noqa: PLR0911  # one for each kind of value
    if value is None or isinstance(value, (str, bool, int, float)):
        return value
    if isinstance(value, np.ndarray):
        array = np.ascontiguousarray(value, dtype="<f4")
        return {TAG: "array", "value": [list(array.shape), base64.b64encode(array.tobytes()).decode()]}
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, list):
        return [_plain(one) for one in value]
    if isinstance(value, tuple):
        return {TAG: "tuple", "value": [_plain(one) for one in value]}
    for name, (kind, write, _) in TEXTS.items():
        if isinstance(value, kind):
            return {TAG: name, "value": write(value)}
    if isinstance(value, Mapping):
        # Pairs keep keys as they are, whatever they are called.
        return {TAG: "map", "value": [[_plain(key), _plain(one)] for key, one in value.items()]}
    if is_dataclass(value) and type(value).__name__ in VALUES:
        return {
            TAG: type(value).__name__,
            "value": {one.name: _plain(getattr(value, one.name)) for one in fields(value) if one.init},
        }
    raise TypeError(f"a {type(value).__name__} cannot be sent to another process")


def _rebuilt(value: Any) -> Any:  # noqa: PLR0911  # as above
    if isinstance(value, list):
        return [_rebuilt(one) for one in value]
    if not isinstance(value, dict):
        return value
    kind, content = value[TAG], value["value"]
    if kind == "array":
        shape, text = content
        return np.frombuffer(base64.b64decode(text), dtype="<f4").astype(np.float32).reshape(shape)
    if kind == "tuple":
        return tuple(_rebuilt(one) for one in content)
    if kind in TEXTS:
        return TEXTS[kind][2](content)
    if kind == "map":
        return {_rebuilt(key): _rebuilt(one) for key, one in content}
    return VALUES[kind](**{name: _rebuilt(one) for name, one in content.items()})


def send(connection: socket.socket, value: Any) -> None:
    """Send one message.

    Raises:
        OSError: If the connection is lost.
    """
    data = pack(value)
    connection.sendall(LENGTH.pack(len(data)) + data)


def receive(connection: socket.socket) -> Any:
    """Receive one message.

    Raises:
        EOFError: If the other side has closed the connection.
        OSError: If the connection is lost.
        StoreError: If it is no message.
    """
    (length,) = LENGTH.unpack(_exactly(connection, LENGTH.size))
    if length > MOST_BYTES:
        raise StoreError(f"a message of another process has {length} bytes", hint="read or write fewer points at once")
    return unpack(_exactly(connection, length))


def _exactly(connection: socket.socket, count: int) -> bytes:
    data = bytearray()
    while len(data) < count:
        part = connection.recv(min(CHUNK, count - len(data)))
        if not part:
            raise EOFError
        data += part
    return bytes(data)


def error_message(error: UmeError) -> dict[str, Any]:
    """Return an error as a message."""
    return {"error": error.code, "text": error.message, "hint": error.hint, "retryable": error.retryable}


def raise_error(message: Mapping[str, Any]) -> None:
    """Raise the error that a message reports, with its type; otherwise do nothing.

    Example:
        >>> from ume_retrieval.errors import StoreMismatch
        >>> raise_error(error_message(StoreMismatch("made with another model", hint="use that one")))
        Traceback (most recent call last):
        ume_retrieval.errors.StoreMismatch: made with another model
    """
    if "error" in message:
        kind = next((kind for kind in _kinds(UmeError) if kind.code == message["error"]), StoreError)
        raise kind(message["text"], hint=message["hint"], retryable=message["retryable"])


def _kinds(base: type[UmeError]) -> Iterator[type[UmeError]]:
    for kind in base.__subclasses__():
        yield kind
        yield from _kinds(kind)
