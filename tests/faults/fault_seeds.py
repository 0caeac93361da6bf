"""Hostile media: small real files, and what a hostile hand does to them."""

from __future__ import annotations

import io
import random
import struct
import sys
import zlib
from collections.abc import Callable
from pathlib import Path

import PIL.Image

sys.path.append(str(Path(__file__).parents[1] / "media"))

from media_makers import chunk, numbered, pdf, png, write_gif, write_video  # found by the path above

Mutation = Callable[[bytes, random.Random], bytes]

EDGES = (0, 1, 0x7F, 0xFF, 0x7FFF, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFE, 0xFFFFFFFF)
# Where numbers of time stand behind a mark: boxes of MP4, elements of Matroska, headers of AVI.
TIMES = {
    b"mvhd": (12, 16),
    b"mdhd": (12, 16),
    b"tkhd": (20, 24),
    b"stts": (4, 8, 12),
    b"elst": (8, 12, 16),
    b"ctts": (8, 12),
    b"\x44\x89": (1, 3),
    b"\x2a\xd7\xb1": (1, 2),
    b"\x23\xe3\x83": (1, 2),
    b"avih": (4, 20),
    b"strh": (24, 28, 36),
}
NAMES = (
    "line\nbreak", "red\x1b[31m\x1b]0;title\x07", "bell\x07", "\u202egnp.exe", "-rf", "a" * 200, "%s%n{0}", "'\"`$(id)",
    "caf\udce9", "<img src=x onerror=alert(1)>", "tab\there", "null\u2400", " ", "..;", "\u200b",
)  # fmt: skip


def seeds(folder: Path) -> dict[str, bytes]:
    """Real files of every kind, by name."""
    folder.mkdir(parents=True, exist_ok=True)
    found: dict[str, bytes] = {}
    for form in ("png", "jpeg", "webp", "bmp", "tiff", "gif"):
        buffer = io.BytesIO()
        numbered(5).save(buffer, form)
        found[f"still.{form}"] = buffer.getvalue()
    write_gif(folder / "moving.gif", 5)
    codecs = {"a.mp4": "libx264", "b.mp4": "mpeg4", "c.webm": "libvpx", "d.mkv": "libx264", "e.avi": "mpeg4"}
    for name, codec in codecs.items():
        write_video(folder / name, [numbered(k, 64, 48) for k in range(12)], codec=codec, gop=4)
    for path in sorted(folder.iterdir()):
        found[path.name] = path.read_bytes()
    found["made.pdf"] = pdf(3)
    buffer = io.BytesIO()
    pages = [PIL.Image.new("RGB", (40, 40), colour) for colour in ("red", "blue")]
    pages[0].save(buffer, "PDF", save_all=True, append_images=pages[1:])
    found["drawn.pdf"] = buffer.getvalue()
    return found


def flip(data: bytes, rng: random.Random) -> bytes:
    """Bytes anywhere become others."""
    spoilt = bytearray(data)
    for _ in range(rng.choice((1, 2, 8, 64))):
        spoilt[rng.randrange(len(spoilt))] = rng.randrange(256)
    return bytes(spoilt)


def header(data: bytes, rng: random.Random) -> bytes:
    """Bytes behind the magic number become others."""
    spoilt = bytearray(data)
    for _ in range(rng.randint(1, 6)):
        spoilt[rng.randrange(4, min(len(spoilt), 96))] = rng.randrange(256)
    return bytes(spoilt)


def lengths(data: bytes, rng: random.Random) -> bytes:
    """Numbers become the largest, the smallest and negative ones."""
    spoilt = bytearray(data)
    for _ in range(rng.randint(1, 4)):
        form = rng.choice((">I", "<I", ">H", "<H"))
        place = rng.randrange(len(spoilt) - 4)
        struct.pack_into(form, spoilt, place, rng.choice(EDGES) & (0xFFFF if form[1] == "H" else 0xFFFFFFFF))
    return bytes(spoilt)


def cut(data: bytes, rng: random.Random) -> bytes:
    """The end is missing, or a piece in the middle."""
    start = rng.randrange(1, len(data))
    return data[:start] + (b"" if rng.random() < 0.5 else data[start + rng.randrange(1, 200) :])


def repeated(data: bytes, rng: random.Random) -> bytes:
    """A piece stands there often."""
    start = rng.randrange(len(data))
    end = min(len(data), start + rng.randrange(1, 400))
    return data[:end] + data[start:end] * rng.choice((1, 10, 1000)) + data[end:]


def polyglot(data: bytes, rng: random.Random) -> bytes:
    """Another kind of file before, behind or inside."""
    scripts = (b"<html><script>alert(1)</script></html>", b"PK\x05\x06" + bytes(18), b"#!/bin/sh\nid\n")
    media = (pdf(1), png(1, 1, 8, 2, bytes(4)), b"\xff\xd8\xff\xe0" + bytes(20), b"MZ" + bytes(60))
    other = rng.choice((*scripts, *media))
    place = rng.choice((0, len(data), rng.randrange(len(data))))
    return data[:place] + other + data[place:]


