"""Models that take their worker with them at some of their calls."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ume_retrieval import Sampling
from ume_retrieval.chat import Chat
from ume_retrieval.engines.base import Embeddings, Generation
from ume_retrieval.testing import FakeReasoner, HashEmbedder


@dataclass(frozen=True)
class Hazard:
    """Kills the worker that it runs in at some of its calls; a folder remembers which calls there were."""

    folder: Path
    dies_at: tuple[int, ...]

    def strike(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        for number in range(10_000):
            try:
                (self.folder / str(number)).touch(exist_ok=False)
            except FileExistsError:
                continue
            if number in self.dies_at:
                os._exit(1)
            return


class MortalEmbedder(HashEmbedder):
    def __init__(self, hazard: Hazard) -> None:
        super().__init__()
        self._hazard = hazard

    def embed(self, chats: Sequence[Chat]) -> Embeddings:
        self._hazard.strike()
        return super().embed(chats)


class MortalReasoner(FakeReasoner):
    def __init__(self, hazard: Hazard) -> None:
        super().__init__()
        self._hazard = hazard

    def generate(self, chats: Sequence[Chat], sampling: Sampling) -> list[Generation]:
        self._hazard.strike()
        return super().generate(chats, sampling)
