"""What does indexing through Ray cost against one process with the same Embedder, and does it lose or double anything?

A folder of 5,000 small texts and pictures of Shapes goes through `ume_qdrant.index` and through `ume_ray.index` with
one Embedder each (the bundled one, direct pass) into Qdrant Edge; then through `ume_ray.index` again while workers die:
an Embedder in the middle of a batch, several times, and a reader that is killed from outside. Points of all three
collections are compared: ids, payloads, vectors. With `--reasoning always`, the bundled pair: one Reasoner more each.

Costs are processor seconds of all processes (the driver, Ray's own, the workers), so that a busy machine disturbs
little, and wall-clock seconds beside them. What a run costs whatever its length (starting workers, loading the model)
shows with 1,000 items and is reported apart: `overhead` is of the items between the two sizes, `overhead_with_start`
of the whole run. A start's cost varies by seconds, so each size runs several times, in turns; medians.

    python benchmarks/ray_index.py [--items 5000] [--reasoning never|always] [--repeats N] [--quick]

The last line printed is one JSON object.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import tempfile
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any, Literal, TypeAlias

from bench_corpus import WORDS
from bench_measure import finish, machine, note

Reasoning: TypeAlias = Literal["never", "always"]

FEW = 1_000

POOLS: dict[str, Any] = {"embedders": 1, "cpus": 0.25, "files_a_task": 256, "items_a_call": 256}
"""One model of a kind, and batches as one process makes them: small files are many a task."""

DEATHS = (3, 8, 15)
"""Calls of the Embedder at which its process ends."""


def write_files(folder: Path, count: int) -> Path:
    """Texts of 12 words and, every fifth, a picture of Shapes; 500 a folder."""
    from ume_training.shapes.draw import draw_scene
    from ume_training.shapes.levels import LEVELS
    from ume_training.shapes.world import sample_scene

    rng = random.Random(count)
    for number in range(count):
        place = folder / str(number // 500)
        place.mkdir(parents=True, exist_ok=True)
        if number % 5 == 0:
            draw_scene(sample_scene(rng, LEVELS["default"]), rng).save(place / f"{number}.png")
        else:
            text = " ".join(rng.choice(WORDS) for _ in range(12))
            (place / f"{number}.txt").write_text(f"{text} {number}", encoding="utf-8")
    return folder


@dataclass(frozen=True)
class Cost:
    """Processor and wall-clock seconds."""

    cpu: float
    wall: float

    def __sub__(self, other: Cost) -> Cost:
        return Cost(self.cpu - other.cpu, self.wall - other.wall)

    @staticmethod
    def median(costs: Sequence[Cost]) -> Cost:
        """Of both, apart."""
        return Cost(median(cost.cpu for cost in costs), median(cost.wall for cost in costs))


@dataclass(frozen=True)
class Runs:
    """One way of indexing, in turns with few items and with all."""

    few: Sequence[Cost]
    many: Sequence[Cost]

    @property
    def items(self) -> Cost:
        """What the items between the two sizes cost."""
        return self.whole - Cost.median(self.few)

    @property
    def whole(self) -> Cost:
        """What a run over all items costs."""
        return Cost.median(self.many)

    def seconds(self) -> dict[str, Any]:
        """Every run."""
        return {"all": [_rounded(cost) for cost in self.many], "few": [_rounded(cost) for cost in self.few]}


class Meter(threading.Thread):
    """Adds up the processor time of this process and its descendants, those that have ended included.

    Ray's processes leave no sum of their children's times behind, so all are looked at twice a second.
    """

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self._ticks: dict[tuple[int, str], int] = {}
        self._lock = threading.Lock()

    def run(self) -> None:
        """Look for as long as this process lives."""
        while True:
            self.look()
            time.sleep(0.5)

    def look(self) -> Cost:
        """Spent so far."""
        with self._lock:
            for pid, fields in family().items():
                # Begun at this tick: a process of the same number is another one.
                self._ticks[pid, fields[19]] = sum(map(int, fields[11:13]))
            return Cost(sum(self._ticks.values()) / os.sysconf("SC_CLK_TCK"), time.perf_counter())


METER = Meter()


def family() -> dict[int, list[str]]:
    """Fields of /proc/PID/stat behind the name, of this process and its descendants."""
    found: dict[int, list[str]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                found[int(entry.name)] = (entry / "stat").read_text().rpartition(")")[2].split()
            except OSError:
                continue
    ours = {os.getpid()}
    while more := {pid for pid, fields in found.items() if int(fields[1]) in ours and pid not in ours}:
        ours |= more
    return {pid: found[pid] for pid in ours if pid in found}


def mortal_embedder(folder: Path) -> Any:
    """The bundled Embedder in a process that ends at some calls; a folder remembers how many there were."""
    from ume_ray.models import Models

    embedder = Models.named("ume-tiny", reasoner=None, device="cpu").embedder()
    embed = embedder.embed

    def dying(chats: Sequence[Any]) -> Any:
        folder.mkdir(exist_ok=True)
        number = sum(1 for _ in folder.iterdir())
        (folder / f"{number}-{os.getpid()}").touch()
        if number in DEATHS:
            os._exit(1)
        return embed(chats)

    embedder.embed = dying  # type: ignore[method-assign]
    return embedder


class Killer(threading.Thread):
    """Kills, once, a worker of ours that is reading files."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.killed = 0
        self.done = threading.Event()

    def run(self) -> None:
        """Look until there is one."""
        while not self.done.wait(0.05) and not self.killed:
            for pid in family():
                try:
                    name = Path(f"/proc/{pid}/cmdline").read_bytes()
                    if name.startswith(b"ray::MapBatches(Decode)"):
                        os.kill(pid, signal.SIGKILL)
                        self.killed += 1
                        break
                except OSError:
                    continue


