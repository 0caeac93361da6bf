from __future__ import annotations

import os
import socket
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from media_makers import numbered, pdf, write_gif

from ume_retrieval import Failure, Limits
from ume_retrieval.media import FoundFile, display_name, walk


def touch(path: Path, data: bytes | None = None) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    if data is None:
        numbered(1).save(path, "PNG")
    else:
        path.write_bytes(data)
    return path


def kinds(*paths: Path | str, **settings: bool) -> dict[str, str]:
    """Name -> kind or error code."""
    found = walk(paths, **settings)
    return {Path(one.source).name: one.error if isinstance(one, Failure) else one.kind for one in found}


def sources(*paths: Path, **settings: bool) -> list[str]:
    return [one.source for one in walk(paths, **settings)]


def test_bytes_decide_and_names_do_not(tmp_path: Path, films: dict[str, Path]) -> None:
    touch(tmp_path / "image.mp4")
    touch(tmp_path / "image.txt")
    touch(tmp_path / "image")
    touch(tmp_path / "film.jpg", films["webm"].read_bytes())
    touch(tmp_path / "paper.png", pdf(1))
    touch(tmp_path / "words.md", b"# A title")
    write_gif(tmp_path / "moving.gif", 2)
    write_gif(tmp_path / "still.gif", 1)
    touch(tmp_path / "foreign.jpg", b"once upon a time")
    touch(tmp_path / "phone.heic", b"\0\0\0\x18ftypheic" + bytes(20))
    touch(tmp_path / "report.docx", b"PK\3\4")
    touch(tmp_path / "code.py", b"The free software")
    touch(tmp_path / "__init__.py", b"")
    touch(tmp_path / "song.m4a", b"\0\0\0\x18ftypM4A " + bytes(20))
    touch(tmp_path / "empty.txt", b"")
    touch(tmp_path / "empty.webp", b"")
    assert kinds(tmp_path) == {
        "image.mp4": "image",
        "image.txt": "image",
        "image": "image",
        "film.jpg": "video",
        "paper.png": "pdf",
        "words.md": "text",
        "moving.gif": "video",
        "still.gif": "image",
        "foreign.jpg": "unsupported_media",
        "phone.heic": "image",
        "empty.txt": "broken_media",
        "empty.webp": "broken_media",
    }


def test_a_found_file_tells_size_and_time(tmp_path: Path) -> None:
    path = touch(tmp_path / "a.png")
    os.utime(path, ns=(5, 123_456_789))
    assert list(walk([path])) == [FoundFile(path, str(path), path.stat().st_size, 123_456_789, "image")]


def test_order_is_fixed_and_nothing_comes_twice(tmp_path: Path) -> None:
    names = ["b/2.png", "b/10.png", "B/1.png", "a.png", "b.png", "\xe4.png", "z/y/x.png"]
    for name in names:
        touch(tmp_path / name)
    expected = sorted((tmp_path / name for name in names), key=lambda path: [os.fsencode(part) for part in path.parts])
    assert sources(tmp_path) == [str(path) for path in expected]
    assert sources(tmp_path, tmp_path / "b", tmp_path / "a.png") == sources(tmp_path)
    assert sources(tmp_path / "b" / ".." / "a.png", tmp_path)[0] == str(tmp_path / "a.png")


def test_hidden_files_are_skipped_unless_named(tmp_path: Path) -> None:
    hidden, inside = touch(tmp_path / ".hidden.png"), touch(tmp_path / ".cache" / "a.png")
    assert sources(tmp_path) == []
    assert sources(hidden, inside.parent) == [str(hidden), str(inside)]


def test_what_was_named_is_never_skipped_silently(tmp_path: Path) -> None:
    assert kinds(
        touch(tmp_path / "a.docx", b"PK\3\4"),
        touch(tmp_path / "b.bin", b""),
        tmp_path / "gone.png",
        "https://a.org/x.png",
    ) == {
        "a.docx": "unsupported_media",
        "b.bin": "broken_media",
        "gone.png": "media_not_found",
        "x.png": "remote_not_allowed",
    }


