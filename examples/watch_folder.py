"""Keep an index true while files come, change and go.

    python examples/watch_folder.py photos films --store vectors
    ume search "a dog jumps into the water" --store vectors        # in another terminal, between two passes

Each time something changes, one pass makes the collection hold what the folders hold: files whose size and time are
known are not read, a moved file keeps its vectors, points of a removed file go, a broken file is named once and never
stops the rest. Stop it with Ctrl-C, even in the middle of a pass; the next start goes on from there. A folder that
disappears as a whole keeps its points: more often an unmounted disc than a deletion.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path

from watchfiles import watch

from ume_qdrant import IndexReport, index, open_store
from ume_retrieval import ReasoningEmbedder, UmeError
from ume_retrieval.errors import Failure

QUIET_MS = 400
"""A pass begins when nothing has changed for so long: a file that is being copied is left to finish."""

LONGEST_WAIT_MS = 3_000
"""Longest wait for quiet."""

TURN_MS = 1_000
"""Longest time from one turn to the next: how soon a pass is tried again that found the store in use, or lost it."""

Pass = Callable[[], IndexReport]


class Watcher:
    """Runs a pass whenever there is reason to, and says what came of it.

    Args:
        run: One pass over everything.
    """

    def __init__(self, run: Pass) -> None:
        self._run = run
        self._due = True
        self._trouble = ""
        self._named: set[tuple[str, str]] = set()

    def turn(self, *, changed: bool) -> None:
        """Make a pass if something changed or an earlier one did not get through."""
        self._due = self._due or changed
        if self._due:
            self._pass()

    def _pass(self) -> None:
        try:
            report = self._run()
        except UmeError as error:
            if not error.retryable:
                raise
            if error.message != self._trouble:
                say(f"{error.message}; trying again")
            self._trouble = error.message
            return
        self._due, self._trouble = False, ""
        if report.indexed or report.removed:
            done = f"{report.indexed} indexed, {report.unchanged} unchanged, {report.removed} removed"
            say(f"{done} ({report.seconds:.1f} s)")
        failed = {(failure.source, failure.message): failure for failure in report.failed}
        for key in failed.keys() - self._named:
            say_failure(failed[key])
        self._named = set(failed)


def say(text: str) -> None:
    """A line with the time."""
    print(time.strftime("%H:%M:%S"), text, flush=True)


def say_failure(failure: Failure) -> None:
    """A file that was left out, and what may help."""
    what = failure.message if failure.source in failure.message else f"{failure.source}: {failure.message}"
    say(f"left out: {what}" + (f" ({failure.hint})" if failure.hint else ""))


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", nargs="+", type=Path, help="what to watch, with all that lies below")
    parser.add_argument(
        "--store", default="ume-store", help="a folder, or a server's address (its key: $QDRANT_API_KEY)"
    )
    parser.add_argument("--collection", default="default")
    parser.add_argument("--model", default="ume-tiny", help="preset, hub id or folder of the Embedder")
    parser.add_argument("--reasoning", choices=("later", "always", "never"), default="always")
    parser.add_argument("--segment", type=float, default=16.0, help="seconds of a video segment")
    parser.add_argument("--overlap", type=float, default=2.0, help="seconds that segments overlap")
    return parser.parse_args()


def main() -> None:
    """Watch until Ctrl-C."""
    options = arguments()
    folders = [folder.absolute() for folder in options.folders]
    if missing := [str(folder) for folder in folders if not folder.is_dir()]:
        sys.exit(f"no such folder: {', '.join(missing)}")
    remote = "://" in options.store
    key = os.environ.get("QDRANT_API_KEY") if remote else None
    own = None if remote else Path(options.store).absolute()
    if own in {*folders, *(parent for folder in folders for parent in folder.parents)}:
        sys.exit(f"{own} would hold the store among what is watched: name another folder with --store")
    embedder = ReasoningEmbedder.from_pretrained(options.model)

    def one_pass() -> IndexReport:
        # Open for the pass only: between passes nothing is held, and others may move or repair the collection.
        with open_store(options.store, options.collection, api_key=key) as store:
            return index(
                embedder,
                store,
                folders,
                reasoning=options.reasoning,
                segment_s=options.segment,
                overlap_s=options.overlap,
            )

    def counts(path: str) -> bool:
        return own is None or not Path(path).is_relative_to(own)  # the store may lie inside, and writes as we write

    watcher = Watcher(one_pass)
    say(f"watching {', '.join(map(str, folders))}")
    # The first turn comes after the watch has begun, so no change falls between a first pass and the watch.
    for changes in watch(
        *folders,
        watch_filter=None,  # a filter of its own would keep turns from us while others write beside
        step=QUIET_MS,
        debounce=LONGEST_WAIT_MS,
        rust_timeout=TURN_MS,
        yield_on_timeout=True,
    ):
        watcher.turn(changed=any(counts(path) for _, path in changes))


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # as service managers stop a process
    try:
        main()
    except KeyboardInterrupt:
        say("stopped; the same command goes on from here")
        sys.exit(130)
    except UmeError as error:
        sys.exit(f"error: {error}" + (f" ({error.hint})" if error.hint else ""))
