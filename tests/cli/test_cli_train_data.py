"""`ume train convert | annotate | filter | check`, as a person runs them, on Shapes pairs with the bundled Reasoner."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from train_cli import run, run_json

TASKS = ("text_to_image", "grounding", "video_question", "page_retrieval")
SHAPES = tuple(part for task in TASKS for part in ("--task", task))


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("train-data")


@pytest.fixture(autouse=True)
def own_cache(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UME_CACHE_DIR", str(home / "cache"))


@pytest.fixture(scope="module")
def pairs(home: Path) -> Path:
    out = home / "world" / "pairs.jsonl"
    data = run_json("convert", "shapes", out, "--count", "2", "--kin", "2", "--level", "questions", *SHAPES)
    assert (data["pairs"], data["out"], data["tasks"]) == (8, str(out), list(TASKS))
    return out


@pytest.fixture(scope="module")
def annotated(home: Path, pairs: Path) -> Path:
    out = home / "annotated.jsonl"
    data = run_json("annotate", pairs, out, "--leak-share", "0.5", "--seed", "1", "--cache", home / "t.sqlite3")
    assert (data["pairs"], data["annotated"], data["failures"]) == (8, 8, [])
    assert data["reasoner_calls"] + data["cached"] == 16
    assert data["prompt_tokens"] > 0 < data["completion_tokens"]
    return out


def test_drawn_pairs_pass_the_check_to_the_last_pixel(pairs: Path) -> None:
    data = run_json("check", pairs, "--decode")
    assert (data["pairs"], data["broken"], data["failures"]) == (8, 0, [])
    assert data["datasets"]["shapes/grounding"] == {"pairs": 2, "image to image": 2}
    assert run("check", pairs).stdout.count("shapes/") == 4


def test_the_bundled_reasoner_writes_traces_that_are_right(annotated: Path) -> None:
    rows = [json.loads(line) for line in annotated.read_text().splitlines()]
    assert all(row["query_tcot"] and row["positive_tcot"] for row in rows)
    scenes = [row for row in rows if row["dataset"] == "shapes/text_to_image"]
    for row in scenes:
        said = row["query"]["text"].partition(": ")[2].split(", ")
        answer = row["positive_tcot"].partition("<answer>")[2].partition("</answer>")[0].split(", ")
        assert sorted(said) == sorted(answer)
    assert [row.get("leaked", False) for row in rows if "target" not in row] == [False] * 6


def test_the_filter_sorts_them_and_the_kept_ones_can_be_trained_on(home: Path, annotated: Path) -> None:
    kept, rejected = home / "kept.jsonl", home / "rl" / "rejected.jsonl"
    data = run_json("filter", annotated, "--kept", kept, "--rejected", rejected, "--judge", "words:0.5")
    assert data["kept"] + data["rejected"] == 8
    assert data["kept"] >= 4
    assert sum(data["reasons"].values()) == 8
    again = run_json("filter", annotated, "--kept", kept, "--rejected", rejected, "--judge", "words:0.5", "--resume")
    assert (again["judged"], again["kept"], again["reasons"]) == (0, data["kept"], data["reasons"])
    assert run_json("check", kept, "--decode")["broken"] == 0
    table = run("filter", annotated, "--kept", home / "k2.jsonl", "--rejected", home / "r2.jsonl", "--judge", "words")
    assert "shapes/grounding" in table.stdout


def test_the_bundled_reasoner_is_no_judge_and_that_shows(home: Path, annotated: Path) -> None:
    data = run_json(
        "filter", annotated, "--kept", home / "k3.jsonl", "--rejected", home / "r3.jsonl", "--judge", "ume-tiny"
    )
    assert data["kept"] == 0
    assert data["reasons"].get("undecided", 0) >= 4
    assert data["tokens"] > 0


def test_broken_data_is_named_and_told_apart_by_the_exit_code(home: Path, pairs: Path) -> None:
    broken = pairs.with_name("broken.jsonl")
    rows = [json.loads(line) for line in pairs.read_text().splitlines()]
    (pairs.parent / "torn.png").write_bytes(b"\x89PNG\r\n\x1a\n and nothing")
    rows[1]["positive"] = {"images": ["nothing.png"]}
    rows[2]["query"]["text"] = ""
    rows[3]["id"] = 7
    rows[4]["query_tcot"] = '<thinking>x {"bbox_2d": [[1, 2, 3]]}</thinking><rethink>y</rethink><answer>z</answer>'
    rows[5]["positive"] = {"images": ["torn.png"]}
    broken.write_text("".join(json.dumps(row) + "\n" for row in rows))
    data = run_json("check", broken, "--decode", code=1)
    assert (data["pairs"], data["broken"]) == (3, 5)
    places = [(failure["source"], failure["message"].partition("line ")[2]) for failure in data["failures"]]
    for (source, message), (line, field) in zip(
        places,
        ((2, "positive.images[0]"), (3, "query.text"), (4, "id"), (5, "query_tcot"), (6, "positive")),
        strict=True,
    ):
        assert source == f"{broken}:{line}"
        assert message.startswith(f"{line}, {field}: ")
    shown = run("check", broken)
    assert shown.exit_code == 1
    assert "nothing.png does not exist" in shown.stderr
    stopped = run("check", broken, "--on-error", "stop")
    assert stopped.exit_code == 1
    assert "line 2, positive.images[0]" in stopped.stderr
    assert "line 3" not in stopped.stderr
    assert run("annotate", broken, home / "no.jsonl", "--json").exit_code == 1
    skipped = run_json("annotate", broken, home / "some.jsonl", "--on-error", "skip")
    assert (skipped["annotated"], len(skipped["failures"])) == (4, 4)


def test_layouts_are_listed_and_wrong_calls_are_errors(home: Path) -> None:
    names = {layout["name"] for layout in run_json("convert", "list")["layouts"]}
    assert {"mmeb-train", "llava-hound-qa", "vidore", "visrag", "embed-rl-train", "pairs", "shapes"} <= names
    for arguments in (("shapes",), ("mmeb-train", home / "x.jsonl"), ("imagenet", home, home / "x.jsonl")):
        result = run("convert", *arguments, "--json")
        assert result.exit_code == 1
        assert json.loads(result.stdout)["error"] == "invalid_input"
    assert run("filter", home / "x.jsonl").exit_code == 2
    wrong = run("filter", home / "x", "--kept", "k", "--rejected", "r", "--judge", "words:many", "--json")
    assert wrong.exit_code == 1


def test_pair_files_change_their_format(home: Path, pairs: Path) -> None:
    data = run_json("convert", "pairs", pairs, home / "other" / "pairs.parquet")
    assert data["pairs"] == 8
    assert run_json("check", home / "other" / "pairs.parquet", "--decode")["broken"] == 0


PROGRAM = """
import sys
from pathlib import Path
from ume_retrieval.testing import FakeReasoner
from ume_training.data.annotate import AnnotateSettings, annotate
import time

