"""Files replaced atomically: whole under threads, processes and full disks."""

from __future__ import annotations

import errno
import os
import signal
import stat
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from ume_retrieval import InputError
from ume_retrieval.util.files import atomic_path, atomic_write

resource = pytest.importorskip("resource", reason="needs limits on what a process may write")

SIZE = 200_000
WRITER = f"""
import sys
from ume_retrieval.util.files import atomic_write
for number in range(20):
    atomic_write(sys.argv[1], chr(65 + (int(sys.argv[2]) + number) % 26) * {SIZE}, durable=False)
"""


def stream_to(path: Path, text: str, *, what: str = "the rows", fails: Exception | None = None) -> Path:
    with atomic_path(path, what=what) as part, part.open("w") as file:
        file.write(text)
        if fails:
            raise fails
    return path


def test_threads_and_processes_that_write_one_file_never_mix_or_fail(tmp_path: Path) -> None:
    target = tmp_path / "shared.txt"
    atomic_write(target, "A" * SIZE)
    over, torn = threading.Event(), []

    def read() -> int:
        count = 0
        while not over.is_set():
            text = target.read_text()
            count += 1
            if text != text[0] * SIZE:
                torn.append(text[:20])
        return count

    with ThreadPoolExecutor(5) as pool:
        reads = pool.submit(read)
        command = [sys.executable, "-c", WRITER, target]
        others = [subprocess.Popen([*command, str(n)]) for n in range(2)]  # noqa: S603  # our own interpreter and text
        written = [
            pool.submit(atomic_write, target, chr(97 + number % 26) * SIZE, durable=number % 8 == 0)
            for number in range(40)
        ]
        assert [future.result() for future in written] == [target] * 40
        assert [other.wait(60) for other in others] == [0, 0]
        over.set()
        assert reads.result() > 0
    assert not torn
    assert list(tmp_path.iterdir()) == [target]


@pytest.mark.parametrize("stream", [False, True])
def test_a_disk_that_is_full_leaves_the_old_file(tmp_path: Path, stream: bool) -> None:
    target = atomic_write(tmp_path / "rows.txt", "old")
    limits, handler = resource.getrlimit(resource.RLIMIT_FSIZE), signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (1000, limits[1]))
        with pytest.raises(InputError, match=r"cannot write the rows to .*: File too large") as caught:
            (stream_to if stream else atomic_write)(target, "new" * 1000, what="the rows")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, handler)
    assert caught.value.hint
    assert target.read_text() == "old"
    assert list(tmp_path.iterdir()) == [target]


def test_a_block_that_fails_leaves_the_old_file_and_raises_its_own_error(tmp_path: Path) -> None:
    target = atomic_write(tmp_path / "rows.txt", "old")
    for error in (ValueError("row 3"), ConnectionResetError(errno.ECONNRESET, "reset"), FileNotFoundError(2, "x", "y")):
        with pytest.raises(type(error)) as caught:
            stream_to(target, "new", fails=error)
        assert caught.value is error
    assert target.read_text() == "old"
    assert list(tmp_path.iterdir()) == [target]


def test_a_place_that_is_no_file_is_a_typed_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("kept")
    for place in (tmp_path, tmp_path / "file" / "rows.txt", tmp_path / ("n" * 300)):
        for write in (atomic_write, stream_to):
            with pytest.raises(InputError, match="cannot write the rows to"):
                write(place, "x", what="the rows")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_links_pipes_long_names_and_permissions_are_kept(tmp_path: Path) -> None:
    real, link, pipe = tmp_path / "real.txt", tmp_path / "link.txt", tmp_path / "pipe"
    link.symlink_to(real)
    atomic_write(link, "through")
    assert link.is_symlink()
    assert real.read_text() == "through"
    plain = tmp_path / "plain"
    plain.write_text("")
    assert stat.S_IMODE(real.stat().st_mode) == stat.S_IMODE(plain.stat().st_mode)

    os.mkfifo(pipe)
    with ThreadPoolExecutor(1) as pool:
        read = pool.submit(pipe.read_text)
        atomic_write(pipe, "streamed")
        assert read.result(10) == "streamed"
    assert stat.S_ISFIFO(pipe.stat().st_mode)

    for name in ("n" * 255, "😀" * 63):
        assert atomic_write(tmp_path / name, "\ud800 é").read_bytes() == rb"\ud800 " + "é".encode()
