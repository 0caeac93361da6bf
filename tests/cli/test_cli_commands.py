"""The commands as a person runs them, on the bundled pair and a small folder."""

from __future__ import annotations

import io
import json
import random
import re
import shlex
import shutil
from pathlib import Path
from typing import Any

import pytest
import typer
from rich.console import Console
from typer.testing import CliRunner, Result

import ume_retrieval
from ume_cli.app import app
from ume_cli.output import Output, command
from ume_cli.searching import _table
from ume_qdrant import Hit, HitEvidence, SearchResult
from ume_retrieval import Failure
from ume_training.shapes.draw import draw_scene, write_clip, write_pages
from ume_training.shapes.levels import LEVELS
from ume_training.shapes.world import Scene, sample_clip, sample_page, sample_scene

LEVEL = LEVELS["default"]


def run(*arguments: str | Path) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def run_json(*arguments: str | Path) -> Any:
    """Standard output must be one JSON object and nothing else."""
    result = run(*arguments, "--json")
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cli")


@pytest.fixture(autouse=True)
def own_cache(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UME_CACHE_DIR", str(home / "cache"))


@pytest.fixture(scope="module")
def scenes() -> list[Scene]:
    rng = random.Random(77)
    return [sample_scene(rng, LEVEL) for _ in range(6)]


@pytest.fixture(scope="module")
def folder(home: Path, scenes: list[Scene]) -> Path:
    rng = random.Random(78)
    place = home / "things"
    place.mkdir()
    for number, scene in enumerate(scenes):
        draw_scene(scene, rng).save(place / f"scene{number}.png")
    write_clip([sample_clip(rng, LEVEL) for _ in range(2)], place / "clip.mp4")
    write_pages([sample_page(rng, LEVEL) for _ in range(2)], place / "stock.pdf")
    (place / "broken.jpg").write_bytes(b"\xff\xd8\xff\xe0 and then nothing")
    return place


@pytest.fixture(scope="module")
def store(home: Path, folder: Path) -> tuple[str, ...]:
    """Where the folder is indexed, with reasoning."""
    options = ("--store", str(home / "store"), "--collection", "things")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("UME_CACHE_DIR", str(home / "cache"))
        first = run_json("index", folder, *options, "--segment", "4", "--overlap", "0")
        assert first["indexed"] == 8
        assert [failure["source"].endswith("broken.jpg") for failure in first["failed"]] == [True]
        assert set(first["failed"][0]) == {"source", "error", "hint"}
        enriched = run_json("enrich", *options)
        assert enriched["enriched"] == 10
        assert enriched["remaining"] == 0
    return options


def test_an_unchanged_folder_asks_no_model(store: tuple[str, ...], folder: Path) -> None:
    again = run_json("index", folder, *store, "--segment", "4", "--overlap", "0")
    assert {key: again[key] for key in ("indexed", "unchanged", "removed", "model_calls")} == {
        "indexed": 0,
        "unchanged": 8,
        "removed": 0,
        "model_calls": 0,
    }


def test_search_finds_the_scene_that_is_described(store: tuple[str, ...], scenes: list[Scene]) -> None:
    hits = run_json("search", f"find image: {scenes[2].words}", *store, "--limit", "3")["hits"]
    assert len(hits) == 3
    assert hits[0]["source"].endswith("scene2.png")
    assert hits[0]["answer"] == scenes[2].words
    assert len(hits[0]["evidence"]["boxes"]) == len(scenes[2].things)
    assert set(hits[0]) == {"source", "score", "start_s", "end_s", "page", "answer", "evidence", "meta"}


def test_a_search_can_take_a_second_look(store: tuple[str, ...], scenes: list[Scene]) -> None:
    query = ("search", f"find image: {scenes[2].words}", *store, "--limit", "2")
    first = run_json(*query)["hits"]
    found = run_json(*query, "--rerank", "reasoner", "--rerank-candidates", "3")
    assert len(found["hits"]) == 2
    assert [hit["rerank_score"] for hit in found["hits"]] == pytest.approx([1, 2 / 3], abs=1e-6)
    assert {hit["source"] for hit in found["hits"]} & {hit["source"] for hit in first}
    assert found["usage"]["reranker_calls"] >= 1
    assert found["failures"] == []
    result = run(*query, "--rerank", "qwen3-vl-embedding-2b")
    assert result.exit_code == 1
    assert "not a reranker" in result.stderr


def test_search_by_picture_finds_the_picture(store: tuple[str, ...], folder: Path) -> None:
    picture = folder / "scene4.png"
    hits = run_json("search", "--image", picture, *store, "--mode", "direct", "--kind", "image")["hits"]
    assert hits[0]["source"].endswith("scene4.png")


def test_a_hit_says_which_second_or_page(store: tuple[str, ...]) -> None:
    video = run_json("search", "find video: red circle moves right top", *store, "--kind", "video")["hits"]
    assert {(hit["start_s"], hit["end_s"]) for hit in video} == {(0.0, 4.0), (4.0, 8.0)}
    assert all(frame["time_s"] >= hit["start_s"] for hit in video for frame in hit["evidence"]["key_frames"])
    page = run_json("search", "find page with red circle 7", *store, "--kind", "page")["hits"]
    assert {hit["page"] for hit in page} == {1, 2}


def test_a_gate_is_learnt_from_queries_and_used(
    store: tuple[str, ...], scenes: list[Scene], home: Path, folder: Path
) -> None:
    rng = random.Random(5)
    asked = [f"find image: {sample_scene(rng, LEVEL).words}" for _ in range(44)] + [
        f"find image: {s.words}" for s in scenes
    ]
    queries, out = home / "queries.txt", home / "gate.json"
    queries.write_text("\n".join(asked) + "\n")
    made = run_json("gate", queries, "--out", out, *store, "--max-loss", "0.2")
    assert (made["queries"], made["gate"]) == (50, str(out))
    assert made["loss"] <= 0.2
    answers = [run_json("search", query, *store, "--gate", out)["usage"] for query in asked[:4] + asked[-2:]]
    assert all(usage["reasoned"] + usage["spared"] == 1 for usage in answers)
    assert any(usage["spared"] for usage in answers) or made["saved"] < 0.5
    rows = home / "queries.jsonl"
    rows.write_text(json.dumps({"text": "red circle", "images": "no list"})[:-1])
    refused = run("gate", rows, *store)
    assert refused.exit_code == 1
    assert "line 1: no query" in refused.stderr
    pictures = [f"scene{number}.png" for number in range(6)]
    kept = [{"text": words, "answer": pictures[n % 6]} for n, words in enumerate(asked)]
    beside = folder / "asked.jsonl"
    try:
        beside.write_text(
            "\n".join(json.dumps({**row, "text": f"{row['text']}\u2028"}, ensure_ascii=False) for row in kept)
        )
        made = run_json("gate", beside, "--out", home / "new" / "[gate].json", *store)
        assert made["gate"] == str(home / "new" / "[gate].json")
        beside.write_text("\n".join(json.dumps({**row, "answer": "nowhere.png"}) for row in kept))
        assert "no source of 'things'" in run("gate", beside, "--out", out, *store).stderr
    finally:
        beside.unlink()
    assert "cannot write" in run("gate", queries, "--out", home, *store).stderr
    few = home / "few.txt"
    few.write_text("one\n")
    assert "nothing can be calibrated" in run("gate", few, *store).stderr


def test_people_get_a_table(store: tuple[str, ...]) -> None:
    result = run("search", "red circle", *store, "--limit", "2")
    assert result.exit_code == 0
    assert "score" in result.stdout
    assert "{" not in result.stdout


def test_no_word_of_a_file_acts_on_a_terminal() -> None:
    hostile = "red \x1b]0;title\x07\x1b[2J\n[bold]circle\u202e " * 500
    told: dict[str, Any] = {"score": 0.5, "start_s": None, "end_s": None, "page": None, "trace": None, "point_id": "1"}
    hits = (
        Hit(source="a.txt", kind="text", answer=None, evidence=HitEvidence(), text=hostile, **told),
        Hit(source="b.png", kind="image", answer=hostile, evidence=HitEvidence(), text=None, **told),
    )
    screen = Console(file=io.StringIO(), width=120)
    screen.print(_table(SearchResult(hits)))
    shown = screen.file.getvalue()  # type: ignore[attr-defined]  # a StringIO
    assert all(character.isprintable() or character == "\n" for character in shown)
    assert shown.count("[bold]circle<U+202E>") >= 2
    assert shown.count("…") == 2
    assert len(shown.splitlines()) < 15


def test_failures_say_path_reason_and_hint_once() -> None:
    notes = Console(file=io.StringIO(), width=80)
    named = Failure(0, "/in/a.txt", "broken_media", "/in/a.txt is no UTF-8 text", "save it as UTF-8")
    bare = Failure(1, "/in/\x1b[2J.png", "reasoning_error", "no usable trace", "try another Reasoner")
    Output(as_json=False, screen=notes, notes=notes).failures((named, bare))
    assert notes.file.getvalue().splitlines()[1:] == [  # type: ignore[attr-defined]  # a StringIO
        "  /in/a.txt is no UTF-8 text (save it as UTF-8)",
        "  /in/<U+001B>[2J.png: no usable trace (try another Reasoner)",
    ]


def test_what_the_system_refuses_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    for as_json in (False, True):
        with pytest.raises(typer.Exit) as ended, command(as_json=as_json):
            raise OSError(28, "No space left on device", "/full/results.json")
        assert ended.value.exit_code == 1
    out, err = capsys.readouterr()
    assert err == "error: /full/results.json: No space left on device\n"
    assert json.loads(out)["message"] == "/full/results.json: No space left on device"
    with pytest.raises(BrokenPipeError), command(as_json=False):
        raise BrokenPipeError


def test_the_command_that_goes_on_can_be_pasted(home: Path) -> None:
    place = home / "a folder of words"
    place.mkdir()
    (place / "note.txt").write_text("red circle top left")
    pair = home / "my pair"
    shutil.copytree(Path(ume_retrieval.__file__).parent / "pretrained" / "ume-tiny", pair)
    models = ("--model", pair, "--device", "cpu", "--isolate")
    told = run("index", place, "--store", home / "my store", "--collection", "notes", *models).stderr
    [line] = re.findall(r"`(ume enrich .*)`", told)
    words = shlex.split(line)
    assert words[:2] == ["ume", "enrich"]
    assert run_json(*words[1:])["enriched"] == 1
    assert "--reasoner" not in words
    told = run("index", place, "--store", home / "second", "--reasoner", "none").stderr
    assert "--reasoner" not in told


def test_report_writes_page_and_sheet(store: tuple[str, ...], home: Path) -> None:
    page, sheet = home / "[report].html", home / "sheet.png"
    assert f"wrote {page.name}" in run("report", "red", *store, "--out", page).stdout.replace("\n", "").replace(
        f"{home}/", ""
    )
    data = run_json("report", "find image: red circle top left", *store, "--out", page, "--sheet", sheet)
    assert data["report"] == str(page)
    assert "http://" not in page.read_text(encoding="utf-8").replace("http://www.w3.org/", "")
    assert sheet.read_bytes().startswith(b"\x89PNG")


def test_strict_stops_with_a_line_and_a_code(folder: Path, home: Path) -> None:
    result = run("index", folder, "--store", home / "strict", "--strict")
    assert result.exit_code == 1
    assert "broken.jpg" in result.stderr


def test_an_error_is_json_too(home: Path) -> None:
    result = run("search", "x", "--store", home / "nothing", "--collection", "none", "--json")
    assert result.exit_code == 1
    assert json.loads(result.stdout)["error"] == "collection_not_found"


def test_an_error_is_one_line_with_a_hint(home: Path, folder: Path) -> None:
    result = run("index", folder, "--store", home / "nothing", "--model", "embed-rl-3b")
    assert result.exit_code == 1
    assert result.stderr.startswith("error:")
    assert "did you mean" in result.stderr


def test_wrong_usage_has_its_own_code() -> None:
    assert run("index").exit_code == 2
    assert run("search", "x", "--limit", "0").exit_code == 2


def test_nothing_to_search_with_is_an_error() -> None:
    result = run("search", "--json")
    assert result.exit_code == 1
    assert json.loads(result.stdout)["error"] == "invalid_input"


def test_models_lists_presets() -> None:
    names = {(model["name"], model["role"]) for model in run_json("models")["models"]}
    assert {("ume-tiny", "embedder"), ("embed-rl-2b", "embedder"), ("qwen3-vl-8b", "reasoner")} <= names


def test_doctor_finds_this_installation_healthy() -> None:
    data = run_json("doctor")
    assert data["healthy"]
    assert {"torch", "torch with torchvision", "ume-tiny"} <= {finding["name"] for finding in data["findings"]}


def test_cache_tells_and_forgets(store: tuple[str, ...]) -> None:
    kept = run_json("cache", "info")["traces"]
    assert kept > 0
    assert run_json("cache", "prune", "--days", "1")["removed"] == 0
    assert run_json("cache", "clear")["removed"] == kept
    assert run_json("cache", "info")["traces"] == 0


def test_eval_shapes_prints_the_promised_shape() -> None:
    data = run_json("eval", "shapes", "--seed", "3", "--queries", "2", "--candidates", "12")
    assert len(data["tasks"]) == 11
    for scores in (data, *data["tasks"].values()):
        assert 0 <= scores["direct"]["hit@1"] <= 1
        assert 0 <= scores["reasoned"]["hit@1"] <= 1


def test_an_unknown_level_is_an_error_not_a_traceback() -> None:
    result = run("eval", "shapes", "--level", "easy", "--json")
    assert result.exit_code == 1
    assert json.loads(result.stdout)["error"] == "invalid_input"


def test_numbers_that_bound_nothing_are_refused() -> None:
    for option in ("--megabytes", "--days"):
        for number in ("inf", "nan", "-1"):
            refused = run("cache", "prune", option, number, "--json")
            assert refused.exit_code == 1
            assert option in json.loads(refused.stdout)["message"]


def test_answers_that_are_no_sources_are_refused(tmp_path: Path) -> None:
    queries = tmp_path / "queries.jsonl"
    queries.write_text('{"text": "red", "answer": "a.png"}\n{"text": "red", "answer": 5}\n')
    refused = run("gate", queries, "--store", tmp_path / "store", "--json")
    assert refused.exit_code == 1
    assert "line 2: no query: an answer is the name of a source" in json.loads(refused.stdout)["message"]


def test_demo_refuses_a_file(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("keep me")
    result = run("demo", "--out", tmp_path / "file", "--json")
    assert result.exit_code == 1
    assert "is not a folder" in json.loads(result.stdout)["message"]
    assert (tmp_path / "file").read_text() == "keep me"


def test_demo_refuses_a_folder_that_is_not_its_own(tmp_path: Path) -> None:
    (tmp_path / "letters.txt").write_text("keep me")
    result = run("demo", "--out", tmp_path)
    assert result.exit_code == 1
    assert (tmp_path / "letters.txt").read_text() == "keep me"


@pytest.mark.slow
def test_demo_shows_what_reasoning_is_worth(tmp_path: Path) -> None:
    data = run_json("demo", "--out", tmp_path / "demo")
    assert data["reasoned"]["hit@1"] >= 0.85
    assert data["reasoned"]["hit@1"] >= data["direct"]["hit@1"] + 0.06
    assert Path(data["report"]).is_file()
