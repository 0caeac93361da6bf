"""Every notebook runs from top to bottom, and what is stored of it is fit to be shown."""

from __future__ import annotations

import base64
import getpass
import importlib.util
import io
import re
import socket
from pathlib import Path
from types import ModuleType
from typing import Any

import nbformat
import numpy as np
import PIL.Image
import pytest

FOLDER = Path(__file__).parents[2] / "examples"
NOTEBOOKS = sorted(FOLDER.glob("*.ipynb"))
TRAINING = [path for path in NOTEBOOKS if path.stem.startswith("05")]
"""Over a minute on one core."""

MOST_BYTES = 400_000
MOST_CELLS = 12

PRIVATE = re.compile(
    r"/(?:home|Users|root|tmp|var|work|private|mnt|opt|usr)/|[A-Z]:\\\\?Users|0x[0-9a-f]{6,}|Traceback|Warning\b"
)
"""What would show whose machine it was, or that something went wrong."""


def loaded(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


EXECUTE = loaded(FOLDER / "execute.py")


def outputs(notebook: Any) -> list[Any]:
    return [output for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs]


def words(output: Any) -> str:
    """All that a reader sees of an output, pictures aside."""
    if output.output_type == "stream":
        return str(output.text)
    return "\n".join(str(value) for mime, value in output.data.items() if not mime.startswith("image/"))


def check_outputs(notebook: Any) -> None:
    """Nothing that says whose machine it was, no errors, no warnings, and pictures that can be seen."""
    found = outputs(notebook)
    assert not [output.text for output in found if output.output_type == "stream" and output.name == "stderr"]
    assert not [output for output in found if output.output_type == "error"]
    assert not [shown for output in found if (shown := PRIVATE.search(words(output)))]
    pictures = [output.data["image/png"] for output in found if "image/png" in output.get("data", {})]
    assert pictures
    assert all(base64.b64decode(picture).startswith(b"\x89PNG") for picture in pictures)
    assert not [mime for output in found for mime in output.get("data", {}) if mime in {"image/jpeg", EXECUTE.WIDGET}]


def test_they_are_all_here() -> None:
    assert [path.name[:2] for path in NOTEBOOKS] == ["01", "02", "03", "04", "05"]
    assert EXECUTE.notebooks() == NOTEBOOKS


@pytest.mark.parametrize(
    "path",
    [pytest.param(path, marks=[pytest.mark.slow] * (path in TRAINING), id=path.stem) for path in NOTEBOOKS],
)
def test_it_runs_from_top_to_bottom(path: Path) -> None:
    stored = nbformat.read(path, as_version=4)
    ran = EXECUTE.execute(path)
    check_outputs(ran)
    counts = [cell.execution_count for cell in ran.cells if cell.cell_type == "code"]
    assert counts == list(range(1, len(counts) + 1))
    kinds = [[sorted(out.get("data", ["stream"])) for out in cell.get("outputs", [])] for cell in ran.cells]
    before = [[sorted(out.get("data", ["stream"])) for out in cell.get("outputs", [])] for cell in stored.cells]
    assert kinds == before, "the stored outputs are not of these cells: python examples/execute.py"


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_what_is_stored_is_fit_to_be_shown(path: Path) -> None:
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    check_outputs(notebook)
    assert notebook.metadata == EXECUTE.METADATA
    assert path.stat().st_size <= MOST_BYTES
    said = {word for output in outputs(notebook) for word in re.findall(r"[\w.-]+", words(output))}
    assert not said & {socket.gethostname(), getpass.getuser()}
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert len(cells) <= MOST_CELLS
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1)), "run it in one go"
    assert all(cell.metadata == {} for cell in notebook.cells)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_its_links_lead_somewhere(path: Path) -> None:
    cells = nbformat.read(path, as_version=4).cells
    prose = "\n".join(cell.source for cell in cells if cell.cell_type == "markdown")
    for link in re.findall(r"\]\(([^)]+)\)", prose):
        assert (FOLDER / link).exists(), link


def test_normalising_joins_what_was_printed_and_keeps_one_picture() -> None:
    encoded = io.BytesIO()
    PIL.Image.linear_gradient("L").convert("RGB").save(encoded, "PNG")
    picture = base64.b64encode(encoded.getvalue()).decode()
    cell = nbformat.v4.new_code_cell("1", metadata={"execution": {"iopub.execute_input": "today"}})
    cell.outputs = [
        nbformat.v4.new_output("stream", name="stdout", text="a"),
        nbformat.v4.new_output("stream", name="stdout", text="b"),
        nbformat.v4.new_output("stream", name="stderr", text="c"),
        nbformat.v4.new_output("display_data", data={"image/png": picture, "image/jpeg": "x"}),
        nbformat.v4.new_output("display_data", data={EXECUTE.WIDGET: {}, "text/plain": "50 %"}),
        nbformat.v4.new_output("stream", name="stdout", text="d"),
    ]
    notebook = EXECUTE.normalised(nbformat.v4.new_notebook(cells=[cell], metadata={"widgets": {}}))
    kept = notebook.cells[0].outputs
    assert [output.get("text") for output in kept] == ["ab", "c", None, "d"]
    assert list(kept[2].data) == ["image/png"]
    shown = PIL.Image.open(io.BytesIO(base64.b64decode(kept[2].data["image/png"]))).convert("L")
    apart = np.asarray(shown).astype(int) - np.asarray(PIL.Image.linear_gradient("L"))
    assert abs(apart).max() <= 2
    assert notebook.cells[0].metadata == {}
    assert notebook.metadata == EXECUTE.METADATA