def points_of(location: Path) -> dict[str, Any]:
    """Everything in a collection, by id."""
    from ume_qdrant import export, open_store

    with open_store(str(location), "things") as store:
        return {record["id"]: record for record in export(store, vectors=True)}


def differing(one: dict[str, Any], other: dict[str, Any]) -> dict[str, float]:
    """How two collections differ: points on one side alone, payloads, and the lowest cosine of two vectors."""
    import numpy as np

    both = one.keys() & other.keys()
    rows = [
        [np.asarray(side[key]["vectors"][name], dtype=np.float64) for side in (one, other)]
        for key in sorted(both)
        for name in one[key]["vectors"].keys() | other[key]["vectors"].keys()
    ]
    cosines = [float(a @ b / np.linalg.norm(a) / np.linalg.norm(b)) for a, b in rows]
    return {
        "lost": len(one.keys() - other.keys()),
        "doubled": len(other.keys() - one.keys()),
        "payloads": sum({**one[key], "vectors": 0} != {**other[key], "vectors": 0} for key in both),
        "cosine_min": min(cosines),
    }


def main() -> None:
    """Measure what the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--items", type=int, default=5_000)
    parser.add_argument("--reasoning", choices=["never", "always"], default="never")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--quick", action="store_true", help="a tenth of the items, one round, no file")
    chosen = parser.parse_args()
    count, repeats = (chosen.items // 10, 1) if chosen.quick else (chosen.items, chosen.repeats)
    # Priority as of the one process: Ray lowers that of its workers, and others on the machine would win. Workers are
    # kept between tasks: on two CPUs Ray ends all but two that wait for a second, and starting one takes seconds.
    os.environ.update(
        {
            "RAY_worker_niceness": "0",
            "RAY_idle_worker_killing_time_threshold_ms": "600000",
            "RAY_USAGE_STATS_ENABLED": "0",
        }
    )
    import ray

    where = machine()
    METER.start()
    with tempfile.TemporaryDirectory(prefix="bench-") as work:
        root = Path(work)
        few, many = write_files(root / "few", min(FEW, count // 2)), write_files(root / "many", count)
        reasoning: Reasoning = chosen.reasoning
        alone, units = _alone(root, few, many, reasoning, repeats)
        begun = METER.look()
        ray.init(num_cpus=2, include_dashboard=False, object_store_memory=200_000_000, log_to_driver=False)
        start = METER.look() - begun
        note(f"Ray started: {start}")
        spread = _spread(root, few, many, reasoning, repeats)
        killer = Killer()
        killer.start()
        dying = _on_ray(root, "dying", many, partial(mortal_embedder, root / "calls"), reasoning)
        killer.done.set()
        ray.shutdown()
        expected = points_of(root / "alone-0")
        same = {name: differing(expected, points_of(root / name)) for name in ("spread-0", "dying")}
        embedder_deaths = sum(number < len(list((root / "calls").iterdir())) for number in DEATHS)
    name = "ray_index" if reasoning == "never" else "ray_index_reasoned"
    per_item = 1000 / (count - min(FEW, count // 2))
    finish(
        name,
        {
            "benchmark": name,
            "items": count,
            "reasoning": reasoning,
            "overhead": round(spread.items.cpu / alone.items.cpu - 1, 4),
            "overhead_wall": round(spread.items.wall / alone.items.wall - 1, 4),
            "overhead_with_start": round(spread.whole.cpu / alone.whole.cpu - 1, 4),
            "overhead_with_deaths": round(dying.cpu / spread.whole.cpu - 1, 4),
            "deaths": {"embedders": embedder_deaths, "readers": killer.killed},
            "same_points": same,
            "cpu_ms_per_item": {
                "alone": round(alone.items.cpu * per_item, 3),
                "ray": round(spread.items.cpu * per_item, 3),
            },
            "seconds": {
                "alone": alone.seconds(),
                "ray": spread.seconds(),
                "ray_with_deaths": _rounded(dying),
                "ray_start": _rounded(start),
            },
            "units": units,
            "workers": POOLS,
            "machine": {**where, "load_after": round(os.getloadavg()[0], 2)},
        },
        quick=chosen.quick,
    )


def _alone(root: Path, few: Path, many: Path, reasoning: Reasoning, repeats: int) -> tuple[Runs, dict[str, float]]:
    from ume_qdrant import index, open_store
    from ume_retrieval import ReasoningEmbedder

    embedder = ReasoningEmbedder.from_pretrained("ume-tiny", cache=None, device="cpu")
    embedder.encode_corpus(["warm up"], reasoning=reasoning, strict=False)

    def run(name: str, folder: Path) -> Cost:
        with open_store(str(root / name), "things") as store:
            begun = METER.look()
            index(embedder, store, folder, reasoning=reasoning)
            cost = METER.look() - begun
        note(f"one process, {name}: {cost}")
        return cost

    turns = [(run(f"alone-few-{turn}", few), run(f"alone-{turn}", many)) for turn in range(repeats)]
    return Runs(*zip(*turns, strict=True)), _units(root, many, embedder)


def _units(root: Path, folder: Path, embedder: Any) -> dict[str, float]:
    """Processor milliseconds of one item by stage, and what a point's fields take, for `ume plan`."""
    from ume_qdrant import Point, export, open_store
    from ume_retrieval.errors import Failure
    from ume_retrieval.media import discover
    from ume_retrieval.pipeline import ItemLoader, StageItem, load_items

    spent: dict[str, float] = {}
    begun = time.process_time()
    entries = [entry for entry in discover([folder]) if not isinstance(entry, Failure)]
    loader = ItemLoader(embedder.embedder.spec.budget, limits=embedder.limits)
    loading = (one for some in load_items(loader, [entry.item for entry in entries]) for one in some)
    loaded = [one.seen for one in loading if isinstance(one, StageItem)]
    spent["decode_ms"] = time.process_time() - begun
    begun = time.process_time()
    embedder.encode_corpus(loaded, reasoning="never")
    spent["embed_ms"] = time.process_time() - begun
    with open_store(str(root / "alone-0"), "things") as source, open_store(str(root / "units"), "things") as target:
        target.create(source.meta())
        points = list(source.scroll(vectors=("direct",)))
        begun = time.process_time()
        for start in range(0, len(points), 256):
            target.upsert([Point(one.id, one.vectors, one.payload) for one in points[start : start + 256]])
        spent["write_ms"] = time.process_time() - begun
        payload = sum(len(json.dumps(one).encode()) for one in export(source))
    units = {name: round(1000 * seconds / len(entries), 4) for name, seconds in spent.items()}
    return {**units, "payload_bytes": round(payload / len(points), 1)}