def slow(chat):
    time.sleep(0.002)
    return "<answer>words</answer>"

annotate(Path(sys.argv[1]), Path(sys.argv[2]), FakeReasoner(slow), AnnotateSettings(batch=3), resume=True)
"""


def test_a_process_that_is_killed_loses_nothing(tmp_path: Path) -> None:
    """A real SIGKILL at three moments, then a run to the end."""
    rows = (
        {"id": str(i), "dataset": "d", "query": {"text": f"q{i}"}, "positive": {"text": f"p{i}"}} for i in range(90)
    )
    (tmp_path / "pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    out = tmp_path / "out.jsonl"
    command = [sys.executable, "-c", PROGRAM, str(tmp_path / "pairs.jsonl"), str(out)]
    for lines in (3, 30, 60):
        process = subprocess.Popen(command, env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)})  # noqa: S603
        deadline = time.monotonic() + 300
        while process.poll() is None and time.monotonic() < deadline:
            if out.exists() and out.read_bytes().count(b"\n") >= lines:
                process.send_signal(signal.SIGKILL)
                break
            time.sleep(0.001)
        process.wait()
        assert out.read_bytes().count(b"\n") >= lines
    subprocess.run(command, check=True, env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)})  # noqa: S603
    ids = [json.loads(line)["id"] for line in out.read_text().splitlines()]
    assert sorted(ids, key=int) == [str(number) for number in range(90)]
