"""Counts the files and functions of this project that a call passes, in all its threads.

    python benchmarks/call_paths.py [-v | -vv | --json]

Functions are those with a name: comprehensions and generator expressions count with the function that holds them, and
methods that dataclasses generate do not count. Each call runs twice and the second time is counted, so that what is
done once (imports, caches) is left out. Calls with the fakes of `ume_retrieval.testing` show the library's own layers;
those with the bundled pair show all.
"""

from __future__ import annotations

import json
import sys
import tempfile
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = tuple(str(ROOT / folder) for folder in ("ume_retrieval", "integrations", "training"))
INNER = ("<listcomp>", "<dictcomp>", "<setcomp>", "<genexpr>")


@dataclass
class Passed:
    """What a call passes."""

    functions: set[tuple[str, str]] = field(default_factory=set)

    @property
    def files(self) -> Counter[str]:
        """Functions passed in each file."""
        return Counter(file for file, _ in self.functions)

    def __str__(self) -> str:
        return f"{len(self.files):3d} files {len(self.functions):4d} functions"


@contextmanager
def counted() -> Iterator[Passed]:
    """Count the functions that run inside, in this thread and those that begin meanwhile."""
    path = Passed()

    def note(frame: FrameType, event: str, _: Any) -> None:
        code = frame.f_code
        if event == "call" and code.co_filename.startswith(PACKAGES) and code.co_name not in INNER:
            path.functions.add((code.co_filename.removeprefix(f"{ROOT}/"), code.co_qualname))

    threading.setprofile(note)
    sys.setprofile(note)
    try:
        yield path
    finally:
        sys.setprofile(None)
        threading.setprofile(None)  # type: ignore[arg-type]  # as the documentation of threading has it


def path_of(call: Callable[[], object]) -> Passed:
    """Run a call twice and count the second time."""
    call()
    with counted() as path:
        call()
    return path


def measure(folder: Path) -> dict[str, Passed]:
    """Count every call, with an image and collections in a folder."""
    import PIL.Image

    from ume_qdrant import index, open_store, search
    from ume_retrieval import Item, ReasoningEmbedder
    from ume_retrieval.testing import fake_embedder

    pictures = folder / "pictures"
    pictures.mkdir()
    PIL.Image.new("RGB", (96, 96), (200, 30, 30)).save(pictures / "red.png")
    image = Item(images=(pictures / "red.png",))
    paths: dict[str, Passed] = {}
    fakes = fake_embedder()
    for name, embedder in (("fakes", fakes), ("ume-tiny", ReasoningEmbedder.from_pretrained("ume-tiny", cache=None))):
        paths[f"encode_corpus, text, direct, {name}"] = path_of(
            lambda embedder=embedder: embedder.encode_corpus("a red circle", reasoning="never")  # type: ignore[misc]
        )
        paths[f"encode_corpus, image, reasoned, {name}"] = path_of(
            lambda embedder=embedder: embedder.encode_corpus(image, strict=False)  # type: ignore[misc]
        )
    numbers = iter(range(100))

    def index_anew() -> None:
        with open_store(str(folder / f"store-{next(numbers)}"), "things") as store:
            with counted() as path:
                index(fakes, store, [pictures])
            paths["index, one image, direct, fakes"] = path

    index_anew()
    index_anew()
    with open_store(str(folder / "store-1"), "things") as store:
        paths["search, text, direct, fakes"] = path_of(lambda: search(fakes, store, "a red circle", reasoning="never"))
    return paths


def main() -> None:
    """Print the counts; with -v the files too, with -vv the functions, with --json everything for programs."""
    with tempfile.TemporaryDirectory() as folder:
        paths = measure(Path(folder))
    if "--json" in sys.argv:
        print(json.dumps({name: sorted(path.functions) for name, path in paths.items()}))
        return
    for name, path in paths.items():
        print(path, name)
        if "-v" in sys.argv:
            for file, count in sorted(path.files.items()):
                print(f"      {count:3d} {file}")
        if "-vv" in sys.argv:
            for file, function in sorted(path.functions):
                print(f"          {file} {function}")


if __name__ == "__main__":
    main()
