"""Does the library read real files as Pillow, PyAV and PDFium do, and does it name every file of a folder?

Every file below a folder is walked, read and decoded by the library (images, all pages up to 20, the first and last
segment of a video), and decoded again by Pillow, PyAV or PDFium directly, each in a process of its own.

    python benchmarks/media.py FOLDER [--out FILE]

The last line printed is one JSON object:

    files              regular files below the folder
    indexed            read and decoded by the library
    failed             refused, each with an error and a hint
    skipped            left out because neither bytes nor name are those of media or text, and named to the caller
    false_refusals     files in a supported format that the other libraries decode and this one refuses, but for
                       those that `REASONS` and `KNOWN` list
    refused_with_reason  the files that they list
    false_acceptances  files that this library decodes without a warning and the other one does not
    silent             files that are none of indexed, failed and skipped
    stderr_lines       lines on standard error while the library worked

Folders of real files come from public repositories, for example with `benchmarks/media_files.py`.
"""

from __future__ import annotations

import argparse
import json
import os
from collections import Counter
from collections.abc import Callable
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from bench_measure import note

MOST_PAGES = 20
MOST_FRAMES = 500
SECONDS = 40
"""Most seconds for one file."""

REASONS = {
    "media_too_large": "a limit, which the hint names",
    "needs a password": "locked",
    "the end mark is missing": "a PDF that is cut short, which PDFium repairs by guessing",
    "is blank": "text without words",
}
"""Refusals that are intended whatever the file, by a part of their error."""

_LIBAVIF = "libavif in Pillow does not parse or decode it; FFmpeg shows it, without its transparency"
KNOWN = {
    "*/plum-blossom-*.alpha-*.avif": _LIBAVIF,
    "*/star-*-with-alpha.avifs": _LIBAVIF,
    "*/alpha_noispe.avif": _LIBAVIF,
    "*/clap_irot_imir_non_essential.avif": _LIBAVIF,
    "*/pyramid_pymd.avif": _LIBAVIF,
    "*/seine_sdr_gainmap_gammazero.avif": _LIBAVIF,
    "*/color_grid_alpha_grid_tile_shared_in_dimg.avif": _LIBAVIF,
    "*/sofa_grid1x5_420_dimg_repeat.avif": _LIBAVIF,
    "*/fuzzing/data/corpus/jpeg32.heif": "a fuzzer's HEIF coded as JPEG, which the reader does not open",
    "*/test_extents_transparency.gif": "a GIF whose blocks end early, which counts as cut short",
    "*/clipboard.dib": "a bitmap without a file header",
}
"""Single public files that the other libraries decode and this one is known to refuse. Named one by one, so that the
refusal of any other file of such a format counts."""


@dataclass(frozen=True)
class Verdict:
    """What a library made of a file: decoded or not, and why not."""

    decoded: bool
    reason: str = ""
    warned: bool = False


def of_library(path: Path) -> Verdict:
    """Read and decode a file with this library."""
    from ume_retrieval.checkpoint import VisualBudget
    from ume_retrieval.errors import UmeError
    from ume_retrieval.media import FoundFile, entries, load, walk

    try:
        [found] = walk([path])
        if not isinstance(found, FoundFile):
            return Verdict(False, f"{found.error}: {found.message} ({found.hint})")
        parts = entries(found)
        chosen = parts[:MOST_PAGES] if parts[0].kind == "page" else [parts[0], *parts[1:][-1:]]
        loaded = [load(part.item, VisualBudget()) for part in chosen]
    except UmeError as error:
        return Verdict(False, f"{error.code}: {error.message} ({error.hint})")
    return Verdict(True, warned=any(video.warnings for one in loaded for video in one.videos))


def of_others(path: Path) -> Verdict:
    """Decode a file with Pillow, PyAV or PDFium directly."""
    for name, decode in {"Pillow": _pillow, "PyAV": _pyav, "PDFium": _pdfium}.items():
        try:
            if said := decode(path):
                return Verdict(True, f"{name}: {said}")
        except Exception as error:  # noqa: BLE001  # the point is to see all of them
            if name == "PDFium":
                return Verdict(False, f"{name}: {error!r}"[:200])
    return Verdict(False, "no library opens it")


def _pillow(path: Path) -> str:
    import PIL.Image
    import pillow_heif
    import pillow_jxl  # noqa: F401  # registers itself

    pillow_heif.register_heif_opener()
    with PIL.Image.open(path) as image:
        for number in range(min(getattr(image, "n_frames", 1), MOST_PAGES)):
            image.seek(number)
            image.load()
        return image.format or ""


def _pyav(path: Path) -> str:
    import av

    with av.open(path) as container:
        if not container.streams.video:
            return ""
        frames = sum(1 for _, frame in zip(range(MOST_FRAMES), container.decode(video=0), strict=False) if frame)
        return container.format.name if frames else ""


