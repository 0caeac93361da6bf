"""Runs contrastive training in processes of its own: killed and resumed, and on two processes at once.

Usage: contrastive_driver.py FOLDER. Prints one JSON object: how each process ended. Every run is a forked child, so
that the libraries are imported once.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import sys
import traceback
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

from contrastive_world import small, source, write_start
from transformers import Trainer

from ume_retrieval.util.progress import Progress
from ume_training.contrastive import LoraSettings, train_contrastive, trainer

assert Trainer  # imported once, for every child


def child(work: Callable[[], None], **environment: str) -> int:
    """Start a process that does `work`; returns its id."""
    process = os.fork()
    if process:
        return process
    os.environ.update(environment)
    try:
        work()
        os._exit(0)
    except BaseException:  # noqa: BLE001  # a forked child must never return into its parent's code
        traceback.print_exc()
        os._exit(1)


def ended(*processes: int) -> list[int]:
    """How each process ended; minus the signal that killed it."""
    return [os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]) for process in processes]


def long_run(start: Path, out: Path, *, kill_at_step: int = 0, kill_at_mark: int = 0) -> None:
    """Five steps, killed after a step, or after a checkpoint's files and before it is called whole."""

    def watch(step: Progress) -> None:
        if step.done == kill_at_step:
            os.kill(os.getpid(), signal.SIGKILL)

    def mark(checkpoint: Path, log: Any) -> None:
        if checkpoint.name == f"checkpoint-{kill_at_mark}":
            os.kill(os.getpid(), signal.SIGKILL)
        whole(checkpoint, log)

    whole, trainer.mark_whole = trainer.mark_whole, mark
    settings = small(
        start, steps=5, checkpoint_every=2, log_every=2, lora=LoraSettings(r=4, alpha=8, dropout=0.1), workers=1
    )
    train_contrastive(settings, [source("text_to_image", 3), source("image_change", 2)], out, on_progress=watch)


def shared_run(start: Path, out: Path) -> None:
    """Two steps with everything that processes must agree on; one data set does not fill its sub-batch."""
    settings = small(start, steps=2, sub_batch=8, batch=16, negatives=1, matryoshka_dims=(8, 16), mini_batch=3)
    sources = [source("text_to_image", 3, hard=2, broken=frozenset({5})), source("image_change", 1)]
    train_contrastive(settings, sources, out, weights={"text_to_image": 1.0, "image_change": 1.0})


def main(folder: Path) -> None:
    warnings.simplefilter("error")
    start = write_start(folder / "start", pooled="<other>", spec=None)
    report: dict[str, list[int]] = {}
    report["whole"] = ended(child(lambda: long_run(start, folder / "whole")))
    torn = folder / "torn"
    for moment in ({"kill_at_step": 1}, {"kill_at_mark": 2}, {"kill_at_step": 3}, {"kill_at_mark": 4}, {}):
        report[f"torn {moment}"] = ended(child(lambda moment=moment: long_run(start, torn, **moment)))
    report["one"] = ended(child(lambda: shared_run(start, folder / "one")))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    common = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "ACCELERATE_USE_CPU": "true"}
    ranks = [
        child(lambda: shared_run(start, folder / "two"), RANK=str(rank), LOCAL_RANK=str(rank), **common)
        for rank in (0, 1)
    ]
    report["two"] = ended(*ranks)
    sys.stdout.write(json.dumps(report) + "\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
