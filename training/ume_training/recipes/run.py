"""Run a recipe: its stages in order, each skipped when it is done and gone on with when it was stopped."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, NamedTuple, TypeAlias

from ume_retrieval.errors import InputError
from ume_training.recipes.context import StageContext, StageOutput, Workers
from ume_training.recipes.inputs import fingerprint_of, with_paths
from ume_training.recipes.schema import Recipe
from ume_training.recipes.stage_runners import execute
from ume_training.recipes.stage_state import (
    Fingerprint,
    StageState,
    differences,
    digest_path,
    move_replaced,
    read_state,
    write_state,
)
from ume_training.recipes.stages import Stage
from ume_training.run_folder import make_folder

LOCK = ".lock"

How: TypeAlias = Literal["skip", "start", "resume", "again"]


class Decision(NamedTuple):
    """Decision on a stage.

    Attributes:
        how: "skip" what is done, "start" what is new, "resume" what was stopped, "again" what changed.
        why: For people, when it is run again.
    """

    how: How
    why: str = ""


@dataclass(frozen=True, slots=True)
class StageReport:
    """Report on a stage.

    Attributes:
        name: Of the stage.
        how: See `Decision`.
        why: Why it was run again, or "".
        outputs: What it made.
        figures: What it has to tell.
        seconds: From its last start to its end, 0 when it was skipped.
    """

    name: str
    how: How
    why: str
    outputs: Mapping[str, Path]
    figures: Mapping[str, Any]
    seconds: float

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON form."""
        return {
            "name": self.name,
            "how": self.how,
            "why": self.why,
            "outputs": {part or "result": str(path) for part, path in self.outputs.items()},
            "figures": dict(self.figures),
            "seconds": round(self.seconds, 1),
        }


Announce: TypeAlias = Callable[[Stage, Decision], None]


def run_recipe(
    recipe: Recipe,
    run: Path,
    *,
    out: Path | None = None,
    until: str | None = None,
    announce: Announce | None = None,
    workers: Workers | None = None,
) -> tuple[StageReport, ...]:
    """Run the stages of a recipe in order; after a kill the same call resumes.

    A stage is done once: its stamp in the run folder says from which settings and inputs. When these change, the stage
    is run again, and so are those that take what it makes; what it made before is moved to `replaced/`.

    Args:
        recipe: What to do.
        run: Holds a folder a stage.
        out: Where `export` writes the pair; None is inside the run folder.
        until: Name of the last stage to run; None runs all.
        announce: Receives each stage before it is run or skipped, on the main process.
        workers: The processes of this launch; None joins those that a launcher started.

    Returns:
        What became of each stage, on every process.

    Raises:
        InputError: When the run folder holds files of something else, or the stage `until` does not exist.
        UmeError: What a stage raises.
    """
    last = recipe.stage(until).name if until else recipe.stages[-1].name
    team = workers or Workers.joined()
    place = run.resolve()
    reports: list[StageReport] = []
    made: dict[str, StageState] = {}
    with _alone_in(place) if team.main else nullcontext():
        for stage in recipe.stages:
            ready = with_paths(stage, recipe.seed, place, made, out)
            report, stamp = _run_stage(
                stage, ready, StageContext(recipe, place, place / stage.name, team), made, announce
            )
            reports.append(report)
            made[stage.name] = stamp
            if stage.name == last:
                break
    if workers is None:
        team.leave()
    return tuple(reports)


@contextmanager
def _alone_in(run: Path) -> Iterator[None]:
    """Lock the run folder against concurrent runs, if the system supports locks.

    Raises:
        InputError: When another run holds it.
        TrainingError: When it is a file.
    """
    make_folder(run)
    try:
        import fcntl
    except ImportError:
        yield
        return
    with (run / LOCK).open("a") as held:
        try:
            fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise InputError(
                f"another run works in {run}", hint="wait for its end, stop it, or name another folder"
            ) from error
        yield


def _run_stage(
    stage: Stage, ready: Stage, context: StageContext, made: Mapping[str, StageState], announce: Announce | None
) -> tuple[StageReport, StageState]:
    folder, team = context.folder, context.workers
    decision: Decision
    stamp: StageState
    decision, stamp = team.broadcast(
        _decide(folder, fingerprint_of(stage, ready, context.recipe, made)) if team.main else None
    )
    if team.main and announce:
        announce(stage, decision)
    if decision.how == "skip":
        return StageReport(stage.name, "skip", "", stamp.paths(folder), stamp.figures, 0.0), stamp
    started = time.monotonic()
    result: StageOutput | None = None
    if stage.parallel or team.main:
        result = execute(ready, context)
    team.barrier()
    seconds = time.monotonic() - started
    if team.main and result is not None:
        stamp = _finished(stamp, result, folder, seconds, resumed=decision.how == "resume")
        write_state(stamp, folder)
    stamp = team.broadcast(stamp)
    _free_memory()
    return StageReport(stage.name, *decision, stamp.paths(folder), stamp.figures, seconds), stamp


def _decide(folder: Path, basis: Fingerprint) -> tuple[Decision, StageState]:
    """Decide from a stage's folder whether to skip, resume or start it, and prepare the folder."""
    found = read_state(folder)
    fresh = StageState("started", basis)
    if found is None:
        write_state(fresh, folder)
        return Decision("start"), fresh
    if changed := differences(found.basis, basis) or _damage(found, folder):
        kept = move_replaced(folder, found)
        write_state(fresh, folder)
        return Decision("again", f"{'; '.join(changed)}; what it made before is in {kept}"), fresh
    return Decision("skip" if found.state == "done" else "resume"), found


def _damage(stamp: StageState, folder: Path) -> list[str]:
    """List outputs of a finished stage that are missing or were changed."""
    if stamp.state != "done":
        return []
    return [
        f"{path} {'was changed' if path.exists() else 'is missing'}"
        for part, path in stamp.paths(folder).items()
        if not path.exists() or digest_path(path) != stamp.fingerprints[part]
    ]


def _finished(stamp: StageState, made: StageOutput, folder: Path, seconds: float, *, resumed: bool) -> StageState:
    inside = {
        part: path.resolve().relative_to(folder) if path.resolve().is_relative_to(folder) else path.resolve()
        for part, path in made.outputs.items()
    }
    return replace(
        stamp,
        state="done",
        outputs={part: path.as_posix() for part, path in inside.items()},
        fingerprints={part: digest_path(path) for part, path in made.outputs.items()},
        figures=dict(made.figures),
        seconds=round(seconds, 1),
        resumed=resumed,
    )


def _free_memory() -> None:
    """Free the memory of a stage's models before the next stage loads its own."""
    import torch

    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