def _pdfium(path: Path) -> str:
    import pypdfium2

    with pypdfium2.PdfDocument(path) as document:
        for number in range(min(len(document), MOST_PAGES)):
            document[number].render()
        return "pdf" if len(document) else ""


def quiet(log: str) -> None:
    """Send standard error of this process to a file."""
    os.dup2(os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT), 2)


class Judge:
    """Runs a function on files in a process of its own, which is replaced when it dies or hangs."""

    def __init__(self, look: Callable[[Path], Verdict], log: Path) -> None:
        self._look, self._log = look, str(log)
        self._pool = self._start()

    def ask(self, path: Path) -> Future[Verdict]:
        """Start to look at a file."""
        try:
            return self._pool.submit(self._look, path)
        except BrokenProcessPool:
            self._pool = self._start()
            return self._pool.submit(self._look, path)

    def answer(self, asked: Future[Verdict]) -> Verdict:
        """Wait for a verdict."""
        try:
            return asked.result(SECONDS)
        except (BrokenProcessPool, TimeoutError) as error:
            for process in list(self._pool._processes.values()):  # noqa: SLF001  # a hanging decoder has no other end
                process.kill()
            self._pool.shutdown(wait=True)
            self._pool = self._start()
            return Verdict(False, "it takes too long" if isinstance(error, TimeoutError) else "the process dies")

    def _start(self) -> ProcessPoolExecutor:
        return ProcessPoolExecutor(1, initializer=quiet, initargs=(self._log,))


SUPPORTED = frozenset(
    [
        "JPEG",
        "MPO",
        "PNG",
        "WEBP",
        "GIF",
        "BMP",
        "DIB",
        "TIFF",
        "AVIF",
        "HEIF",
        "JPEG2000",
        "JXL",
        "mov",
        "matroska",
        "avi",
        "mpeg",
        "mpegts",
        "asf",
        "flv",
        "ogg",
        "pdf",
    ]
)


def _is_supported(verdict: Verdict) -> bool:
    return any(name in SUPPORTED for name in verdict.reason.partition(": ")[2].split(","))


def measure(folder: Path, logs: Path) -> dict[str, Any]:
    """Compare the verdicts on every file of a folder."""
    from ume_retrieval.media import display_name, walk

    files = sorted(path for path in folder.rglob("*") if path.is_file())
    skipped: list[Path] = []
    named = {one.source for one in walk([folder], on_skipped=skipped.append)} | set(map(display_name, skipped))
    own, others = Judge(of_library, logs / "own"), Judge(of_others, logs / "others")
    refusals, acceptances, listed, failures = [], [], [], Counter[str]()
    counts = Counter(files=len(files), skipped=len(skipped))
    left_out = {str(path) for path in skipped}
    for number, path in enumerate(files):
        counts["silent"] += display_name(path) not in named
        if str(path) in left_out:
            continue
        waiting = own.ask(path), others.ask(path)
        mine, theirs = own.answer(waiting[0]), others.answer(waiting[1])
        counts["indexed" if mine.decoded else "failed"] += 1
        row = {"file": str(path.relative_to(folder)), "library": mine.reason, "others": theirs.reason}
        if not mine.decoded:
            failures[mine.reason.partition(":")[0]] += 1
            if theirs.decoded and _is_supported(theirs):
                words = mine.reason.replace(str(path), "")
                known = any(part in words for part in REASONS) or any(fnmatch(str(path), name) for name in KNOWN)
                (listed if known else refusals).append(row)
        elif not theirs.decoded and not mine.warned and path.suffix.lower() not in (".txt", ".md"):
            acceptances.append(row)
        if number % 250 == 249:
            note(f"{number + 1} of {len(files)} files; {len(refusals)} false refusals, {len(acceptances)} acceptances")
    noise = (logs / "own").read_text("utf-8", "replace").splitlines() if (logs / "own").exists() else []
    return {
        **{name: counts[name] for name in ("files", "indexed", "failed", "skipped")},
        "false_refusals": len(refusals),
        "false_acceptances": len(acceptances),
        "silent": counts["silent"],
        "stderr_lines": len(noise),
        "refused_with_reason": len(listed),
        "listed": listed,
        "failures": dict(failures.most_common()),
        "refused": refusals,
        "accepted": acceptances,
        "noise": noise[:50],
    }


def main() -> None:
    """Measure a folder."""
    parser = argparse.ArgumentParser(description="Compare with Pillow, PyAV and PDFium on a folder of real files.")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--out", type=Path, help="write the single files that differ here, as JSON")
    given = parser.parse_args()
    with TemporaryDirectory() as logs:
        found = measure(given.folder.resolve(), Path(logs))
    if given.out:
        given.out.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    print(json.dumps({name: value for name, value in found.items() if isinstance(value, int)}))


if __name__ == "__main__":
    main()
