"""Parse JSON of strangers: servers, worker processes, and files that lie next to others."""

from __future__ import annotations

import json
from typing import Any


def parse_json(text: str | bytes | bytearray) -> Any:
    """Parse JSON; whatever is wrong with the text is a ValueError.

    The standard library raises RecursionError for a text nested a thousand levels deep, which no caller expects.

    Raises:
        ValueError: When the text is not JSON, not in a Unicode encoding, or nested too deeply.

    Example:
        >>> parse_json('{"width": 640}')
        {'width': 640}
        >>> parse_json("[" * 100_000)
        Traceback (most recent call last):
        ValueError: nested too deeply
    """
    try:
        return json.loads(text)
    except RecursionError:
        raise ValueError("nested too deeply") from None
