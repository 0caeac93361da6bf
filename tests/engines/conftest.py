"""A stub server and the waits between requests to it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from server_stub import Stub, serving


@pytest.fixture
def stub() -> Iterator[Stub]:
    with serving() as server:
        yield server


@pytest.fixture
def naps() -> list[float]:
    return []