def numbers_of_time(data: bytes, rng: random.Random) -> bytes:
    """Frame rates beyond reason, durations that are negative, zero or endless; `lengths` where there are none."""
    spoilt = bytearray(data)
    there = [mark for mark in TIMES if mark in data]
    if not there:
        return lengths(data, rng)
    for mark in rng.sample(there, rng.randint(1, len(there))):
        place = data.index(mark) + len(mark) + rng.choice(TIMES[mark])
        if place + 4 <= len(spoilt):
            struct.pack_into(">I", spoilt, place, rng.choice(EDGES))
    return bytes(spoilt)


MUTATIONS: tuple[Mutation, ...] = (flip, header, lengths, cut, repeated, polyglot, numbers_of_time)


def crafted() -> dict[str, bytes]:
    """Files that no mutation would find: bombs, loops and towers."""
    bomb = zlib.compress(bytes(200_000_000), 9)
    box = b""
    for _ in range(3_000):
        box = struct.pack(">I", len(box) + 8) + b"moov" + box
    header_box = struct.pack(">I", 16) + b"ftypisom" + bytes(4)
    nested_pdf = pdf(1, trailer="/Deep " + "[" * 50_000 + "]" * 50_000)
    loop = pdf(2).replace(b"/Kids [3 0 R 5 0 R]", b"/Kids [2 0 R 2 0 R]")
    many = pdf(2).replace(b"/Count 2 ", b"/Count 9 ").replace(b"/Kids [3 0 R 5 0 R]", b"/Kids [3 0 R 3 0 R]")
    stream = b"<< /Length %d /Filter [%s] >>\nstream\n%s\nendstream" % (len(bomb), b"/FlateDecode", bomb)
    frame = b"\x2c" + struct.pack("<HHHHB", 0, 0, 1, 1, 0) + b"\x02\x02\x44\x01\x00"
    gif = b"GIF89a" + struct.pack("<HHBBB", 1, 1, 0x80, 0, 0) + bytes(6)
    big_gif = b"GIF89a" + struct.pack("<HHBBB", 65535, 65535, 0x80, 0, 0) + bytes(6)
    return {
        "wide.png": _png(0x7FFFFFFF, 0x7FFFFFFF, zlib.compress(b"x")),
        "tall.png": _png(1, 0x7FFFFFFF, zlib.compress(b"x")),
        "inflates.png": _png(8, 8, bomb),
        "words.png": _png(8, 8, zlib.compress(bytes(200)), chunk(b"zTXt", b"a\0\0" + bomb)),
        "colours.png": _png(8, 8, zlib.compress(bytes(200)), chunk(b"iCCP", b"a\0\0" + bomb)),
        "tower.mp4": header_box + box,
        "deep.pdf": nested_pdf,
        "loop.pdf": loop,
        "double.pdf": many,
        "stream.pdf": pdf(1).replace(b"%%EOF", stream + b"\n%%EOF"),
        "frames.gif": gif + frame * 60_000 + b"\x3b",
        "plane.gif": big_gif + frame * 3 + b"\x3b",
        "inside.gif": gif + b"\x2c" + struct.pack("<HHHHB", 60000, 60000, 65535, 65535, 0) + frame[10:] + b"\x3b",
        "playlist.mp4": b"#EXTM3U\n#EXTINF:1,\nfile:///etc/passwd\n",
        "concat.mkv": b"ffconcat version 1.0\nfile /etc/passwd\n",
        "svg.png": b'<svg xmlns="http://www.w3.org/2000/svg"><image href="file:///etc/passwd"/></svg>',
        "eps.png": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n(/etc/passwd) (r) file\n",
        "action.pdf": pdf(1, page_extra="/AA << /O << /S /JavaScript /JS (app.alert\\(1\\)) >> >>"),
        "launch.pdf": pdf(1, page_extra="/AA << /O << /S /Launch /F (/bin/sh) >> >>"),
    }  # fmt: skip


def _png(width: int, height: int, packed: bytes, extra: bytes = b"") -> bytes:
    """A PNG that claims a size, whatever its packed rows hold."""
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + extra + chunk(b"IDAT", packed) + chunk(b"IEND", b"")


def hostile(number: int, originals: dict[str, bytes]) -> tuple[str, bytes]:
    """The n-th mutated file with its name; the same number gives the same file."""
    rng = random.Random(number)
    name = rng.choice(sorted(originals))
    data = originals[name]
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        if len(data) > 200:
            data = rng.choice(MUTATIONS)(data, rng)
    if rng.random() < 0.05:
        other = originals[rng.choice(sorted(originals))]
        data = data[: len(data) // 2] + other[len(other) // 2 :]
    stem, _, suffix = name.rpartition(".")
    return f"{number}-{rng.choice(NAMES)}.{suffix}" if rng.random() < 0.5 else f"{number}-{stem}.{suffix}", data
