"""Peak memory of `ume index` on a folder with one 4-hour clip and one 2,000-page PDF.

    fault_memory.py WORK [--quick] [--seed 0]

Both files are made here, cheaply: four hours of flat frames at one a second, and pages of a few words. They are
indexed by the command itself, in a process of its own, with the bundled Embedder. `--quick` takes a tenth of both.
Prints counts as JSON, with `peak_mb` in the notes.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import time
from pathlib import Path

from fault_work import Counts, Journal, note

sys.path.append(str(Path(__file__).parents[1] / "media"))

import av  # found by the path above
import numpy as np  # as above
from media_makers import pdf

HOURS, PAGES = 4.0, 2_000
SIZE = (640, 360)
LIMIT_MB = 2_000


def make_clip(path: Path, seconds: int) -> None:
    """Frames of one colour each, one a second."""
    aside = path.with_suffix(".making.mp4")
    with av.open(str(aside), "w") as container:
        stream = container.add_stream("libx264", rate=1, options={"preset": "ultrafast", "crf": "40"})
        stream.width, stream.height, stream.pix_fmt = *SIZE, "yuv420p"
        stream.codec_context.gop_size = 10
        for second in range(seconds):
            colour = (second % 251, second // 251 % 251, 120)
            pixels = np.full((SIZE[1], SIZE[0], 3), colour, dtype=np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        container.mux(stream.encode())
    aside.rename(path)


def measure(work: Path, seconds: int, pages: int) -> Counts:
    """Make both files, index them, and look how much memory that took at most."""
    folder = work / f"things-{seconds}"
    folder.mkdir(parents=True, exist_ok=True)
    if not (folder / "clip.mp4").exists():
        make_clip(folder / "clip.mp4", seconds)
        note(f"memory: a clip of {seconds} s")
    (folder / "book.pdf").write_bytes(pdf(pages, width=595, height=842))
    store = work / f"vectors-{os.getpid()}"
    command = [sys.executable, "-c", "from ume_cli import main; main()", "index", str(folder)]
    started = time.perf_counter()
    done = subprocess.run(  # noqa: S603  # our own interpreter and command
        [*command, "--store", str(store), "--reasoning", "never", "--json"],
        stdout=subprocess.PIPE,
        text=True,
        check=False,
    )
    took = round(time.perf_counter() - started, 1)
    counts = Counts(notes={"seconds": took, "hours": round(seconds / 3600, 2), "pages": pages})
    peak_mb = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / (1024 if sys.platform != "darwin" else 1024**2)
    counts.notes["peak_mb"] = round(peak_mb * 1.048576, 1)
    report = json.loads(done.stdout) if done.returncode == 0 else {}
    counts.notes["indexed"] = report.get("indexed")
    if done.returncode or report.get("failed"):
        counts.crashes += 1
        counts.broken.append(f"index ends with {done.returncode}: {str(report.get('failed'))[:300]}")
    if peak_mb * 1.048576 > LIMIT_MB:
        counts.broken.append(f"{peak_mb:.0f} MB are more than {LIMIT_MB}")
    return counts


def main() -> None:
    arguments = argparse.ArgumentParser()
    arguments.add_argument("work", type=Path)
    arguments.add_argument("--quick", action="store_true")
    arguments.add_argument("--seed", type=int, default=0)
    given = arguments.parse_args()
    share = 0.1 if given.quick else 1.0
    seconds, pages = int(share * HOURS * 3600), int(share * PAGES)
    given.work.mkdir(parents=True, exist_ok=True)
    journal, total = Journal(given.work / "memory.jsonl"), Counts()
    if journal.get(f"{seconds}") is None:
        journal.put(f"{seconds}", measure(given.work, seconds, pages))
    total.add(journal.get(f"{seconds}") or {})
    total.print()


if __name__ == "__main__":
    main()
