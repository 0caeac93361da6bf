"""Run the notebooks of this folder from top to bottom and keep what they show: `python examples/execute.py`.

Each runs in an empty folder, without a network, with T-CoTs, models' caches and IPython's profile of its own, so that
what is stored is what a fresh checkout shows. What differs from run to run without meaning (times, the interpreter's
version) is left out of the file.
"""

from __future__ import annotations

import argparse
import base64
import io
import os
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parent
METADATA = {
    "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
    "language_info": {"name": "python"},
}
"""All that a notebook says of its kernel."""

WIDGET = "application/vnd.jupyter.widget-view+json"

CELL_TIMEOUT_S = 600


def notebooks() -> list[Path]:
    """The notebooks, in reading order."""
    return sorted(FOLDER.glob("[0-9]*.ipynb"))


def execute(path: Path) -> Any:
    """A notebook with new outputs; its file stays as it is.

    Raises:
        CellExecutionError: When a cell fails.
    """
    import nbformat
    from nbclient import NotebookClient
    from traitlets.config import Config

    notebook = nbformat.read(path, as_version=4)
    with _place_of_its_own() as place:
        NotebookClient(
            notebook,
            timeout=CELL_TIMEOUT_S,
            kernel_name="python3",
            resources={"metadata": {"path": str(place)}},
            config=Config(KernelManager={"transport_encryption": "auto"}),
        ).execute()
    return normalised(notebook)


def normalised(notebook: Any) -> Any:
    """The notebook without what changes from run to run, each picture in one small form."""
    notebook.metadata = dict(METADATA)  # without the state of widgets
    for cell in notebook.cells:
        cell.metadata.pop("execution", None)
        if cell.cell_type != "code":
            continue
        cell.outputs = _joined([output for output in cell.outputs if not _is_passing(output)])
        for output in cell.outputs:
            data = output.get("data", {})
            if "image/png" in data:
                data.pop("image/jpeg", None)  # Pillow offers both
                data["image/png"] = _smaller(data["image/png"])
    return notebook


def _is_passing(output: Any) -> bool:
    """Whether it is a progress bar, or what one leaves behind."""
    data = output.get("data", {})
    return WIDGET in data or data.get("text/plain") == ""


def _joined(outputs: Sequence[Any]) -> list[Any]:
    """What was printed in one go as one output: how it was cut up depends on the machine's pace."""
    joined: list[Any] = []
    for output in outputs:
        last = joined[-1] if joined else None
        if last is not None and last.output_type == output.output_type == "stream" and last.name == output.name:
            last.text += output.text
        else:
            joined.append(output)
    return joined


def _smaller(encoded: str) -> str:
    """A drawn picture with 256 colours of its own: a third of the size, and no difference that the eye sees."""
    import PIL.Image

    picture = PIL.Image.open(io.BytesIO(base64.b64decode(encoded))).convert("RGB")
    small = io.BytesIO()
    picture.quantize(256, dither=PIL.Image.Dither.NONE).save(small, "PNG", optimize=True)
    return base64.b64encode(small.getvalue()).decode()


@contextmanager
def _place_of_its_own() -> Iterator[Path]:
    """An empty folder, and an environment in which nothing outside of it is read or written."""
    with tempfile.TemporaryDirectory(prefix="ume-examples-") as folder:
        own = {
            "HF_HUB_OFFLINE": "1",
            "IPYTHONDIR": f"{folder}/ipython",
            "MPLCONFIGDIR": f"{folder}/matplotlib",
            "UME_CACHE_DIR": f"{folder}/cache",
        }
        before = {name: os.environ.get(name) for name in own}
        os.environ.update(own)
        place = Path(folder) / "work"
        place.mkdir()
        try:
            yield place
        finally:
            for name, value in before.items():
                if value is None:
                    del os.environ[name]
                else:
                    os.environ[name] = value


def main() -> None:
    """Execute all notebooks, or those whose names begin as asked."""
    import nbformat

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", help="beginnings of names, such as 01; all unless given")
    names = tuple(parser.parse_args().names) or ("",)
    for path in notebooks():
        if path.name.startswith(names):
            started = time.perf_counter()
            nbformat.write(execute(path), path)
            size = path.stat().st_size / 1000
            print(f"{path.name}: {time.perf_counter() - started:.0f} s, {size:.0f} kB", file=sys.stderr)


if __name__ == "__main__":
    main()
