"""`examples/watch_folder.py`, as a process with the bundled pair, while files come, change and go."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from ume_qdrant import open_store
from ume_qdrant.stores.edge_folder import FileLock
from ume_retrieval.errors import CollectionNotFound, StoreLocked
from ume_training.shapes.draw import draw_scene
from ume_training.shapes.levels import LEVELS
from ume_training.shapes.world import sample_scene

SCRIPT = Path(__file__).parents[2] / "examples" / "watch_folder.py"
PATIENCE_S = 180
RNG, LEVEL = random.Random(4), LEVELS["default"]


class Watching:
    """The watcher as a process over `place/media`; its store lies inside of what it watches."""

    def __init__(self, place: Path) -> None:
        self.media = place / "media"
        self.media.mkdir(exist_ok=True)
        self.store = self.media / "vectors"
        self.log = place / "log"
        self._place = place

    def start(self) -> None:
        command = [sys.executable, str(SCRIPT), str(self.media), "--store", str(self.store)]
        environment = {**os.environ, "HF_HUB_OFFLINE": "1", "UME_CACHE_DIR": str(self._place / "cache")}
        with self.log.open("a") as log:
            self.process = subprocess.Popen(command, env=environment, stdout=log, stderr=log)  # noqa: S603 our script

    def stop(self, by: signal.Signals) -> int:
        self.process.send_signal(by)
        return self.process.wait(60)

    def states(self) -> dict[str, str] | None:
        """Name and state of reasoning of every file in the collection, None while it cannot be looked at."""
        try:
            with open_store(self.store, "default") as store:
                return {Path(point.payload["source"]).name: point.payload["reasoning"] for point in store.scroll()}
        except (CollectionNotFound, StoreLocked):
            return None

    def wait_for(self, *names: str) -> None:
        """Until the collection holds exactly these files, all reasoned over."""
        wanted = dict.fromkeys(names, "done")
        self.until(lambda: self.states() == wanted)

    def until(self, done: Callable[[], bool]) -> None:
        deadline = time.monotonic() + PATIENCE_S
        while not done():
            assert self.process.poll() is None, self.said()
            assert time.monotonic() < deadline, f"{self.states()}\n{self.said()}"
            time.sleep(0.7)

    def said(self) -> str:
        return self.log.read_text()


@pytest.fixture
def watching(tmp_path: Path) -> Iterator[Watching]:
    watching = Watching(tmp_path)
    yield watching
    if watching.process.poll() is None:
        watching.process.kill()
        watching.process.wait()


def draw(path: Path) -> None:
    draw_scene(sample_scene(RNG, LEVEL), RNG).save(path)


def digests(watching: Watching) -> dict[str, str]:
    with open_store(watching.store, "default") as store:
        return {Path(point.payload["source"]).name: point.payload["file_digest"] for point in store.scroll()}


@pytest.mark.slow
def test_files_come_change_move_and_go(watching: Watching) -> None:
    media = watching.media
    draw(media / "a.png")
    watching.start()
    watching.wait_for("a.png")

    (media / "deep").mkdir()
    draw(media / "deep" / "b.png")
    (media / "note.txt").write_text("find image: red circle top left")
    watching.wait_for("a.png", "b.png", "note.txt")

    before = digests(watching)
    draw(media / "a.png")
    watching.until(lambda: watching.states() is not None and digests(watching)["a.png"] != before["a.png"])
    watching.wait_for("a.png", "b.png", "note.txt")
    assert digests(watching)["b.png"] == before["b.png"]

    (media / "deep" / "b.png").rename(media / "c.png")
    watching.wait_for("a.png", "c.png", "note.txt")

    (media / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n and nothing more")
    (media / "a.png").unlink()
    watching.wait_for("c.png", "note.txt")
    watching.until(lambda: "broken.png" in watching.said())
    draw(media / "d.png")
    watching.wait_for("c.png", "d.png", "note.txt")
    assert watching.said().count("left out:") == 1, "a broken file is named once"
    assert "Traceback" not in watching.said()

    draw(media / "broken.png")
    watching.wait_for("broken.png", "c.png", "d.png", "note.txt")

    passes = watching.said().count(" indexed, ")
    time.sleep(3)
    assert watching.said().count(" indexed, ") == passes, "its own writing is no change"

    assert watching.stop(signal.SIGINT) == 130
    assert watching.said().rstrip().endswith("stopped; the same command goes on from here")

    (media / "c.png").unlink()  # while nobody watches
    draw(media / "e.png")
    watching.start()
    watching.wait_for("broken.png", "d.png", "e.png", "note.txt")
    assert watching.stop(signal.SIGTERM) == 130
    assert "Traceback" not in watching.said()


@pytest.mark.slow
def test_stopped_in_the_middle_of_a_pass_and_while_another_holds_the_store(watching: Watching) -> None:
    names = [f"{number:02}.png" for number in range(40)]
    for name in names:
        draw(watching.media / name)
    watching.start()
    watching.until((watching.store / "default").is_dir)  # the pass has begun
    assert watching.stop(signal.SIGINT) == 130
    assert "Traceback" not in watching.said()
    held = FileLock(watching.store / "default")
    held.record({"state": "private"})  # by a process that cannot share it
    watching.start()
    watching.until(lambda: "trying again" in watching.said())
    held.release()
    watching.wait_for(*names)
    assert watching.stop(signal.SIGINT) == 130


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["nowhere"], "no such folder"),
        ([".", "--store", "."], "name another folder"),
        ([".", "--model", "no-such-model"], "error: "),
    ],
)
def test_mistakes_are_one_line(tmp_path: Path, arguments: list[str], said: str) -> None:
    environment = {**os.environ, "HF_HUB_OFFLINE": "1"}
    command = [sys.executable, str(SCRIPT), *arguments]
    done = subprocess.run(  # noqa: S603 our own script
        command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert said in done.stderr
    assert len(done.stderr.splitlines()) == 1, done.stderr


def test_help() -> None:
    command = [sys.executable, str(SCRIPT), "--help"]
    shown = subprocess.run(command, capture_output=True, text=True, check=True).stdout  # noqa: S603 our own script
    for option in ("--store", "--collection", "--model", "--reasoning", "--segment", "--overlap"):
        assert option in shown
