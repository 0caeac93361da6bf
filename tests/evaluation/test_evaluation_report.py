"""Tables, reports and plots of a run."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path

import PIL.Image
import pytest

from ume_eval import (
    Benchmark,
    Cost,
    ModeScore,
    Problem,
    RunResult,
    Swap,
    TaskResult,
    choose,
    comparable_scores,
    draw_plots,
    group_table,
    notes,
    reasoning_table,
    task_table,
    to_markdown,
    write_report,
    write_result,
)
from ume_eval.plots import radar_lines
from ume_retrieval import Failure, InputError, MissingExtra


def run(benchmark: Benchmark, wanted: list[str] | None = None) -> RunResult:
    """A run with made-up scores, reasoning better on videos and worse on pictures."""
    results = []
    for place, task in enumerate(choose(benchmark, wanted or [])):
        gain = -4.0 if task.groups[0].startswith("image") else 6.0
        direct = 40.0 + place % 30
        scores = {"direct": direct, "reasoned": direct + gain, "fused": direct + gain / 2 + 2}
        results.append(
            TaskResult(
                name=task.name,
                groups=task.groups,
                metric=task.metric,
                queries=task.queries or 100,
                candidates=50,
                modes={mode: ModeScore(score, {task.metric: score}, 0.05, 0) for mode, score in scores.items()},  # type: ignore[misc]
                gain=gain,
                gain_error=1.0,
                query_cost=Cost(100.0 + 3 * place, 1.5, 2.0, 9000),
                corpus_cost=Cost(90.0, 1.0, 1.0, 4000),
                swap=Swap(100, direct, direct - 20, 20.0, 3.0, 0.6),
            )
        )
    return RunResult(benchmark, "page-fixed", "pair/embedder@1", "pair/reasoner@1", tuple(results))


def test_a_whole_run_stands_beside_the_paper() -> None:
    result = run("mmeb-v2")
    models = ["Embed-RL-2B", "Qwen3-VL-Embedding-8B"]
    table = group_table(result, comparable_scores(choose("mmeb-v2"), models=models))
    assert table.columns == ("group", "tasks", "direct", "reasoned", "fused", *models)
    rows = {row[0]: row for row in table.rows}
    assert rows["all"][1] == "78"
    assert rows["all"][5:] == ("66.8", "77.8")
    assert rows["video MRET"][5:] == ("49.4", "56.1")
    assert {table.rows[place][0] for place in table.strong} == {"image", "video", "visdoc", "all"}


def test_a_part_stands_beside_the_same_part() -> None:
    result = run("mmeb-v2", ["CIRR", "EDIS"])
    others = comparable_scores(choose("mmeb-v2", ["CIRR"]), models=["Embed-RL-2B", "Qwen3-VL-Embedding-8B"])
    rows = {row[0]: row for row in group_table(result, others).rows}
    mean = (others[0].tasks["CIRR"] + others[0].tasks["EDIS"]) / 2
    assert rows["image RET"][1] == "2 of 12"
    assert rows["image RET"][5:] == (f"{mean:.1f}", "-"), "printed means are of whole groups"


def test_other_rows_stand_beside_nothing() -> None:
    result = run("mmeb-v2", ["CIRR", "EDIS"])
    result = replace(result, tasks=(replace(result.tasks[0], comparable=False), result.tasks[1]))
    others = comparable_scores(choose("mmeb-v2", ["CIRR"]))
    assert [row[-2:] for row in group_table(result, others).rows] == [("-", "-")] * 3
    rows = {row[0]: row for row in task_table(result, others).rows}
    assert rows["CIRR"][-2:] == ("-", "-")
    assert rows["EDIS"][-2] != "-"
    assert any("another number of queries" in note for note in notes(result, others))


def test_the_table_of_tasks_says_what_reasoning_does() -> None:
    result = run("mmeb-v2", ["CIRR", "MSVD"])
    unused = replace(result.tasks[1], swap=Swap(100, 60.0, 59.0, 1.0, 2.0, 0.99))
    few = replace(result.tasks[0], swap=Swap(3, 60.0, 0.0, 60.0, 2.0, 0.99))
    result = replace(result, tasks=(few, unused))
    table = task_table(result)
    cells = [dict(zip(table.columns, row, strict=True)) for row in table.rows]
    assert cells[0]["gain"] == "-4.0 ± 1.0"
    assert [cell["T-CoT"] for cell in cells] == ["-", "not used (-1.0)"]
    assert any("not shown to be used in MSVD" in note for note in notes(result))


def test_what_reasoning_does() -> None:
    result = run("mmeb-v2", ["CIRR"])
    [row] = reasoning_table(result).rows
    cells = dict(zip(reasoning_table(result).columns, row, strict=True))
    assert cells["gap reasoned"] == "0.050"
    assert (cells["evidence/query"], cells["evidence/candidate"]) == ("1.5", "1.0")
    assert (cells["own T-CoT"], cells["swapped T-CoT"], cells["T-CoT"]) == ("40.0", "20.0", "used")
    assert "effect of reasoning" in to_markdown(result)
    bare = replace(result, tasks=(replace(result.tasks[0], query_cost=None),))
    assert "what reasoning does" not in to_markdown(bare)


def test_direct_runs_have_no_columns_of_reasoning() -> None:
    result = run("uvrb", ["CG"])
    bare = tuple(
        replace(task, modes={"direct": task.modes["direct"]}, gain=None, query_cost=None, swap=None)
        for task in result.tasks
    )
    result = replace(result, tasks=bare, reasoner=None)
    assert task_table(result).columns == ("task", "metric", "queries", "candidates", "direct", "left out")
    assert group_table(result).columns == ("group", "tasks", "direct")


def test_uvrb_stands_beside_its_papers() -> None:
    others = comparable_scores(choose("uvrb"), models=["Embed-RL-2B", "GVE-7B"])
    rows = {row[0]: row for row in group_table(run("uvrb"), others).rows}
    assert rows["CG"][-2:] == ("59.1", "58.7")
    assert rows["VIS"][-2:] == ("70.3", "65.7"), "printed where single scores are not known"
    assert rows["AVG"][-1] == "59.9", "60.0 from rounded abilities in the paper"


HOSTILE = "<script>alert(1)</script> | **x** [y](z)"


def hostile() -> RunResult:
    result = run("mmeb-v2", ["CIRR"])
    problem = Problem("broken_row", HOSTILE, HOSTILE, costs_query=True)
    failure = Failure(0, HOSTILE, "broken_media", HOSTILE)
    task = replace(result.tasks[0], problems=(problem,), failures=(failure,))
    return replace(result, embedder=f"{HOSTILE}@1", tasks=(task,), absent={"EDIS": HOSTILE})


def test_reports_show_what_they_name_as_text(tmp_path: Path) -> None:
    markdown, page = write_report(hostile(), tmp_path)
    assert "<script>" not in page.read_text(encoding="utf-8")
    text = markdown.read_text(encoding="utf-8")
    assert "\\<script>" in text
    assert "<script>" not in text.replace("\\<script>", "")
    assert "Left out (2)" in text
    assert "1 queries could not be read and 1 samples not embedded" in text


def test_a_report_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x", encoding="utf-8")
    with pytest.raises(InputError):
        write_report(hostile(), tmp_path / "file")


def test_results_are_json_without_nan(tmp_path: Path) -> None:
    result = run("mmeb-v2", ["CIRR"])
    score = ModeScore(float("nan"), {"hit@1": 1.0}, None, 0)
    result = replace(result, tasks=(replace(result.tasks[0], modes={"direct": score}),))
    write_result(result, tmp_path / "results.json")
    assert "NaN" not in (tmp_path / "results.json").read_text(encoding="utf-8")
    assert list(tmp_path.iterdir()) == [tmp_path / "results.json"]


def test_whatever_results_hold_can_be_written(tmp_path: Path) -> None:
    result = run("mmeb-v2", ["CIRR"])
    failure = Failure(0, "caf\udce9.png", "broken_media", "caf\udce9.png is broken")
    result = replace(result, tasks=(replace(result.tasks[0], failures=(failure,)),))
    write_result(result, tmp_path / "results.json")
    assert json.loads((tmp_path / "results.json").read_text(encoding="utf-8")) == result.to_dict()
    markdown, page = write_report(result, tmp_path)
    assert "caf\\<U+DCE9>.png" in markdown.read_text(encoding="utf-8")
    assert "caf&lt;U+DCE9&gt;.png" in page.read_text(encoding="utf-8")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is always full")
def test_a_full_disk_is_a_typed_error(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    result = run("mmeb-v2")
    for name in ("results.json", "report.md", "radar.png"):
        (tmp_path / name).symlink_to("/dev/full")
    for write in (
        lambda: write_result(result, tmp_path / "results.json"),
        lambda: write_report(result, tmp_path),
        lambda: draw_plots(result, tmp_path),
    ):
        with pytest.raises(InputError, match="No space left"):
            write()


@pytest.mark.parametrize("benchmark", ["mmeb-v2", "uvrb"])
def test_plots(benchmark: Benchmark, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    result = run(benchmark)
    others = comparable_scores(choose(benchmark), models=["Embed-RL-2B"])
    pictures = draw_plots(result, tmp_path, others)
    assert [picture.name for picture in pictures] == ["radar.png", "gain.png"]
    for picture in pictures:
        with PIL.Image.open(picture) as image:
            assert min(image.size) > 500
    _, page = write_report(result, tmp_path, others, pictures)
    assert page.read_text(encoding="utf-8").count("data:image/png;base64,") == 2


def test_without_matplotlib_the_install_command_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(MissingExtra) as missing:
        draw_plots(run("mmeb-v2"), tmp_path)
    assert "ume-retrieval[eval]" in missing.value.hint


def test_a_radar_needs_three_axes(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    result = run("mmeb-v2", ["CIRR", "MSVD"])
    assert [picture.name for picture in draw_plots(result, tmp_path)] == ["gain.png"]


def test_a_radar_draws_who_has_every_axis() -> None:
    others = comparable_scores(
        choose("mmeb-v2"), models=["Embed-RL-2B", "Qwen3-VL-Embedding-8B", "Embed-RL-2B raw input"]
    )
    lines = radar_lines(run("mmeb-v2"), others)
    assert list(lines) == ["direct", "reasoned", "fused", "Embed-RL-2B", "Qwen3-VL-Embedding-8B"]
    assert len(lines["direct"]) == 12
    part = radar_lines(run("mmeb-v2", ["image"]), others)
    assert list(part) == ["direct", "reasoned", "fused", "Embed-RL-2B"], "printed means are of whole benchmarks"
