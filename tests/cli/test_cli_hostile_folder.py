"""Real photographs, clips and PDFs among more than thirty files that are broken in different ways."""

from __future__ import annotations

import io
import json
import os
import random
import struct
import zlib
from importlib.resources import files
from pathlib import Path

import PIL.Image
import pytest
from typer.testing import CliRunner

from ume_cli.app import app
from ume_training.shapes.draw import write_clip, write_pages
from ume_training.shapes.levels import LEVELS
from ume_training.shapes.world import sample_clip, sample_page

PHOTOGRAPHS = {name: (files("sklearn.datasets.images") / name).read_bytes() for name in ("china.jpg", "flower.jpg")}


def encoded(form: str) -> bytes:
    buffer = io.BytesIO()
    PIL.Image.open(io.BytesIO(PHOTOGRAPHS["flower.jpg"])).resize((160, 107)).save(buffer, form)
    return buffer.getvalue()


def bomb_of_pixels() -> bytes:
    """A PNG of a few hundred bytes that claims 60,000 x 60,000 pixels."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0)
    data = chunk(b"IDAT", zlib.compress(bytes(1000)))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + data + chunk(b"IEND", b"")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, set[str], set[str]]:
    """The folder, names of its good files, names of its broken ones."""
    place = tmp_path_factory.mktemp("attic")
    rng = random.Random(1)
    write_clip([sample_clip(rng, LEVELS["default"])], place / "film.mp4")
    write_pages([sample_page(rng, LEVELS["default"])], place / "stock.pdf")
    film, paper = (place / "film.mp4").read_bytes(), (place / "stock.pdf").read_bytes()
    good = {**PHOTOGRAPHS, "renamed.png": PHOTOGRAPHS["flower.jpg"], "no-ending": encoded("PNG")}
    broken: dict[str, bytes] = {"bomb.png": bomb_of_pixels()}
    for form in ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF"):
        whole = encoded(form)
        broken[f"half.{form.lower()}"] = whole[: len(whole) // 2]
        broken[f"empty.{form.lower()}"] = b""
        broken[f"noise.{form.lower()}"] = rng.randbytes(400)
    for ending in ("mp4", "webm", "mov", "mkv", "avi"):
        broken[f"empty.{ending}"] = b""
        broken[f"text.{ending}"] = b"this is no film, whatever its name says"
    broken["half.mp4"], broken["head.mp4"] = film[: len(film) // 2], film[:64]
    broken["half.pdf"], broken["empty.pdf"], broken["text.pdf"] = paper[: len(paper) // 2], b"", b"%PDF-1.7 and no more"
    for name, data in {**good, **broken}.items():
        (place / name).write_bytes(data)
    (place / "loop").symlink_to(place, target_is_directory=True)
    (place / "gone.jpg").symlink_to(place / "nowhere.jpg")
    strange = os.fsencode(place) + b"/caf\xe9 \x1b[31m.jpg"
    Path(os.fsdecode(strange)).write_bytes(PHOTOGRAPHS["china.jpg"] + b" ")
    return place, {*good, "film.mp4", "stock.pdf"}, {*broken, "gone.jpg"}


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UME_CACHE_DIR", str(tmp_path / "cache"))


def test_every_broken_file_is_named_and_the_rest_is_indexed(
    folder: tuple[Path, set[str], set[str]], tmp_path: Path
) -> None:
    place, good, broken = folder
    assert len(broken) >= 30
    arguments = ["index", str(place), "--store", str(tmp_path / "store"), "--json"]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0, result.stderr
    report = json.loads(result.stdout)
    named = {Path(failure["source"]).name for failure in report["failed"]}
    assert broken <= named
    assert not good & named
    assert all(failure["error"] and failure["source"].isprintable() for failure in report["failed"])
    # The file whose name is not UTF-8 is good, and counts with the others.
    assert report["indexed"] == len(good) + 1
    again = json.loads(CliRunner().invoke(app, arguments).stdout)
    assert (again["indexed"], again["unchanged"], again["model_calls"]) == (0, len(good) + 1, 0)
    assert {Path(failure["source"]).name for failure in again["failed"]} == named


def test_strict_refuses(folder: tuple[Path, set[str], set[str]], tmp_path: Path) -> None:
    result = CliRunner().invoke(app, ["index", str(folder[0]), "--store", str(tmp_path / "store"), "--strict"])
    assert result.exit_code == 1
    assert result.stderr.startswith("error:")
