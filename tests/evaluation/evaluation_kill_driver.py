"""Runs two tasks over and over in processes of its own, each time killed some steps later, then once to the end.

Usage: evaluation_kill_driver.py DATA WORK STRIDE. A step is a call of a model or a write of the store; every STRIDE-th
step is a moment of death. Prints one JSON object: the outcome of a whole run, and of each killed and resumed one.
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

from ume_eval import Stored, VectorStore, choose, encoding, evaluate
from ume_retrieval import ReasoningEmbedder, Sampling, TraceCache
from ume_retrieval.chat import Chat
from ume_retrieval.engines.base import Embeddings, Generation
from ume_retrieval.testing import FakeReasoner, HashEmbedder

TASKS = ("MSCOCO_t2i", "ViDoRe_docvqa")


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


def watch_store(clock: Clock, log: Path) -> None:
    """Count writes as steps, and write down every key that is stored, to see whether one comes twice."""
    original = VectorStore.put_many

    def put_many(self: VectorStore, records: Mapping[str, Stored]) -> int:
        clock.tick()
        known = self.known(records)
        new = original(self, records)
        with log.open("a", encoding="utf-8") as lines:
            lines.writelines(f"{'again' if key in known else 'new'} {key}\n" for key in records)
        clock.tick()
        return new

    VectorStore.put_many = put_many  # type: ignore[method-assign]


def run(data: Path, work: Path, clock: Clock) -> None:
    encoding.CHUNK = 3
    watch_store(clock, work / "log")
    reasoner, embedder = TickingReasoner(), TickingEmbedder()
    reasoner.clock = embedder.clock = clock
    whole = ReasoningEmbedder(embedder, reasoner, cache=TraceCache(work / "traces.sqlite3"))
    evaluate(whole, choose("mmeb-v2", TASKS), data, work)


def outcome(data: Path, work: Path, last: int | None) -> dict[str, Any]:
    """What is there after a run that is killed at step `last` (None: not at all), and one that is not."""
    work.mkdir(parents=True)
    killed = False
    if last is not None:
        child = os.fork()
        if child == 0:
            run(data, work, Clock(last))
            os._exit(0)
        killed = os.WIFSIGNALED(os.waitpid(child, 0)[1])
    child = os.fork()
    if child == 0:
        clock = Clock(None)
        run(data, work, clock)
        (work / "steps").write_text(str(clock.steps), encoding="utf-8")
        os._exit(0)
    os.waitpid(child, 0)
    stored = (work / "log").read_text(encoding="utf-8").split()[::2]
    found = {
        "killed": killed,
        "steps": int((work / "steps").read_text(encoding="utf-8")),
        "tasks": json.loads((work / "results.json").read_text(encoding="utf-8"))["tasks"],
        "stored": stored.count("new"),
        "again": stored.count("again"),
    }
    shutil.rmtree(work)
    return found


def main() -> None:
    data, work = map(Path, sys.argv[1:3])
    whole = outcome(data, work / "run", None)
    moments = range(1, whole["steps"] + 1, int(sys.argv[3]))
    others = {step: outcome(data, work / "run", step) for step in moments}
    sys.stdout.write(json.dumps({"whole": whole, "killed": others}))


if __name__ == "__main__":
    main()
