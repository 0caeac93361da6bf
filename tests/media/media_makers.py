"""Real files for the tests: videos whose frames carry their number, hand-made PNG, TIFF and PDF."""

from __future__ import annotations

import struct
import zlib
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import PIL.Image

WIDTH, HEIGHT = 160, 96
BITS = 8


def numbered(number: int, width: int = WIDTH, height: int = HEIGHT) -> PIL.Image.Image:
    """A picture that says its number in black and white bars on top, and which way is up by red and blue below."""
    pixels = np.zeros((height, width, 3), np.uint8)
    for bit in range(BITS):
        pixels[: height // 2, bit * width // BITS : (bit + 1) * width // BITS] = 255 * (number >> bit & 1)
    pixels[height // 2 :, : width // 2] = (255, 0, 0)
    pixels[height // 2 :, width // 2 :] = (0, 0, 255)
    return PIL.Image.fromarray(pixels)


def number_of(image: PIL.Image.Image) -> int:
    """Read the number; fails when the picture is not upright."""
    assert image.mode == "RGB"
    pixels = np.asarray(image).astype(int)
    height, width, _ = pixels.shape
    left, right = pixels[height * 3 // 4, width // 4], pixels[height * 3 // 4, width * 3 // 4]
    assert left[0] > 150 > left[2], f"no red at the lower left: {left}"
    assert right[2] > 150 > right[0], f"no blue at the lower right: {right}"
    row = pixels[height // 4, :, 0]
    return sum(1 << bit for bit in range(BITS) if row[(2 * bit + 1) * width // (2 * BITS)] > 128)


CODECS = {
    ".mp4": "libx264",
    ".mov": "mpeg4",
    ".mkv": "libx264",
    ".webm": "libvpx",
    ".avi": "mpeg4",
    ".ts": "libx264",
    ".m2ts": "libx264",
    ".wmv": "wmv2",
    ".flv": "flv",
    ".ogv": "libvpx",
    ".ivf": "libvpx",
    ".y4m": "wrapped_avframe",
}
OPTIONS = {
    "libx264": {"preset": "ultrafast", "bf": "2", "x264-params": "open-gop=1"},
    "libx264-closed": {"preset": "ultrafast", "bf": "2", "x264-params": "open-gop=0"},
    "libvpx": {"deadline": "realtime", "cpu-used": "8"},
    "mpeg4": {"qscale": "3", "bf": "2"},
}


def write_video(
    target: object,
    pictures: list[PIL.Image.Image],
    *,
    codec: str | None = None,
    fps: int = 10,
    times_ms: list[int] | None = None,
    gop: int = 12,
    matrix: tuple[int, bool, bool] | None = None,
    sample_aspect: Fraction | None = None,
    sound_s: float = 0.0,
    form: str | None = None,
    muxing: dict[str, str] | None = None,
) -> None:
    """Encode pictures; `times_ms` gives each its own time, `matrix` a rotation and flips to be applied on display."""
    codec = codec or CODECS[Path(str(target)).suffix]
    with av.open(target, "w", format=form, options=muxing or {}) as container:
        stream = container.add_stream(codec.removesuffix("-closed"), rate=fps, options=OPTIONS.get(codec, {}))
        stream.width, stream.height = pictures[0].size
        stream.pix_fmt = "yuvj420p" if codec == "mjpeg" else "yuv420p"
        stream.codec_context.gop_size = gop
        if times_ms is not None:
            stream.codec_context.time_base = Fraction(1, 1000)
        if matrix is not None:
            stream.set_display_rotation(matrix[0], hflip=matrix[1], vflip=matrix[2])
        if sample_aspect is not None:
            stream.codec_context.sample_aspect_ratio = sample_aspect
        sound = container.add_stream("pcm_s16le", rate=8000, layout="mono") if sound_s else None
        for index, picture in enumerate(pictures):
            frame = av.VideoFrame.from_image(picture)
            frame.pts = index if times_ms is None else times_ms[index]
            frame.time_base = Fraction(1, fps) if times_ms is None else Fraction(1, 1000)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
        if sound is not None:
            for tenth in range(int(10 * sound_s)):
                silence = av.AudioFrame.from_ndarray(np.zeros((1, 800), np.int16), "s16", "mono")
                silence.sample_rate, silence.pts = 8000, 800 * tenth
                container.mux(sound.encode(silence))
            container.mux(sound.encode())


def write_numbered(target: object, count: int = 40, **settings: object) -> None:
    write_video(target, [numbered(k) for k in range(count)], **settings)


def write_gif(path: Path, count: int, durations_ms: list[int] | int = 100) -> None:
    first, *rest = [numbered(k).quantize(16) for k in range(count)]
    first.save(path, save_all=True, append_images=rest, duration=durations_ms, loop=0)


def write_animation(path: Path, count: int, durations_ms: list[int] | int = 100) -> None:
    """An animated WebP, PNG or AVIF, without loss where the format can."""
    first, *rest = [numbered(k) for k in range(count)]
    options = {"lossless": True} if path.suffix == ".webp" else {"quality": 90} if path.suffix == ".avif" else {}
    first.save(path, save_all=True, append_images=rest, duration=durations_ms, loop=0, **options)


def png(width: int, height: int, depth: int, colour: int, rows: bytes, *, extra: bytes = b"") -> bytes:
    """A PNG made by hand; `rows` come with their filter bytes, `extra` are whole chunks before the data."""
    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + extra
        + chunk(b"IDAT", zlib.compress(rows))
        + chunk(b"IEND", b"")
    )


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def tiff(width: int, height: int, bits: tuple[int, ...], *, photometric: int, data: bytes) -> bytes:
    """An uncompressed little-endian TIFF made by hand."""
    tags = 10
    after = 8 + 2 + 12 * tags + 4
    bits_at, data_at = after, after + 2 * len(bits)
    packed_bits = struct.pack(f"<{len(bits)}H", *bits)

    def tag(number: int, kind: int, count: int, value: int) -> bytes:
        return struct.pack("<HHII", number, kind, count, value)

    entries = (
        tag(256, 4, 1, width),
        tag(257, 4, 1, height),
        tag(258, 3, len(bits), bits[0] if len(bits) == 1 else bits_at),
        tag(259, 3, 1, 1),
        tag(262, 3, 1, photometric),
        tag(273, 4, 1, data_at),
        tag(277, 3, 1, len(bits)),
        tag(278, 4, 1, height),
        tag(279, 4, 1, len(data)),
        tag(284, 3, 1, 1),
    )
    return b"II*\0" + struct.pack("<IH", 8, tags) + b"".join(entries) + b"\0\0\0\0" + packed_bits + data


def pdf(pages: int, *, width: float = 200, height: float = 100, trailer: str = "", page_extra: str = "") -> bytes:
    """A PDF made by hand; page n has a red square in its upper left corner and a black bar n x 10 points wide below."""
    objects = [b"<< /Type /Catalog /Pages 2 0 R >>", b""]
    for number in range(1, pages + 1):
        drawing = (
            f"1 0 0 rg 0 {height - 20} 20 20 re f 0 g 0 0 {10 * number} 20 re f "
            f"BT /F1 12 Tf 40 {height / 2} Td (page {number}) Tj ET"
        ).encode()
        contents = f"/Contents {len(objects) + 2} 0 R"
        objects.append(
            f"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 {width} {height}] {contents} {page_extra} "
            "/Resources << /Font << /F1 << /Type /Font /Subtype /Type1 /BaseFont /Helvetica >> >> >> >>".encode()
        )
        objects.append(b"<< /Length %d >>\nstream\n%s\nendstream" % (len(drawing), drawing))
    kids = " ".join(f"{3 + 2 * i} 0 R" for i in range(pages))
    objects[1] = f"<< /Type /Pages /Kids [{kids}] /Count {pages} >>".encode()
    body, offsets = b"%PDF-1.4\n", []
    for number, content in enumerate(objects, 1):
        offsets.append(len(body))
        body += b"%d 0 obj\n%s\nendobj\n" % (number, content)
    table = b"".join(b"%010d 00000 n \n" % offset for offset in offsets)
    end = f"trailer\n<< /Size {len(objects) + 1} /Root 1 0 R {trailer} >>\nstartxref\n{len(body)}\n%%EOF\n".encode()
    return body + b"xref\n0 %d\n0000000000 65535 f \n" % (len(objects) + 1) + table + end


LOCKED = f"/Encrypt << /Filter /Standard /V 1 /R 2 /P -4 /O <{'41' * 32}> /U <{'42' * 32}> >> /ID [<00> <00>]"
"""A trailer entry that asks for a password which nobody has."""
