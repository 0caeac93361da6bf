"""Small real files of one colour each: pictures, clips, documents."""

from __future__ import annotations

from pathlib import Path

import av
import numpy as np
import PIL.Image

RED, GREEN, BLUE, YELLOW = (220, 40, 40), (40, 160, 60), (40, 80, 210), (240, 220, 50)


def picture(path: Path, colour: tuple[int, int, int]) -> Path:
    PIL.Image.new("RGB", (64, 48), colour).save(path)
    return path


def clip(path: Path, seconds: int, *colours: tuple[int, int, int]) -> Path:
    """A video of 2 frames a second; the colours follow each other."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=2)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for n in range(2 * seconds):
            colour = colours[n * len(colours) // (2 * seconds)]
            frame = av.VideoFrame.from_ndarray(np.full((48, 64, 3), colour, dtype=np.uint8), format="rgb24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def document(path: Path, *colours: tuple[int, int, int]) -> Path:
    first, *rest = [PIL.Image.new("RGB", (64, 64), colour) for colour in colours]
    first.save(path, save_all=True, append_images=rest)
    return path


def fill(folder: Path) -> Path:
    """Six files, eight points: three pictures, a text, two pages, two segments of video."""
    (folder / "deep").mkdir(parents=True)
    picture(folder / "red.png", RED)
    picture(folder / "green.png", GREEN)
    picture(folder / "deep" / "blue.png", BLUE)
    (folder / "notes.txt").write_text("the last train home", encoding="utf-8")
    document(folder / "report.pdf", RED, YELLOW)
    clip(folder / "clip.mp4", 20, GREEN, BLUE)
    return folder
