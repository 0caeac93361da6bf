"""What the fault drivers share: a folder to index in two states, runs over it, and outcomes that can be compared."""

from __future__ import annotations

import json
import sys
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeAlias

import numpy as np

for room in ("", "qdrant", "engines"):  # drivers are scripts: they find the helpers of other rooms themselves
    sys.path.append(str(Path(__file__).parents[1] / room))

from small_media import BLUE, RED, clip, document, picture  # noqa: E402  # found by the path above

from ume_qdrant.admin.contents import export  # noqa: E402  # as above
from ume_qdrant.indexing.enrich import enrich  # noqa: E402
from ume_qdrant.indexing.ingest import index  # noqa: E402
from ume_qdrant.stores.base import Store  # noqa: E402
from ume_retrieval.pipeline.embedder import ReasoningEmbedder  # noqa: E402
from ume_retrieval.pipeline.trace_cache import TraceCache, TraceRecord  # noqa: E402
from ume_retrieval.testing import fake_embedder  # noqa: E402

Mode: TypeAlias = Literal["never", "later", "always"]
MODES: tuple[Mode, ...] = ("never", "later", "always")
BATCH = 3
TOLERANCE = 1e-5
"""Engines normalise vectors again in float32."""

Records: TypeAlias = dict[str, dict[str, Any]]


@dataclass(slots=True)
class Counts:
    """What a part of the harness counted. The last four have to be 0."""

    kills: int = 0
    files: int = 0
    tcots: int = 0
    faults: int = 0
    lost: int = 0
    doubled: int = 0
    crashes: int = 0
    hangs: int = 0
    notes: dict[str, Any] = field(default_factory=dict)
    broken: list[str] = field(default_factory=list)

    def add(self, other: Mapping[str, Any]) -> None:
        """Add up; numbers in notes too."""
        for name in ("kills", "files", "tcots", "faults", "lost", "doubled", "crashes", "hangs"):
            setattr(self, name, getattr(self, name) + other.get(name, 0))
        for name, value in other.get("notes", {}).items():
            self.notes[name] = self.notes.get(name, 0) + value if isinstance(value, (int, float)) else value
        self.broken += other.get("broken", [])

    def print(self) -> None:
        """One JSON object on the last line."""
        sys.stdout.write(json.dumps(asdict(self)) + "\n")


class Journal:
    """Rounds that are done, in a file: a part that is killed goes on behind the last of them."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._done: dict[str, dict[str, Any]] = {}
        if path.exists():
            for line in path.read_text(encoding="utf-8").splitlines():
                try:
                    record = json.loads(line)
                except ValueError:  # cut by a kill
                    continue
                self._done[record["round"]] = record

    def get(self, name: str) -> dict[str, Any] | None:
        """What a round counted, if it is done."""
        return self._done.get(name)

    def put(self, name: str, counts: Counts) -> None:
        """Keep what a round counted."""
        record = {"round": name, **asdict(counts)}
        with self._path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(record) + "\n")
        self._done[name] = record


class WatchedCache(TraceCache):
    """Also writes down every key that it keeps, to see whether one comes twice."""

    def put_many(self, records: Mapping[str, TraceRecord]) -> None:
        super().put_many(records)
        with Path(f"{self.path}.log").open("a", encoding="utf-8") as log:
            log.writelines(f"{key}\n" for key in records)


def change(folder: Path) -> None:
    """New, changed, moved, copied and deleted files, so that every kind of step occurs; twelve points in the end."""
    picture(folder / "red.png", BLUE)
    picture(folder / "new.png", (10, 20, 30))
    clip(folder / "new.mp4", 20, RED, BLUE)
    document(folder / "report.pdf", RED, BLUE, (1, 2, 3))
    (folder / "clip.mp4").rename(folder / "deep" / "film.mp4")
    (folder / "copy.txt").write_bytes((folder / "notes.txt").read_bytes())
    (folder / "green.png").unlink()


def models(cache: Path | None, **settings: Any) -> ReasoningEmbedder:
    """Fakes with a cache that is watched."""
    return fake_embedder(cache=WatchedCache(cache) if cache else None, **settings)


def run(embedder: ReasoningEmbedder, store: Store, folder: Path, mode: Mode) -> list[str]:
    """Index, and enrich when that was left for later; returns what is said of single items."""
    failed = list(index(embedder, store, folder, reasoning=mode, batch_size=BATCH).failed)
    if mode == "later":
        failed += enrich(embedder, store, batch_size=BATCH).failed
    return [f"{failure.error}: {failure.message}" for failure in failed]


def dump(store: Store) -> Records:
    """All points by id, as JSON values."""
    return {record["id"]: record for record in export(store, vectors=True)}


def compare(found: Records, wanted: Records) -> tuple[int, int]:
    """How many points are lost (missing, or not what they should be) and how many are there twice or too much."""
    lost = sum(key not in found or not _alike(found[key], wanted[key]) for key in wanted)
    places = Counter((one["source"], one.get("start_s"), one.get("page")) for one in found.values())
    return lost, len(found.keys() - wanted.keys()) + sum(count - 1 for count in places.values())


def _alike(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    ours, theirs = one["vectors"], other["vectors"]
    return (
        {**one, "vectors": 0} == {**other, "vectors": 0}
        and ours.keys() == theirs.keys()
        and all(np.allclose(ours[name], theirs[name], atol=TOLERANCE) for name in ours)
    )


def twice(cache: Path) -> int:
    """How many traces were kept more than once."""
    log = Path(f"{cache}.log")
    keys = log.read_text(encoding="utf-8").split() if log.exists() else []
    return len(keys) - len(set(keys))


def note(text: str) -> None:
    """A line for whoever watches."""
    sys.stderr.write(text + "\n")
    sys.stderr.flush()


def first(values: Iterable[str], count: int = 5) -> list[str]:
    """A few of them."""
    return list(values)[:count]