def test_a_text_under_another_name_says_which_names_are_read(tmp_path: Path) -> None:
    """Passed over in a folder, as most files there are nobody's to index; what is named is wanted."""
    table, page = touch(tmp_path / "a.csv", "näme\tkind\n".encode() * 500), touch(tmp_path / "b.html", b"<p>words</p>")
    data = touch(tmp_path / "c.dat", b"words\0and data")
    assert list(walk([tmp_path])) == []
    hints = [one.hint for one in walk([table, page, data]) if isinstance(one, Failure)]
    assert [".md or .txt" in hint for hint in hints] == [True, True, False]


def test_behind_a_link_the_parent_is_that_of_its_target(tmp_path: Path) -> None:
    right, wrong = touch(tmp_path / "real" / "a.png"), touch(tmp_path / "here" / "a.png")
    (tmp_path / "real" / "sub").mkdir()
    (tmp_path / "here" / "link").symlink_to(tmp_path / "real" / "sub")
    assert sources(tmp_path / "here" / "link" / ".." / "a.png") == [str(right)]
    assert sources(tmp_path / "here" / ".." / "here" / "a.png") == [str(wrong)]


def test_failures_say_where_and_what_to_do(tmp_path: Path) -> None:
    touch(tmp_path / "a.png")
    touch(tmp_path / "b.png", b"")
    _, failure = walk([tmp_path])
    assert failure == Failure(1, str(tmp_path / "b.png"), "broken_media", failure.message, failure.hint)
    assert "b.png is empty" in failure.message
    assert failure.hint


def test_too_many_bytes(tmp_path: Path) -> None:
    touch(tmp_path / "a.png")
    touch(tmp_path / "a.docx", bytes(5000))
    (failure,) = walk([tmp_path], limits=Limits(max_bytes=100))
    assert isinstance(failure, Failure)
    assert failure.error == "media_too_large"


def test_links_inside_are_followed_once(tmp_path: Path) -> None:
    touch(tmp_path / "real" / "a.png")
    touch(tmp_path / ".store" / "b.png")
    (tmp_path / "also-a.png").symlink_to("real/a.png")
    (tmp_path / "b.png").symlink_to(".store/b.png")
    (tmp_path / "alias").symlink_to("real")
    (tmp_path / "store").symlink_to(".store")
    assert sources(tmp_path) == [str(tmp_path / name) for name in ("real/a.png", "b.png")]


def test_links_that_lead_out_are_followed_only_when_allowed(tmp_path: Path) -> None:
    touch(tmp_path / "out" / "a.png")
    touch(tmp_path / "out" / "deep" / "b.png")
    touch(tmp_path / "out" / "c.docx", b"PK\3\4")
    root = tmp_path / "root"
    root.mkdir()
    (root / "a.png").symlink_to(tmp_path / "out" / "a.png")
    (root / "c.docx").symlink_to(tmp_path / "out" / "c.docx")
    (root / "deep").symlink_to(tmp_path / "out" / "deep")
    assert kinds(root) == {"a.png": "media_not_found", "deep": "media_not_found"}
    assert kinds(root, follow_symlinks=True) == {"a.png": "image", "b.png": "image"}
    assert sources(root / "deep") == [str(root / "deep" / "b.png")]


@pytest.mark.parametrize("follow", [False, True])
def test_loops_of_links_end_and_are_named(tmp_path: Path, follow: bool) -> None:
    root = tmp_path / "root"
    touch(root / "a" / "a.png")
    touch(root / "b" / "b.png")
    (root / "self").symlink_to("self")
    (root / "ping").symlink_to("pong")
    (root / "pong").symlink_to("ping")
    (root / "a" / "up").symlink_to("..")
    (root / "a" / "here").symlink_to(".")
    (root / "b" / "to-c").symlink_to("../c")
    touch(root / "c" / "c.png")
    (root / "c" / "to-b").symlink_to("../b")
    (root / "dead.jpg").symlink_to("nowhere.jpg")
    found = kinds(root, follow_symlinks=follow)
    looped = dict.fromkeys(("self", "ping", "pong", "up", "here", "to-c", "to-b", "dead.jpg"), "media_not_found")
    assert found == looped | {"a.png": "image", "b.png": "image", "c.png": "image"}
    assert "leads back to itself" in next(
        one.message for one in walk([root]) if isinstance(one, Failure) and one.source.endswith("up")
    )


