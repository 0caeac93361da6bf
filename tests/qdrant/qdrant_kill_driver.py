"""Indexes a folder over and over in processes of its own, each time killed some steps later, then once to the end.

Usage: qdrant_kill_driver.py FOLDER BEFORE WORK STRIDE. BEFORE holds the store and the traces to begin with; every
STRIDE-th step is a moment of death. Prints one JSON object: the outcome of a whole run, and of a killed and a second
run for each moment.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

sys.path.append(str(Path(__file__).parents[1]))  # a script finds the helpers of all rooms itself

from kill_clock import Clock  # found by the path above

from ume_qdrant import EdgeStore, Point, export, index
from ume_retrieval import ReasoningEmbedder, Sampling, TraceCache
from ume_retrieval.chat import Chat
from ume_retrieval.engines.base import Embeddings, Generation
from ume_retrieval.pipeline.trace_cache import TraceRecord
from ume_retrieval.testing import FakeReasoner, HashEmbedder


class TickingStore(EdgeStore):
    clock: Clock

    def upsert(self, points: Sequence[Point]) -> None:
        self.clock.tick()
        super().upsert(points)
        self.clock.tick()

    def update(self, points: Sequence[Point]) -> None:
        self.clock.tick()
        # One by one: the engine takes several operations for an update, and may be killed between them.
        for point in points:
            super().update([Point(point.id, point.vectors, {})])
            self.clock.tick()
            super().update([Point(point.id, {}, point.payload)])
            self.clock.tick()

    def delete(self, ids: Sequence[str]) -> None:
        self.clock.tick()
        super().delete(ids)
        self.clock.tick()


class TickingReasoner(FakeReasoner):
    clock: Clock

    def generate(self, chats: Sequence[Chat], sampling: Sampling) -> list[Generation]:
        self.clock.tick()
        return super().generate(chats, sampling)


class TickingEmbedder(HashEmbedder):
    clock: Clock

    def embed(self, chats: Sequence[Chat]) -> Embeddings:
        self.clock.tick()
        return super().embed(chats)


class TickingCache(TraceCache):
    """Also writes down every key that it is given, to see whether one comes twice."""

    clock: Clock

    def put_many(self, records: Mapping[str, TraceRecord]) -> None:
        super().put_many(records)
        with Path(f"{self.path}.log").open("a", encoding="utf-8") as log:
            log.writelines(f"{key}\n" for key in records)
        self.clock.tick()


def run(folder: Path, work: Path, clock: Clock) -> None:
    """Index the folder into a store under `work`."""
    reasoner, embedder, cache = TickingReasoner(), TickingEmbedder(), TickingCache(work / "traces.sqlite3")
    with TickingStore(work / "vectors", "things") as store:
        for part in (reasoner, embedder, cache, store):
            part.clock = clock
        index(ReasoningEmbedder(embedder, reasoner, cache=cache), store, folder, reasoning="always", batch_size=3)


def outcome(folder: Path, before: Path, work: Path, last: int | None) -> dict[str, Any]:
    """What is there after a run that is killed at step `last` (None: not at all), and one that is not."""
    shutil.copytree(before, work)
    killed = False
    if last is not None:
        child = os.fork()
        if child == 0:
            run(folder, work, Clock(last))
            os._exit(0)
        killed = os.WIFSIGNALED(os.waitpid(child, 0)[1])
    clock = Clock(None)
    # In a child too: an engine that was opened here must not be forked.
    child = os.fork()
    if child == 0:
        run(folder, work, clock)
        with EdgeStore(work / "vectors", "things") as store:
            points = list(export(store, vectors=True))
        keys = Path(work / "traces.sqlite3.log").read_text(encoding="utf-8").split()
        found = {"steps": clock.steps, "points": points, "twice": len(keys) - len(set(keys))}
        (work / "outcome.json").write_text(json.dumps(found), encoding="utf-8")
        os._exit(0)
    os.waitpid(child, 0)
    found = json.loads((work / "outcome.json").read_text(encoding="utf-8"))
    shutil.rmtree(work)
    return {"killed": killed, **found}


def main() -> None:
    folder, before, work = map(Path, sys.argv[1:4])
    stride = int(sys.argv[4])
    whole = outcome(folder, before, work, None)
    others = {step: outcome(folder, before, work, step) for step in range(1, whole["steps"] + 1, stride)}
    sys.stdout.write(json.dumps({"whole": whole, "killed": others}))


if __name__ == "__main__":
    main()
