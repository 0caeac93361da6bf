from __future__ import annotations

from collections.abc import Iterator

import httpx
import pytest
from serve_world import make_index, served

from ume_serve import Settings


@pytest.fixture(scope="session")
def settings(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    return make_index(tmp_path_factory.mktemp("served"))


@pytest.fixture(scope="module")
def base(settings: Settings) -> Iterator[str]:
    with served(settings) as base:
        yield base


@pytest.fixture(scope="module")
def client(base: str) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=base, timeout=30) as client:
        yield client
