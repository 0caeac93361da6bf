"""State of the stages in a run folder: settings and inputs of each, and whether it is done."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeAlias

from ume_retrieval.engines.transformers.loading import SAMPLED_ABOVE, fingerprint
from ume_retrieval.errors import InputError
from ume_retrieval.util.files import atomic_write

STAMP = "stage.json"
RENAMED = {"kin": "group_size", "apart": "warm_start", "leak_share": "answer_hint_prob"}
REPLACED = "replaced"
"""Folder of what was made with other settings; nothing is ever deleted."""

Fingerprint: TypeAlias = dict[str, Any]
"""Everything that decides what a stage makes: its settings, seed, data, and fingerprints of its inputs."""


@dataclass(frozen=True, slots=True)
class StageState:
    """State of a stage.

    Attributes:
        state: "started" until it is done.
        basis: What it is made from.
        outputs: What it made: the part that follows the slash of `stage:NAME/part` to a path, relative to its folder
            where it lies inside.
        fingerprints: Of the outputs, when it was done.
        figures: What it has to tell.
        seconds: From the last start to the end.
        resumed: It was stopped and went on, so `seconds` is not all it took.
    """

    state: Literal["started", "done"]
    basis: Fingerprint
    outputs: dict[str, str] = field(default_factory=dict)
    fingerprints: dict[str, str] = field(default_factory=dict)
    figures: dict[str, Any] = field(default_factory=dict)
    seconds: float = 0.0
    resumed: bool = False

    def paths(self, folder: Path) -> dict[str, Path]:
        """Return the outputs as paths."""
        return {part: folder / path for part, path in self.outputs.items()}


def read_state(folder: Path) -> StageState | None:
    """Read the state of a stage's folder, or return None for a new folder.

    Raises:
        InputError: When the stamp cannot be understood, or files lie there that no stage of this run has made.
    """
    path = folder / STAMP
    if not path.is_file():
        if folder.is_dir() and any(STAMP not in entry.name for entry in folder.iterdir()):
            raise InputError(
                f"{folder} holds files, but no {STAMP} that says what they were made from",
                hint="name another run folder, or move these files away",
            )
        return None
    try:
        stored = json.loads(path.read_text(encoding="utf-8"))
        basis = {
            key: _with_new_keys(value) if key in {"settings", "data"} else value
            for key, value in stored["basis"].items()
        }
        return StageState(**{**stored, "basis": basis})
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise InputError(f"{path} cannot be understood: {error}", hint="move the stage's folder away") from error


def _with_new_keys(value: Any) -> Any:
    """Rename settings of runs by earlier releases, so that these runs can be resumed."""
    if not isinstance(value, dict):
        return value
    return {RENAMED.get(key, key): _with_new_keys(inner) for key, inner in value.items()}


def write_state(stamp: StageState, folder: Path) -> None:
    """Write the stamp at once or not at all."""
    atomic_write(folder / STAMP, json.dumps(asdict(stamp), indent=2, sort_keys=True) + "\n", what="the stage's state")


def digest_of(basis: Fingerprint) -> str:
    """Return a short name for a basis, equal for equal ones.

    Example:
        >>> digest_of({"a": 1, "b": 2}) == digest_of({"b": 2, "a": 1})
        True
    """
    return hashlib.sha256(json.dumps(basis, sort_keys=True).encode()).hexdigest()[:12]


def move_replaced(folder: Path, stamp: StageState) -> Path:
    """Move results of other settings or inputs aside, and return their new path."""
    place = folder.parent / REPLACED / f"{folder.name}-{digest_of(stamp.basis)}"
    number = 1
    while place.exists():
        number += 1
        place = place.with_name(f"{folder.name}-{digest_of(stamp.basis)}-{number}")
    place.parent.mkdir(parents=True, exist_ok=True)
    folder.rename(place)
    return place


def digest_path(path: Path) -> str:
    """Return a digest of a file or a checkpoint folder: its bytes, or samples of them if it is large.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     _ = (Path(folder) / "pairs.jsonl").write_text("{}")
        ...     digest_path(Path(folder) / "pairs.jsonl")
        'sha256:44136fa355b3'
    """
    if path.is_dir():
        inner = [fingerprint(path), *(digest_path(child) for child in sorted(path.iterdir()) if child.is_dir())]
        return inner[0] if len(inner) == 1 else f"sha256:{digest_of({'parts': inner})}"
    size, digest = path.stat().st_size, hashlib.sha256()
    with path.open("rb") as file:
        if size <= SAMPLED_ABOVE:
            digest.update(file.read())
        else:
            digest.update(str(size).encode())
            for part in range(16):
                file.seek(part * (size - 2**20) // 15)
                digest.update(file.read(2**20))
    return f"sha256:{digest.hexdigest()[:12]}"


def differences(before: Fingerprint, now: Fingerprint) -> list[str]:
    """List the changes between two fingerprints, one line per key.

    Example:
        >>> differences({"stage": {"steps": 2, "batch": 4}}, {"stage": {"steps": 3, "batch": 4}})
        ['stage.steps: 2 -> 3']
    """
    old, new = dict(_flat(before)), dict(_flat(now))
    keys = [*new, *(key for key in old if key not in new)]
    return [
        f"{key}: {old.get(key, 'nothing')} -> {new.get(key, 'nothing')}"
        for key in keys
        if old.get(key, "nothing") != new.get(key, "nothing")
    ]


def _flat(value: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    items: list[tuple[str, Any]] = []
    if isinstance(value, Mapping):
        items = [(str(key), inner) for key, inner in value.items()]
    elif isinstance(value, list):
        items = [(str(index), inner) for index, inner in enumerate(value)]
    else:
        yield prefix, value
    for key, inner in items:
        yield from _flat(inner, f"{prefix}.{key}" if prefix else key)
