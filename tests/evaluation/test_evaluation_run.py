"""Runs: end to end with the bundled pair in every layout; killed and resumed; in shards."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from evaluation_world import QUERIES, fakes

from ume_eval import (
    Options,
    ProgressCallbacks,
    Shard,
    VectorStore,
    all_tasks,
    choose,
    evaluate,
)
from ume_eval.run import VECTORS_FILE
from ume_retrieval import InputError, ReasoningEmbedder
from ume_retrieval.testing import fake_embedder

HERE = Path(__file__).parent

ONE_OF_EACH_LAYOUT = (
    "OK-VQA",
    "MSCOCO_t2i",
    "CIRR",
    "Breakfast",
    "SmthSmthV2",
    "MSR-VTT",
    "MVBench",
    "Video-MME",
    "NExTQA",
    "EgoSchema",
    "ActivityNetQA",
    "QVHighlight",
    "MomentSeeker",
    "ViDoRe_docvqa",
)

UVRB_FORMS = ("VDC-O", "MS-TI", "LoVR-C2V")


def test_the_layouts_above_are_all_there_are() -> None:
    chosen = choose("mmeb-v2", ONE_OF_EACH_LAYOUT)
    assert {task.layout for task in chosen} == {task.layout for task in all_tasks("mmeb-v2")}
    assert {task.metric for task in chosen} == {"hit@1", "ndcg@5"}


def test_every_layout_of_mmeb_runs_with_the_bundled_pair(
    bundled: ReasoningEmbedder, mmeb: Path, tmp_path: Path
) -> None:
    tasks = choose("mmeb-v2", ONE_OF_EACH_LAYOUT)
    result = evaluate(bundled, tasks, mmeb, tmp_path, options=Options(swap=False))
    check_run(result.to_dict(), [task.name for task in tasks])
    assert json.loads((tmp_path / "results.json").read_text(encoding="utf-8")) == result.to_dict()
    pages = result.tasks[-1]
    assert pages.modes["reasoned"].score > 50, "the pair knows stock lists"


def test_every_form_of_uvrb_runs_with_the_bundled_pair(bundled: ReasoningEmbedder, uvrb: Path, tmp_path: Path) -> None:
    result = evaluate(bundled, choose("uvrb", UVRB_FORMS), uvrb, tmp_path, options=Options(swap=False))
    check_run(result.to_dict(), list(UVRB_FORMS))


def check_run(result: dict[str, Any], names: list[str]) -> None:
    assert [task["name"] for task in result["tasks"]] == names
    assert not result["absent"]
    for task in result["tasks"]:
        assert task["queries"] == QUERIES
        assert set(task["modes"]) == {"direct", "reasoned", "fused"}
        assert not task["problems"]
        for score in task["modes"].values():
            assert 0 <= score["score"] <= 100
            assert score["metrics"][task["metric"]] == score["score"]
            assert score["gap"] >= 0
        assert task["query_cost"]["tokens"] > 0
        # A pair of 2.5 million parameters may write no usable T-CoT about words that it has never read.
        assert all(failure["error"] == "reasoning_error" for failure in task["failures"])


def test_a_second_run_makes_no_model_call(mmeb: Path, tmp_path: Path) -> None:
    tasks = choose("mmeb-v2", ["CIRR", "MSR-VTT"])
    first = evaluate(fakes(tmp_path), tasks, mmeb, tmp_path)
    again = fakes(tmp_path)
    assert evaluate(again, tasks, mmeb, tmp_path).to_dict() == first.to_dict()
    assert again.embedder.chats == again.reasoner.chats == []


def test_killed_at_any_point_and_started_again(mmeb: Path, tmp_path: Path) -> None:
    stride = 5
    driver = subprocess.run(  # noqa: S603  # this interpreter and a file of this folder
        [sys.executable, HERE / "evaluation_kill_driver.py", mmeb, tmp_path / "work", str(stride)],
        capture_output=True,
        text=True,
        check=True,
        timeout=300,
        env=os.environ | {"PYTHONWARNINGS": "ignore::DeprecationWarning"},
    )
    found = json.loads(driver.stdout)
    whole = found["whole"]
    assert whole["steps"] > 20
    assert whole["again"] == 0
    assert len(found["killed"]) >= whole["steps"] // stride
    for step, one in found["killed"].items():
        assert one["killed"], step
        assert one["tasks"] == whole["tasks"], f"killed at step {step}"
        assert (one["stored"], one["again"]) == (whole["stored"], 0), f"killed at step {step}: embedded again"


def test_shards_add_up(mmeb: Path, tmp_path: Path) -> None:
    tasks = choose("mmeb-v2", ["CIRR", "ViDoRe_docvqa"])
    whole = evaluate(fakes(), tasks, mmeb, tmp_path / "whole")
    counts = []
    for number in (1, 2, 3):
        part = tmp_path / f"part{number}"
        result = evaluate(fakes(), tasks, mmeb, part, options=Options(shard=Shard(number, 3)))
        assert not result.tasks
        counts.append(len(VectorStore(part / VECTORS_FILE)))
    assert min(counts) > 0
    merged = VectorStore(tmp_path / "merged" / VECTORS_FILE)
    assert [merged.merge(tmp_path / f"part{number}" / VECTORS_FILE) for number in (1, 2, 3)] == counts
    assert merged.merge(tmp_path / "part1" / VECTORS_FILE) == 0
    assert merged.merge(tmp_path / "part1" / ".." / "merged" / VECTORS_FILE) == 0, "its own vectors"
    judge = fakes()
    assert evaluate(judge, tasks, mmeb, tmp_path / "merged", options=Options(swap=False)).scores(
        "fused"
    ) == whole.scores("fused")
    assert judge.embedder.chats == []
    with pytest.raises(InputError):
        merged.merge(tmp_path / "nowhere")


@pytest.mark.parametrize("text", ["0/2", "3/2", "1", "a/b", "1/2/3", "-1/2", ""])
def test_shards_that_do_not_exist(text: str) -> None:
    with pytest.raises(InputError):
        Shard.parse(text)


def test_reasoning_needs_a_reasoner(mmeb: Path, tmp_path: Path) -> None:
    tasks = choose("mmeb-v2", ["CIRR"])
    with pytest.raises(InputError, match="Reasoner"):
        evaluate(fake_embedder(reasoner=None), tasks, mmeb, tmp_path)
    plain = evaluate(fake_embedder(reasoner=None), tasks, mmeb, tmp_path, options=Options("never")).tasks[0]
    assert set(plain.modes) == {"direct"}
    assert plain.gain is plain.query_cost is plain.swap is None
    thought = evaluate(fakes(), tasks, mmeb, tmp_path, options=Options("always")).tasks[0]
    assert set(thought.modes) == {"reasoned"}
    assert thought.gain is None
    assert thought.query_cost is not None
    with pytest.raises(InputError):
        Options("sometimes")  # type: ignore[arg-type]


def test_progress_reaches_its_end(mmeb: Path, tmp_path: Path) -> None:
    seen: list[tuple[str, int, int]] = []
    counts: list[int] = []
    advanced: list[int] = []
    watch = ProgressCallbacks(lambda *task: seen.append(task), counts.append, advanced.append)
    evaluate(fakes(), choose("mmeb-v2", ["CIRR", "EDIS"]), mmeb, tmp_path, watch=watch)
    assert seen == [("CIRR", 0, 2), ("EDIS", 1, 2)]
    assert sum(counts) == sum(advanced) > 0
    assert len(counts) == 2
