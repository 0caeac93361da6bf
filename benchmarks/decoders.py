"""How fast are PyAV, decord and torchcodec at what the library asks of them, and do they show the same frames?

Films of 64 s are encoded at 720p and 1080p with H.264 (closed groups of 2 s) and VP9. Each decoder samples 8 frames of
a segment of 16 s from the middle of the film, and 32 frames of the whole film: opening, checks, conversion included.
Decoders take turns; figures are medians. torchcodec needs the shared libraries of FFmpeg and is left out without.

    python benchmarks/decoders.py [--repeats N] [--seconds N]

The last line printed is one JSON object.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
from functools import partial
from pathlib import Path

import av
import numpy as np
from bench_measure import finish, machine, note, take_turns

from ume_retrieval.errors import MissingExtra
from ume_retrieval.inputs import Clip, Frames
from ume_retrieval.media import Limits, sample_video
from ume_retrieval.media.limits import DecoderName

SIZES = {"720p": (1280, 720), "1080p": (1920, 1080)}
CODECS = {
    "h264": (".mp4", "libx264", {"preset": "ultrafast", "x264-params": "open-gop=0"}),
    "vp9": (".webm", "libvpx-vp9", {"deadline": "realtime", "cpu-used": "8", "row-mt": "1"}),
}
FPS = 24


def write_film(path: Path, size: tuple[int, int], codec: str, options: dict[str, str], seconds: int) -> None:
    """Encode a moving pattern with noise, which compresses like a real film."""
    width, height = size
    noise = np.random.default_rng(0).integers(0, 6, (height, 2 * width, 3), np.uint8)
    shade = np.linspace(0, 180, 2 * width, dtype=np.uint8)[None, :, None]
    world = noise + shade
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=FPS, options=options)
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        stream.bit_rate, stream.codec_context.gop_size = 4_000_000, 2 * FPS
        for number in range(seconds * FPS):
            left = 4 * number % width
            picture = np.ascontiguousarray(world[:, left : left + width])
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode())


def usable(path: Path) -> list[DecoderName]:
    """The decoders that are installed and decode a film themselves."""
    found: list[DecoderName] = []
    for name in ("pyav", "decord", "torchcodec"):
        try:
            made = sample_video(path, 1.0, 2, Limits(decoder=name))
            note(f"{name}: {made.warnings or 'used'}")
            found += [name] if not made.warnings else []
        except MissingExtra as error:
            note(f"{name} is left out: {error.message}")
    return found


def difference(one: Frames, other: Frames) -> float:
    """Largest mean difference of two frames, of 255."""
    pairs = zip(one.images, other.images, strict=True)
    return max(float(np.abs(np.asarray(a).astype(int) - np.asarray(b).astype(int)).mean()) for a, b in pairs)


def main() -> None:
    """Measure all films."""
    parser = argparse.ArgumentParser(description="Measure the decoders of films.")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--seconds", type=int, default=64, help="length of the films")
    parser.add_argument("--quick", action="store_true", help="leave no file")
    given = parser.parse_args()
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for size, pixels in SIZES.items():
            for codec, (suffix, encoder, options) in CODECS.items():
                path = Path(folder) / f"{size}-{codec}{suffix}"
                write_film(path, pixels, encoder, options, given.seconds)
                middle = given.seconds / 2
                asked = {
                    "segment": (Clip(path, middle, min(middle + 16, given.seconds)), 2.0, 8),
                    "film": (Clip(path), 0.5, 32),
                }
                for what, (clip, fps, most) in asked.items():
                    runs = {name: partial(sample_video, clip, fps, most, Limits(decoder=name)) for name in usable(path)}
                    shown = {name: run() for name, run in runs.items()}
                    seconds = take_turns(runs, given.repeats)
                    row = {
                        "size": size,
                        "codec": codec,
                        "what": what,
                        "frames": len(shown["pyav"].images),
                        "ms": {name: round(1000 * statistics.median(times), 1) for name, times in seconds.items()},
                        "difference": {name: round(difference(shown["pyav"], made), 2) for name, made in shown.items()},
                    }
                    note(str(row))
                    rows.append(row)
    finish("decoders", {"machine": machine(), "rows": rows}, quick=given.quick)


if __name__ == "__main__":
    main()