def _spread(root: Path, few: Path, many: Path, reasoning: Reasoning, repeats: int) -> Runs:
    from ume_ray import Models

    load = Models.named("ume-tiny", reasoner=None, device="cpu").embedder
    # Once before: it also starts the processes that later runs find, as many as the larger run needs.
    _on_ray(root, "first", many, load, reasoning)
    turns = [
        (_on_ray(root, f"spread-few-{n}", few, load, reasoning), _on_ray(root, f"spread-{n}", many, load, reasoning))
        for n in range(repeats)
    ]
    return Runs(*zip(*turns, strict=True))


def _on_ray(root: Path, name: str, folder: Path, load: Any, reasoning: Reasoning) -> Cost:
    from ume_ray import Models, StoreAddress, Workers, index

    begun = METER.look()
    place = StoreAddress(str(root / name), "things")
    reasoner = Models.named("ume-tiny", device="cpu").reasoner if reasoning == "always" else None
    models = Models(load, reasoner, cache=None)
    report = index(models, place, folder, reasoning=reasoning, workers=Workers(**POOLS))
    cost = METER.look() - begun
    note(f"Ray, {name}: {report.points} points, {cost}")
    return cost


def _rounded(cost: Cost) -> dict[str, float]:
    return {"cpu": round(cost.cpu, 2), "wall": round(cost.wall, 2)}


if __name__ == "__main__":
    main()
