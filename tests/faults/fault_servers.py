"""Servers of models and of Qdrant that fail in every way, while a folder is indexed into them over and over.

    fault_servers.py WORK --rounds 30 [--seed 0]

In each round every answer may be spoilt: 429, 500, 503, half a body, garbage, nothing, an answer that is lost after the
work was done, the wrong number of vectors; some servers go away in the middle and come back, or refuse the key for a
while. The same command is given until nothing is left to do; then points are compared with those of a run over servers
that never fail. Nothing waits in truth. Prints counts as JSON.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import random
import re
import signal
import sys
import traceback
import warnings
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from fault_qdrant import FAULTS, Engine, Fault, QdrantServer
from fault_work import MODES, Counts, Journal, Mode, Records, compare, dump, note, run
from server_stub import EMBED_RL, INFO, KEY, Reply, Stub, completion, connect, embedding, reasoner_on, reply, serving
from small_media import fill

from ume_qdrant import Store, open_store
from ume_retrieval import ReasoningEmbedder, TCot, TraceCache, UmeError
from ume_retrieval.engines.server.embedder import ServerEmbedder
from ume_retrieval.tcot import render
from ume_retrieval.util.retry import Retry

DIMENSION = 16
MOST_TRIES = 60
ROUND_S = 300
MODEL_FAULTS = (*FAULTS, "no vector", "two vectors", "short vector", "no number", "wrong key")


class ModelServer:
    """A Reasoner and an Embedder behind HTTP; the same request gets the same answer."""

    def __init__(self, stub: Stub, rng: random.Random, rate: float) -> None:
        self.stub, self.rng, self.rate = stub, rng, rate
        self.injected: Counter[str] = Counter()
        stub.answer = self.answer

    def answer(self, path: str, body: dict[str, Any]) -> Reply | None:
        """The right answer, or one that is spoilt."""
        fault = self.rng.choice(MODEL_FAULTS) if self.rng.random() < self.rate else None
        if fault is not None:
            self.injected[fault] += 1
        digest = hashlib.sha256(json.dumps(body.get("messages"), sort_keys=True).encode()).digest()
        if path.endswith("/embeddings"):
            values = [byte / 255 + 0.01 for byte in digest[:DIMENSION]]
            right: Any = embedding(*values)
            match fault:
                case "no vector":
                    right = {**right, "data": []}
                case "two vectors":
                    right = {**right, "data": right["data"] * 2}
                case "short vector" if "dimension" not in json.dumps(body):  # the first word decides for the collection
                    right = embedding(*values[:3])
                case "no number":
                    right = embedding(*values[:-1], float("nan"))
        elif path == "/v1/models":
            right = {"data": [{"id": self.stub.model, "owned_by": self.stub.owner}]}
        else:
            right = completion(render(TCot("Seen.", "Yes.", f"thing {digest.hex()[:6]}", keywords=("thing",))))
            if fault in {"no vector", "no number"}:
                right["choices"] = []
        return _spoilt(right, fault)


def _spoilt(right: Any, fault: str | None) -> Reply | None:
    text = json.dumps(right).encode()
    match fault:
        case "nothing" | "answer lost":
            return None
        case "429" | "500" | "503":
            return reply({"error": {"message": "not now"}}, int(fault), Retry_After="0")
        case "half":
            return 200, text[: len(text) // 2], {"Content-Length": str(len(text))}
        case "garbage":
            return 200, b"<html>\x00\xff please log in</html>", {}
        case "wrong key":
            return reply({"error": {"message": f"Incorrect API key provided: {KEY}"}}, 401)
        case _:
            return 200, text, {}


def embedder_on(stub: Stub, cache: Path) -> ReasoningEmbedder:
    """Both models on the stub; connecting may fail as anything else may."""
    naps: list[float] = []
    return ReasoningEmbedder(
        ServerEmbedder(connect(stub, naps), info=INFO, spec=EMBED_RL), reasoner_on(stub, naps), cache=TraceCache(cache)
    )


def store_on(url: str) -> Store:
    """The collection on the server."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Api key is used with an insecure connection")
        return open_store(url, "films", api_key=KEY, timeout_s=20, retry=Retry(4, sleep=lambda _: None))


class Qdrant:
    """A Qdrant server that may fail, go away and come back with its points."""

    def __init__(self, rng: random.Random, rate: float, *, dies: bool) -> None:
        self.rng, self.rate = rng, rate
        self.engine, self.faults, self.deaths = Engine(), 0, 0
        self._left = rng.randint(5, 40) if dies else None
        self.server = QdrantServer(self._choose, engine=self.engine)
        self._port = self.server.server.server_port

    def _choose(self) -> Fault | None:
        if self._left is not None:
            self._left -= 1
            if self._left <= 0:
                return "nothing"  # from now on nobody answers, until it is started again
        if self.rng.random() >= self.rate:
            return None
        return "wrong key" if self.rng.random() < 0.1 else self.rng.choice(FAULTS)

    def stop(self) -> None:
        """Go away for good."""
        self.server.stop()

    def restart(self) -> None:
        """Go away in truth, and come back on the same port."""
        self.faults += self.server.faults
        self.deaths += 1
        self.server.stop()
        self._left = self.rng.randint(20, 80) if self.rng.random() < 0.5 else None
        self.server = QdrantServer(self._choose, self._port, self.engine)