def test_a_loop_through_a_folder_outside_ends(tmp_path: Path) -> None:
    touch(tmp_path / "root" / "a.png")
    touch(tmp_path / "out" / "b.png")
    (tmp_path / "root" / "out").symlink_to(tmp_path / "out")
    (tmp_path / "out" / "back").symlink_to(tmp_path / "root")
    assert kinds(tmp_path / "root", follow_symlinks=True) == {
        "a.png": "image",
        "b.png": "image",
        "back": "media_not_found",
    }


def test_ladders_of_links_do_not_explode(tmp_path: Path) -> None:
    for step in range(30):
        touch(tmp_path / f"{step}" / "a.png")
        for twin in ("l", "r"):
            (tmp_path / f"{step}" / twin).symlink_to(f"../{step + 1}")
    touch(tmp_path / "30" / "a.png")
    assert len(sources(tmp_path)) == 31


def test_pipes_sockets_and_devices_are_never_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    os.mkfifo(tmp_path / "pipe.jpg")
    os.mkfifo(tmp_path / "pipe")
    monkeypatch.chdir(tmp_path)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind("socket.mp4")
        (tmp_path / "null.png").symlink_to("/dev/null")
        assert kinds(tmp_path, follow_symlinks=True) == {
            "pipe.jpg": "media_not_found",
            "socket.mp4": "media_not_found",
            "null.png": "media_not_found",
        }


WALK_AS_NOBODY = """
import os, sys
from pathlib import Path
from ume_retrieval.media import walk
if os.getuid() == 0:
    os.setgid(65534)
    os.setuid(65534)
for one in walk([sys.argv[1]]):
    sys.stdout.write(f"{getattr(one, 'error', 'found')} {Path(one.source).name}\\n")
"""


def test_unreadable_files_and_folders_are_failures() -> None:
    # Not tmp_path: its parents are closed to others, and root, who may run the tests, can read everything.
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o755)
        touch(folder / "open.png")
        touch(folder / "shut.png").chmod(0)
        touch(folder / "shut" / "a.png")
        (folder / "shut").chmod(0)
        command = [sys.executable, "-c", WALK_AS_NOBODY, name]
        run = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)  # noqa: S603  # our own
        (folder / "shut").chmod(0o700)
    assert run.stderr == ""
    assert run.stdout.splitlines() == ["found open.png", "media_not_found shut", "media_not_found shut.png"]


def test_names_that_are_not_utf8_are_found_and_safe(tmp_path: Path) -> None:
    raw = [
        b"caf\xe9.png",
        b"caf\xe8.png",
        b"red\x1b[31m.png",
        b"two\nlines.png",
        b"caf\\xe9.png",
        b"\xff\xfe.jpg",
    ]
    for name in raw:
        touch(tmp_path / os.fsdecode(name))
    shown = sources(tmp_path)
    assert len(set(shown)) == len(raw)
    for source in shown:
        assert source.isprintable()
        source.encode("utf-8")
    assert any(source.endswith("caf\\xe9.png") for source in shown)
    assert any(source.endswith("caf\\\\xe9.png") for source in shown)
    assert all(one.path.exists() for one in walk([tmp_path]) if isinstance(one, FoundFile))


NAMES = st.binary(min_size=1, max_size=8).map(os.fsdecode) | st.text(max_size=8) | st.from_regex(r"(\\|x|u|e|9|0)*")


@settings(deadline=None)
@given(NAMES, NAMES)
def test_shown_names_are_printable_and_tell_paths_apart(one: str, two: str) -> None:
    assume(one != two)
    assert display_name(one).isprintable()
    assert display_name(one) != display_name(two)
    display_name(one).encode("utf-8")


@settings(deadline=None, max_examples=40)
@given(st.binary(max_size=64), st.sampled_from(["a.jpg", "a.gif", "a.mp4", "a.pdf", "a.txt", "a"]))
def test_any_bytes_are_walked(tmp_path_factory: pytest.TempPathFactory, data: bytes, name: str) -> None:
    path = touch(tmp_path_factory.mktemp("any") / name, data)
    assert len(list(walk([path]))) == 1
    assert len(list(walk([path.parent]))) <= 1