@contextmanager
def watched(seconds: int) -> Iterator[None]:
    """Whoever hangs is interrupted."""

    def late(*_: object) -> None:
        raise TimeoutError(f"more than {seconds} s")

    signal.signal(signal.SIGALRM, late)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)


def once(folder: Path, work: Path, mode: Mode, seed: str, *, rate: float) -> tuple[Records, Counts]:
    """Index until nothing is left to do; with `rate` 0 the first time suffices."""
    rng, counts = random.Random(seed), Counts()
    dies = rate > 0 and rng.random() < 0.5
    with ExitStack() as stack:
        stub = stack.enter_context(serving())
        model = ModelServer(stub, random.Random(f"{seed} model"), rate)
        qdrant = Qdrant(random.Random(f"{seed} qdrant"), rate, dies=dies)
        stack.callback(qdrant.stop)
        tries = 0
        while True:
            tries += 1
            if tries > MOST_TRIES / 2:  # trouble passes
                model.rate = qdrant.rate = rate / 4
            try:
                with store_on(qdrant.server.url) as store:
                    failed = run(embedder_on(stub, work / "traces.sqlite3"), store, folder, mode)
            except UmeError as error:
                _check_words(error, counts)
                failed = [error.code]
            if not failed or tries > MOST_TRIES:
                break
            if dies:
                qdrant.restart()
        # A reply that says nothing was refused by the model's own server: such points are marked, and asked for again.
        qdrant.rate = 0.0
        qdrant.restart()
        qdrant._left = None
        with store_on(qdrant.server.url) as store:
            points = dump(store)
        counts.faults = qdrant.faults + model.injected.total()
        counts.notes = {"tries": tries, "server_deaths": qdrant.deaths - 1}
        counts.notes |= {f"fault_{name}": number for name, number in model.injected.items()}
        if failed:
            counts.lost += 1
            counts.broken.append(f"{seed}: not done after {tries} tries: {failed}")
    return points, counts


def _check_words(error: UmeError, counts: Counts) -> None:
    words = f"{error.message} {error.hint} {error!r}"
    if KEY in words or not error.message.isprintable():
        counts.crashes += 1
        counts.broken.append(f"an error shows what it must not: {re.sub(KEY, '***', words)}")


def main() -> None:
    arguments = argparse.ArgumentParser()
    arguments.add_argument("work", type=Path)
    arguments.add_argument("--rounds", type=int, default=30)
    arguments.add_argument("--seed", type=int, default=0)
    given = arguments.parse_args()
    given.work.mkdir(parents=True, exist_ok=True)
    work = given.work.resolve()
    folder = work / "things"
    if not folder.exists():
        fill(folder)
    journal, total = Journal(work / "servers.jsonl"), Counts()
    wanted: dict[Mode, Records] = {}
    for number in range(given.rounds):
        mode = MODES[number % len(MODES)]
        name = f"{given.seed}-{number}-{mode}"
        if journal.get(name) is None:
            counts = Counts()
            (work / name).mkdir(exist_ok=True)
            for old in (work / name).iterdir():
                old.unlink()
            try:
                with watched(ROUND_S):
                    if mode not in wanted:
                        (work / mode).mkdir(exist_ok=True)
                        wanted[mode], _ = once(folder, work / mode, mode, f"whole {mode}", rate=0.0)
                    rate = random.Random(name).choice((0.02, 0.1, 0.3))
                    found, counts = once(folder, work / name, mode, name, rate=rate)
                lost, doubled = compare(found, wanted[mode])
                counts.lost += lost
                counts.doubled += doubled
                if lost or doubled:
                    counts.broken.append(f"{name}: {lost} lost, {doubled} doubled")
            except TimeoutError:
                counts.hangs += 1
                counts.broken.append(f"{name}: hung: {traceback.format_exc()[-600:]}")
            except Exception:  # noqa: BLE001  # whatever comes through is what is looked for
                counts.crashes += 1
                counts.broken.append(f"{name}: {traceback.format_exc()[-600:]}")
            journal.put(name, counts)
        total.add(journal.get(name) or {})
        note(f"servers: {number + 1} of {given.rounds} rounds, {total.faults} faults, {len(total.broken)} broken")
    total.print()


if __name__ == "__main__":
    main()
    sys.exit()
